//! The search for one batch of blocks.

use super::block::{Batch, Block};
use super::effort::Stage;
use super::fit::{Fit, MAX_LANES, Refinement, Texels, fit};
use super::pairs::{
    BlockRows, FREE_ROW, PairTable, Positions, SEARCH_TEXELS, best_pair, row_of, search,
};
use super::patterns::{Pattern, Patterns, Subset};
use super::rank::{BATCH, Ranges, WordLanes, best_of_classes, measure};
use crate::DecodeMode;
use crate::simd::{Aligned, Level, Simd, dispatch};

/// Scratch memory of a search.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    ranges: Ranges,
    winners: Vec<WordLanes>,
    candidates: Vec<u16>,
    rows: BlockRows,
    leads: Vec<[Lead; BATCH]>,
}

/// The block chosen for one window.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) stage: usize,
    pub(super) pattern: usize,
    pub(super) fit: Fit,
}

/// Approximate outcome of one stage for one block.
#[derive(Debug, Clone, Copy)]
struct Lead {
    /// In squared texel steps times importance.
    error: f32,
    pattern: usize,
}

/// How the best leads become blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// The best lead.
    Quick,
    /// The best fit of all leads that may be best.
    Exact,
}

/// What a search works with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Searcher<'a> {
    pub(super) level: Level,
    pub(super) mode: DecodeMode,
    pub(super) patterns: &'a Patterns,
    pub(super) stages: &'a [Stage],
    pub(super) finish: Finish,
    /// Texels a block.
    pub(super) texels: usize,
}

/// Squared error a texel, in squared texel steps, above which a table's endpoints and weights are
/// as good as an exact fit: its texels are rounded to whole steps.
const TABLED_NOISE: f32 = 8.0;

/// How far a lead's approximate error may be from the best one, at `noise` a texel, for a fit of
/// its own: small errors are within the rounding of the search tables.
fn worth_fitting(noise: f32) -> f32 {
    1.08 + (2.5 / noise).min(3.0)
}

/// What the exact fit of a stretched lead leaves of its approximate error, roughly.
const STRETCHED_GAIN: f32 = 0.975;

impl Finish {
    /// Squared error of a texel over the squared spacing of `levels` levels across the range, as
    /// low as a block of noise gets: 1/12 for uniform noise; less because few texels leave room to
    /// choose the ends, and much less where few levels had better stand inside the range.
    fn least_noise(self, levels: usize) -> f32 {
        let share = match levels {
            0..=2 => 0.1,
            3 => 0.3,
            4 => 0.45,
            _ if self == Self::Quick => 0.67,
            _ => 0.6,
        };
        share / 12.0
    }
}

