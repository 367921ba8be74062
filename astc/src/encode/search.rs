//! The search for one batch of blocks.

use super::block::{Batch, Block};
use super::effort::Stage;
use super::fit::{Fit, Refinement, fit};
use super::pairs::{BlockRows, FREE_ROW, PairTable, Positions, best_pair, search};
use super::patterns::{Pattern, Patterns};
use super::rank::{BATCH, Ranges, best_of_classes, measure};
use crate::DecodeMode;
use crate::simd::Level;

/// Scratch memory of a search.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    ranges: Ranges,
    winners: Vec<[u16; BATCH]>,
    rows: BlockRows,
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

/// A stage is fitted exactly if its approximate error is within this factor of the best one.
const WORTH_FITTING: f32 = 1.25;
/// Squared error of a texel over squared level spacing, as low as a block of noise gets: 1/12 for
/// uniform noise, and less because few texels leave room to choose the ends.
const LEAST_NOISE: f32 = 0.6 / 12.0;

/// Chooses a block for every window of `batch`.
pub(super) fn choose(
    level: Level,
    mode: DecodeMode,
    patterns: &Patterns,
    stages: &[Stage],
    batch: &Batch,
    scratch: &mut Scratch,
) -> Vec<Choice> {
    let leads = leads(level, patterns, stages, batch, scratch);
    batch
        .blocks
        .iter()
        .enumerate()
        .map(|(slot, block)| {
            let limit =
                leads.iter().map(|lead| lead[slot].error).fold(f32::MAX, f32::min) * WORTH_FITTING;
            let mut best: Option<Choice> = None;
            for (number, (stage, lead)) in stages.iter().zip(&leads).enumerate() {
                let lead = lead[slot];
                if lead.error > limit {
                    continue;
                }
                let pattern = &patterns.by_count[stage.config.partitions - 1][lead.pattern];
                let fit = fit_stage(level, mode, stage, pattern, block);
                if best.as_ref().is_none_or(|best| fit.error < best.fit.error) {
                    best = Some(Choice { stage: number, pattern: lead.pattern, fit });
                }
            }
            best.expect("invariant: the stage with the least error is within the limit")
        })
        .collect()
}

/// The best pattern of every stage (outer) for every block (inner).
fn leads(
    level: Level,
    patterns: &Patterns,
    stages: &[Stage],
    batch: &Batch,
    scratch: &mut Scratch,
) -> Vec<Vec<Lead>> {
    measure(level, patterns, &batch.low, &batch.high, &mut scratch.ranges);
    let mut least = [f32::MAX; BATCH];
    let mut candidates = Vec::new();
    stages
        .iter()
        .map(|stage| {
            let set = &patterns.by_count[stage.config.partitions - 1];
            rank(level, set, stage.tries.min(set.len()), scratch);
            batch
                .blocks
                .iter()
                .zip(&mut least)
                .enumerate()
                .map(|(slot, (block, least))| {
                    candidates.clear();
                    candidates.extend(scratch.winners.iter().map(|winners| winners[slot]));
                    let texels = batch.low.len();
                    let lead = if stage.exact {
                        exact_lead(level, stage, set, &candidates, block, texels, &mut scratch.rows)
                    } else {
                        stretched_lead(level, stage, set, &candidates, block, *least)
                    };
                    *least = least.min(lead.error);
                    lead
                })
                .collect()
        })
        .collect()
}

/// Fills `scratch.winners` with `tries` patterns for each block.
fn rank(level: Level, set: &[Pattern], tries: usize, scratch: &mut Scratch) {
    scratch.winners.resize(tries, [0; BATCH]);
    if tries < set.len() {
        best_of_classes(level, set, &scratch.ranges, &mut scratch.winners);
    } else {
        for (index, winners) in scratch.winners.iter_mut().enumerate() {
            winners.fill(index as u16);
        }
    }
}

