//! Footprints of more than 64 texels, whose weight grids are coarser than the block.
//!
//! A texel's weight is a bilinear mix of up to four stored ones, so no texel can be chosen alone.
//! What makes up for it are partitions: their endpoints give a coarse field steps, and where the
//! endpoints of some fall while those of others rise, texels that alternate become a field that
//! a coarse grid can follow. For each configuration (`plan`), patterns and directions are ranked by
//! the energy that they should capture (`rank`), and the best are fitted, eight at a time (`fit`).

mod fit;
mod plan;
mod rank;
mod stage;

use self::fit::{Fits, JOBS, Job, fit};
use self::plan::{plans, rounds};
use self::rank::{Fields, LANES, Lead, RankTexels, rank};
use self::stage::Stage;
use super::block::{Frame, Window};
use super::preset::Preset;
use crate::simd::Level;
use crate::{BlockGrid, Footprint};

/// Searches the configurations of a preset.
#[derive(Debug)]
pub(super) struct CoarseSearch {
    level: Level,
    rounds: usize,
    stages: Vec<Stage>,
    trial_stages: Vec<Stage>,
    blocks: Vec<CoarseTexels>,
    choices: Vec<Choice>,
    texels: Box<RankTexels>,
    fields: Box<Fields>,
    fits: Box<Fits>,
}

/// Texels of a block in raster order.
#[derive(Debug)]
pub(super) struct CoarseTexels {
    /// 255·t.
    position: [f32; Footprint::MAX_TEXELS],
    /// Square root of the importance, relative to the largest.
    root: [f32; Footprint::MAX_TEXELS],
    /// Weight error of one squared texel step at importance 1, in units of `unit`.
    error_scale: f32,
    unit: f32,
}

/// The best block so far.
#[derive(Debug, Clone, Copy)]
struct Choice {
    bits: u128,
    error: f32,
}

/// Patterns ranked and fitted in a trial of row scales.
const TRIAL_EVERY: usize = 8;
const TRIAL_TRIES: usize = 2;

impl CoarseSearch {
    /// `None` for a footprint of at most 64 texels.
    pub(super) fn new(footprint: Footprint, preset: Preset, level: Level) -> Option<Self> {
        let plans = plans(footprint);
        let first = plans.first()?;
        let stages = plans.iter().filter_map(|plan| {
            let (every, tries) = (plan.every[preset as usize], plan.tries[preset as usize]);
            (every > 0).then(|| Stage::new(footprint, plan, every, tries))?
        });
        let trial = Stage::new(footprint, first, TRIAL_EVERY, TRIAL_TRIES);
        Some(Self {
            level,
            rounds: rounds(preset),
            stages: stages.collect(),
            trial_stages: trial.into_iter().collect(),
            blocks: Vec::new(),
            choices: Vec::new(),
            texels: RankTexels::new(),
            fields: Fields::new(),
            fits: Fits::new(),
        })
    }

    /// Adds a block to those of the next [`encode`](Self::encode) or
    /// [`estimate`](Self::estimate).
    pub(super) fn push(&mut self, texels: CoarseTexels) {
        self.blocks.push(texels);
    }

    /// Writes the best block found for each one pushed.
    pub(super) fn encode(&mut self, out: &mut [[u8; BlockGrid::BLOCK_BYTES]]) {
        self.search(false);
        for (choice, out) in self.choices.iter().zip(out) {
            *out = choice.bits.to_le_bytes();
        }
        self.blocks.clear();
    }

    /// Squared error of the blocks pushed, importance and clipping included, by a light search.
    pub(super) fn estimate(&mut self) -> f64 {
        self.search(true);
        let errors = self.choices.iter().zip(&self.blocks);
        let error = errors
            .map(|(choice, block)| {
                f64::from(choice.error * block.error_scale) * f64::from(block.unit)
            })
            .sum();
        self.blocks.clear();
        error
    }

    fn search(&mut self, trial: bool) {
        self.choices.clear();
        self.choices.resize(self.blocks.len(), Choice { bits: 0, error: f32::INFINITY });
        let stages = if trial { &self.trial_stages } else { &self.stages };
        let rounds = if trial { 1 } else { self.rounds };
        let groups = self.blocks.chunks(LANES).zip(self.choices.chunks_mut(LANES));
        for (blocks, choices) in groups {
            self.texels.fill(blocks);
            for stage in stages {
                let mut leads = vec![[Lead::default(); LANES]; stage.tries];
                rank(self.level, stage, &self.texels, &mut self.fields, &mut leads);
                let jobs: Vec<(usize, Lead)> = (0..blocks.len())
                    .flat_map(|slot| leads.iter().map(move |leads| (slot, leads[slot])))
                    .collect();
                for jobs in jobs.chunks(JOBS) {
                    let job = |lane: usize| jobs[lane.min(jobs.len() - 1)];
                    let lanes = std::array::from_fn(|lane| Job {
                        texels: &blocks[job(lane).0],
                        lead: job(lane).1,
                    });
                    fit(self.level, stage, &lanes, rounds, &mut self.fits);
                    for (lane, &(slot, lead)) in jobs.iter().enumerate() {
                        let error = self.fits.errors[lane];
                        if error < choices[slot].error {
                            let bits = if trial { 0 } else { stage.pack(lead, &self.fits, lane) };
                            choices[slot] = Choice { bits, error };
                        }
                    }
                }
            }
        }
    }
}