impl Searcher<'_> {
    /// Chooses a block for every window of `batch`.
    pub(super) fn choose(&self, batch: &Batch, scratch: &mut Scratch) -> Vec<Choice> {
        self.find_leads(batch, scratch);
        let blocks = batch.blocks().iter().enumerate();
        blocks.map(|(slot, block)| self.finish(block, slot, scratch)).collect()
    }

    /// Squared error of all weights of `batch`, importance included; approximate if the finish is
    /// quick.
    pub(super) fn estimate(&self, batch: &Batch, scratch: &mut Scratch) -> f64 {
        self.find_leads(batch, scratch);
        let blocks = batch.blocks().iter().enumerate();
        blocks
            .map(|(slot, block)| {
                let least = match self.finish {
                    Finish::Quick => {
                        let errors = scratch.leads.iter().map(|leads| leads[slot].error);
                        errors.fold(f32::INFINITY, f32::min)
                    }
                    Finish::Exact => self.finish(block, slot, scratch).fit.error,
                };
                f64::from(least) * block.error_scale
            })
            .sum()
    }

    fn finish(&self, block: &Block, slot: usize, scratch: &Scratch) -> Choice {
        let leads = scratch.leads.iter().map(|leads| leads[slot]);
        let best = leads.clone().map(|lead| lead.error).fold(f32::INFINITY, f32::min);
        let noise = best / self.texels as f32;
        let tabled = self.finish == Finish::Quick || noise > TABLED_NOISE;
        let limit = if self.finish == Finish::Quick { best } else { best * worth_fitting(noise) };
        let mut least = f32::INFINITY;
        let mut choice = None;
        for (number, (stage, lead)) in self.stages.iter().zip(leads).enumerate() {
            if lead.error > limit {
                continue;
            }
            if tabled && stage.exact {
                if lead.error < least {
                    least = lead.error;
                    choice = Some((number, lead.pattern, None));
                }
                continue;
            }
            let fit = self.fit(stage, self.pattern(stage, lead.pattern), block, slot, scratch);
            if fit.error < least {
                least = fit.error;
                choice = Some((number, lead.pattern, Some(fit)));
            }
        }
        let (number, pattern, fit) =
            choice.expect("invariant: the lead with the least error is within the limit");
        let fit = fit.unwrap_or_else(|| {
            let stage = &self.stages[number];
            self.tabled_fit(&stage.table, self.pattern(stage, pattern), block, least)
        });
        Choice { stage: number, pattern, fit }
    }

    fn pattern(&self, stage: &Stage, index: usize) -> &Pattern {
        &self.patterns.by_count[stage.config.partitions - 1][index]
    }

    /// Writes the best pattern of every stage for every block to `scratch.leads`.
    fn find_leads(&self, batch: &Batch, scratch: &mut Scratch) {
        let (low, high) = batch.bytes();
        measure(self.level, self.patterns, low, high, &mut scratch.ranges);
        let mut least = [f32::INFINITY; BATCH];
        scratch.leads.clear();
        for stage in self.stages {
            let set = &self.patterns.by_count[stage.config.partitions - 1];
            let mut leads = [Lead { error: f32::INFINITY, pattern: 0 }; BATCH];
            let spans =
                if stage.most_span < u8::MAX { self.spans(batch, scratch) } else { [0; BATCH] };
            if spans[..batch.blocks().len()].iter().all(|span| *span > stage.most_span) {
                scratch.leads.push(leads);
                continue;
            }
            self.rank(set, stage.tries.min(set.len()), scratch);
            for (slot, block) in batch.blocks().iter().enumerate() {
                if spans[slot] > stage.most_span {
                    continue;
                }
                let winners = scratch.winners.iter();
                scratch.candidates.clear();
                scratch.candidates.extend(winners.map(|w| w.0.as_flattened().as_flattened()[slot]));
                let lead = if stage.exact {
                    self.exact_lead(stage, set, block, low.len(), scratch)
                } else {
                    self.stretched_lead(stage, set, block, slot, least[slot], scratch)
                };
                least[slot] = least[slot].min(lead.error);
                leads[slot] = lead;
            }
            scratch.leads.push(leads);
        }
    }

    /// Distance between the largest and the smallest byte of every block.
    fn spans(&self, batch: &Batch, scratch: &Scratch) -> [u8; BATCH] {
        let whole = self.patterns.by_count.iter().find_map(|set| set.first());
        let subsets = whole.map_or(&[][..], |pattern| &pattern.subsets);
        let mut spans = [0; BATCH];
        for (slot, span) in spans.iter_mut().enumerate().take(batch.blocks().len()) {
            let ranges = subsets.iter().map(|subset| scratch.ranges.of(subset, slot));
            let (low, high) =
                ranges.fold((255, 0), |(low, high), range| (range.0.min(low), range.1.max(high)));
            *span = high.saturating_sub(low);
        }
        spans
    }

    /// Fills `scratch.winners` with `tries` patterns for each block.
    fn rank(&self, set: &[Pattern], tries: usize, scratch: &mut Scratch) {
        scratch.winners.resize(tries, Aligned([[[0; 16]; 2]; 2]));
        if tries < set.len() {
            best_of_classes(self.level, set, &scratch.ranges, &mut scratch.winners);
        } else {
            for (index, winners) in scratch.winners.iter_mut().enumerate() {
                winners.0 = [[[index as u16; 16]; 2]; 2];
            }
        }
    }

    fn exact_lead(
        &self,
        stage: &Stage,
        set: &[Pattern],
        block: &Block,
        texels: usize,
        scratch: &mut Scratch,
    ) -> Lead {
        let Scratch { candidates, rows, .. } = scratch;
        let found =
            search(self.level, &stage.table, set, candidates, &block.positions, texels, rows);
        let pattern = usize::from(candidates[found.candidate]);
        Lead { error: f32::from(found.error) / stage.table.unit, pattern }
    }

    /// Skips what cannot come near `limit`, with an infinite error.
    fn stretched_lead(
        &self,
        stage: &Stage,
        set: &[Pattern],
        block: &Block,
        slot: usize,
        limit: f32,
        scratch: &Scratch,
    ) -> Lead {
        let levels = stage.config.steps.len();
        let spacings = (levels - 1) as f32;
        let least_noise = self.finish.least_noise(levels) / (spacings * spacings);
        let first = usize::from(scratch.candidates[0]);
        let mut best = Lead { error: f32::INFINITY, pattern: first };
        for &candidate in &scratch.candidates {
            let pattern = usize::from(candidate);
            let subsets = &set[pattern].subsets;
            let stretches: [Stretch; 4] = std::array::from_fn(|number| {
                subsets.get(number).map_or(Stretch::NONE, |subset| {
                    Stretch::of(block, subset, &scratch.ranges, slot)
                })
            });
            let noise: f32 = stretches
                .iter()
                .map(|stretch| stretch.importance * stretch.span * stretch.span * least_noise)
                .sum();
            if noise > limit.min(best.error) {
                continue;
            }
            let error: f32 = subsets
                .iter()
                .zip(&stretches)
                .map(|(subset, stretch)| {
                    let positions = stretch.positions(self.level, block);
                    let (_, error) =
                        best_pair(self.level, &stage.table, &positions, &subset.texels);
                    let step = stretch.span / 255.0;
                    f32::from(error) / stage.table.unit * step * step
                })
                .sum();
            if error * STRETCHED_GAIN < best.error {
                best = Lead { error: error * STRETCHED_GAIN, pattern };
            }
        }
        best
    }

    fn fit(
        &self,
        stage: &Stage,
        pattern: &Pattern,
        block: &Block,
        slot: usize,
        scratch: &Scratch,
    ) -> Fit {
        let table = &stage.table;
        let mut starts = [(127.5, 127.5); 4];
        for (start, subset) in starts.iter_mut().zip(&pattern.subsets) {
            if stage.exact {
                let (pair, _) = best_pair(self.level, table, &block.positions, &subset.texels);
                *start = table.pairs[pair];
                continue;
            }
            let stretch = Stretch::of(block, subset, &scratch.ranges, slot);
            let positions = stretch.positions(self.level, block);
            let (pair, _) = best_pair(self.level, table, &positions, &subset.texels);
            let (low, high) = table.pairs[pair];
            let back = stretch.span / 255.0;
            *start = (stretch.low + low * back, stretch.low + high * back);
        }
        let refinement = Refinement {
            rounds: if stage.exact || self.finish == Finish::Quick { 0 } else { 2 },
            neighbours: !stage.exact && stage.config.endpoints.len() < 128,
        };
        fit(self.level, &stage.config, self.mode, pattern, &block.texels, &starts, refinement)
    }

    /// The fit that a table of exact pairs implies.
    fn tabled_fit(&self, table: &PairTable, pattern: &Pattern, block: &Block, error: f32) -> Fit {
        let positions = &block.positions;
        let mut fit = Fit { ends: [(0, 0); 4], steps: [0; MAX_LANES], error };
        let mut lane = 0;
        for (subset, ends) in pattern.subsets.iter().zip(&mut fit.ends) {
            let (pair, _) = best_pair(self.level, table, positions, &subset.texels);
            *ends = table.ends[pair];
            for (step, &texel) in fit.steps[lane..].iter_mut().zip(&subset.texels) {
                *step = table.nearest(pair, positions.rows[usize::from(texel)]);
            }
            lane += subset.padded.len();
        }
        fit
    }
}