fn exact_lead(
    level: Level,
    stage: &Stage,
    set: &[Pattern],
    candidates: &[u16],
    block: &Block,
    texels: usize,
    rows: &mut BlockRows,
) -> Lead {
    let found = search(level, &stage.table, set, candidates, &block.positions, texels, rows);
    let pattern = usize::from(candidates[found.candidate]);
    Lead { error: f32::from(found.error) / stage.table.unit, pattern }
}

/// Skips what cannot come near `limit`, with an infinite error.
fn stretched_lead(
    level: Level,
    stage: &Stage,
    set: &[Pattern],
    candidates: &[u16],
    block: &Block,
    limit: f32,
) -> Lead {
    let spacings = (stage.config.steps.len() - 1) as f32;
    let mut best = Lead { error: f32::INFINITY, pattern: usize::from(candidates[0]) };
    for &candidate in candidates {
        let pattern = usize::from(candidate);
        let subsets = &set[pattern].subsets;
        let stretches: [Stretch; 4] = std::array::from_fn(|number| {
            subsets.get(number).map_or(Stretch::NONE, |subset| Stretch::of(block, &subset.texels))
        });
        let expected: f32 = stretches
            .iter()
            .map(|stretch| {
                stretch.importance * (stretch.span / spacings) * (stretch.span / spacings)
            })
            .sum();
        if expected * LEAST_NOISE > limit.min(best.error) {
            continue;
        }
        let error = subsets
            .iter()
            .zip(&stretches)
            .map(|(subset, stretch)| {
                let positions = stretch.positions(block, &subset.texels);
                let (_, error) = best_pair(level, &stage.table, &positions, &subset.texels);
                let step = stretch.span / 255.0;
                f32::from(error) / stage.table.unit * step * step
            })
            .sum();
        if error < best.error {
            best = Lead { error, pattern };
        }
    }
    best
}

fn fit_stage(
    level: Level,
    mode: DecodeMode,
    stage: &Stage,
    pattern: &Pattern,
    block: &Block,
) -> Fit {
    let mut starts = [(127.5, 127.5); 4];
    for (start, subset) in starts.iter_mut().zip(&pattern.subsets) {
        *start = if stage.exact {
            let (pair, _) = best_pair(level, &stage.table, &block.positions, &subset.texels);
            stage.table.pairs[pair]
        } else {
            stretched_start(level, &stage.table, block, &subset.texels)
        };
    }
    let refinement = Refinement {
        rounds: if stage.exact { 0 } else { 2 },
        neighbours: !stage.exact && stage.config.endpoints.len() < 128,
    };
    fit(level, &stage.config, mode, pattern, &block.texels, &starts, refinement)
}

fn stretched_start(level: Level, table: &PairTable, block: &Block, texels: &[u8]) -> (f32, f32) {
    let stretch = Stretch::of(block, texels);
    let (pair, _) = best_pair(level, table, &stretch.positions(block, texels), texels);
    let (low, high) = table.pairs[pair];
    let back = stretch.span / 255.0;
    (stretch.low + low * back, stretch.low + high * back)
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

    fn of(block: &Block, texels: &[u8]) -> Self {
        let (mut low, mut high, mut importance) = (f32::MAX, f32::MIN, 0.0);
        for &texel in texels {
            let texel = usize::from(texel);
            if block.positions.rows[texel] != FREE_ROW {
                let position = block.texels.position[texel].clamp(0.0, 255.0);
                low = low.min(position);
                high = high.max(position);
                importance += block.texels.importance[texel];
            }
        }
        if low > high { Self::NONE } else { Self { low, span: high - low, importance } }
    }

    /// Positions of the subset's texels with its range stretched to 0..=255.
    fn positions(self, block: &Block, texels: &[u8]) -> Positions {
        let mut positions = block.positions.clone();
        let factor = if self.span > 0.0 { 255.0 / self.span } else { 0.0 };
        for &texel in texels {
            let texel = usize::from(texel);
            if positions.rows[texel] != FREE_ROW {
                let position = (block.texels.position[texel] - self.low) * factor + 0.5;
                positions.rows[texel] = (position as u8).into();
            }
        }
        positions
    }
}