impl Stage {
    fn pack(&self, lead: Lead, fits: &Fits, lane: usize) -> u128 {
        let candidate = &self.candidates[usize::from(lead.candidate)];
        let mut ends = [[0; 2]; 4];
        for (pair, &number) in fits.ends.iter().zip(&candidate.numbers) {
            ends[usize::from(number)] = pair.map(|end| end[lane] as u8);
        }
        let mut steps = [0; 64];
        for (weight, step) in fits.weights.iter().zip(&mut steps) {
            *step = self.config.step_numbers[(weight[lane] * 64.0) as usize];
        }
        let ends = &ends.as_flattened()[..2 * self.config.partitions];
        self.config.pack_grid(candidate.seed, ends, &steps[..self.weights()])
    }
}

impl RankTexels {
    fn fill(&mut self, blocks: &[CoarseTexels]) {
        for (slot, block) in blocks.iter().enumerate() {
            for (texel, out) in self.texels.iter_mut().enumerate().take(Footprint::MAX_TEXELS) {
                let importance = block.root[texel] * block.root[texel];
                let offset = (block.position[texel].clamp(0.0, 255.0) - 127.5) * importance;
                out[slot] = (offset + 128.5) as u16;
            }
        }
    }
}

impl CoarseTexels {
    pub(super) fn new(footprint: Footprint, frame: &Frame, window: &Window<'_>) -> Self {
        let zero = [0.0; Footprint::MAX_TEXELS];
        let (mut position, mut root) = (zero, zero);
        let unit = window.copy_to(footprint.width(), &mut position, &mut root);
        let mut largest = 0.0_f32;
        for texel in 0..footprint.texels() {
            position[texel] = 127.5 + position[texel] * frame.stretch[texel];
            root[texel] *= frame.square[texel];
            largest = largest.max(root[texel]);
        }
        // The inverse of a smaller number is past f32.
        let inverse = if largest >= f32::MIN_POSITIVE { 1.0 / largest } else { 0.0 };
        for root in &mut root {
            *root = (*root * inverse).sqrt();
        }
        Self { position, root, error_scale: largest, unit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DecodeMode;
    use crate::decode::LuminanceDecoder;
    use half::f16;

    /// Texels that follow a legal block exactly: 12x12 with a smooth field, whose ends fall with
    /// the weight in two of four partitions.
    fn follow(stage: &Stage, index: usize, falling: u8) -> CoarseTexels {
        let candidate = &stage.candidates[index];
        let mut u = [0.0; Footprint::MAX_TEXELS];
        let mut start = 0;
        for (weight, &end) in stage.term_ends.iter().enumerate() {
            let level = if (weight / 3) % 2 == 0 { 1.0 } else { 0.0 };
            for term in &stage.terms[start..end] {
                u[usize::from(term.texel)] += level * term.share;
            }
            start = end;
        }
        let ends = |partition: u8| {
            let low = 4.0 * 255.0 / 19.0;
            let high = (12.0 + f32::from(partition)) * 255.0 / 19.0;
            if falling >> partition & 1 == 1 { (high, low) } else { (low, high) }
        };
        let mut texels = CoarseTexels {
            position: [0.0; Footprint::MAX_TEXELS],
            root: [1.0; Footprint::MAX_TEXELS],
            error_scale: 1.0,
            unit: 1.0,
        };
        for (texel, &owner) in candidate.owners.iter().enumerate() {
            let (low, high) = ends(owner);
            texels.position[texel] = low + (high - low) * u[texel];
        }
        texels
    }

    #[test]
    fn a_representable_block_is_found_and_decodes_as_believed() {
        let footprint = Footprint::new(12, 12).unwrap();
        let mut search = CoarseSearch::new(footprint, Preset::Best, Level::detect()).unwrap();
        let wanted = [(17, 0b011), (205, 0b110), (411, 0b101)];
        for (index, falling) in wanted {
            search.push(follow(&search.stages[0], index, falling));
        }
        let blocks: Vec<[f32; Footprint::MAX_TEXELS]> =
            search.blocks.iter().map(|block| block.position).collect();
        let mut out = [[0; 16]; 3];
        search.encode(&mut out);
        let mut decoder = LuminanceDecoder::new(footprint, DecodeMode::Unorm8);
        for ((bits, position), choice) in out.iter().zip(&blocks).zip(&search.choices) {
            let mut decoded = [0.0; 144];
            decoder.decode_strip(bits, &[f16::ONE; 12], 12, &mut decoded);
            let error: f32 = decoded
                .iter()
                .zip(position)
                .map(|(value, position)| (127.5 + 127.5 * value - position).powi(2))
                .sum();
            // Endpoints, weights and texels are rounded to whole steps.
            assert!(error < 144.0, "{error}");
            assert!((error - choice.error).abs() < 144.0, "{error}, not {}", choice.error);
        }
    }
}