/// Range and importance of the texels of a subset that count.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    low: f32,
    span: f32,
    importance: f32,
}

impl Stretch {
    const NONE: Self = Self { low: 127.5, span: 0.0, importance: 0.0 };

    fn of(block: &Block, subset: &Subset, ranges: &Ranges, slot: usize) -> Self {
        let (low, high) = ranges.of(subset, slot);
        if low > high {
            return Self::NONE;
        }
        let importance = if block.positions.uniform {
            subset.texels.len() as f32
        } else {
            subset.texels.iter().map(|&texel| block.texels.importance[usize::from(texel)]).sum()
        };
        Self { low: low.into(), span: f32::from(high) - f32::from(low), importance }
    }

    /// Positions with the range stretched to 0..=255, those of other subsets too.
    fn positions(self, level: Level, block: &Block) -> Positions {
        let mut positions = block.positions.clone();
        let factor = if self.span > 0.0 { 255.0 / self.span } else { 0.0 };
        stretch(level, &block.texels, self.low, factor, &mut positions.rows);
        positions
    }
}

dispatch! {
    /// Moves the rows of texels that count to (position - low)·factor.
    fn stretch = stretch_with(
        texels: &Texels,
        low: f32,
        factor: f32,
        rows: &mut [u16; SEARCH_TEXELS],
    )
}

#[inline(always)]
fn stretch_with<S: Simd>(
    _: S,
    texels: &Texels,
    low: f32,
    factor: f32,
    rows: &mut [u16; SEARCH_TEXELS],
) {
    for (row, position) in rows.iter_mut().zip(&texels.position) {
        let moved = row_of((position - low) * factor);
        *row = if *row == FREE_ROW { FREE_ROW } else { moved };
    }
}
