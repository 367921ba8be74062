//! Footprints of more than 64 texels, whose weight grids are coarser than the block.
//!
//! A texel's weight is a bilinear mix of up to four stored ones, so no texel can be chosen alone.
//! The stored weights are improved one at a time, exactly as the decoder mixes them, in turn with
//! least-squares endpoints; one partition, a few grids.

use super::block::{Frame, Window};
use super::config::{Config, decoded_level};
use super::preset::Preset;
use crate::tables::{Infill, InfillPoint};
use crate::{DecodeMode, Footprint};

/// Rounds of weights and endpoints in turn, by preset.
const ROUNDS: [usize; 3] = [2, 3, 5];

/// Weight levels worth trying at less than 2 bits a texel.
const LEVELS: [u32; 2] = [2, 3];

/// Tries a few weight grids for each block.
#[derive(Debug)]
pub(super) struct CoarseSearch {
    mode: DecodeMode,
    rounds: usize,
    grids: Vec<Grid>,
}

#[derive(Debug)]
struct Grid {
    config: Config,
    points: Vec<InfillPoint>,
    width: usize,
    weights: usize,
    /// Texels that each stored weight reaches, with its share of 16.
    reach: Vec<Vec<(usize, i32)>>,
}

/// Texels of a block in raster order: 255·t, and the weight error of one squared texel step.
#[derive(Debug)]
pub(super) struct CoarseTexels {
    pub(super) position: [f32; Footprint::MAX_TEXELS],
    pub(super) importance: [f32; Footprint::MAX_TEXELS],
}

/// A block under improvement.
struct State {
    low: u8,
    high: u8,
    /// Index of each stored weight into the configuration's steps.
    steps: Vec<usize>,
    /// Sixteen times the weight of each texel.
    sums: [i32; Footprint::MAX_TEXELS],
    error: f32,
}

impl CoarseSearch {
    /// `None` for a footprint of at most 64 texels.
    pub(super) fn new(footprint: Footprint, mode: DecodeMode, preset: Preset) -> Option<Self> {
        if footprint.texels() <= 64 {
            return None;
        }
        let mut shapes = Vec::new();
        for width in 2..=footprint.width() {
            for height in 2..=footprint.height() {
                for levels in LEVELS {
                    let config = Config::with_grid(width as u8, height as u8, 1, levels);
                    // Ends that are not found by index must be all bytes.
                    let config = config.filter(|config| config.endpoints.len() == 256);
                    shapes.extend(config.map(|config| (width, height, config)));
                }
            }
        }
        // The grids that hold the most weights at each number of levels; wide ones first.
        let grids = LEVELS
            .iter()
            .filter_map(|&levels| {
                let of_level =
                    shapes.iter().filter(|(.., config)| config.steps.len() == levels as usize);
                of_level.max_by_key(|(width, height, _)| (width * height, *width))
            })
            .map(|(width, height, config)| Grid::new(footprint, *width, *height, config.clone()))
            .collect();
        Some(Self { mode, rounds: ROUNDS[preset as usize], grids })
    }

    /// The best block and its error.
    pub(super) fn encode(&self, texels: &CoarseTexels) -> (u128, f32) {
        let mut best = (0, f32::INFINITY);
        for grid in &self.grids {
            let state = grid.improve(self.mode, self.rounds, texels);
            if state.error < best.1 {
                best = (grid.pack(&state), state.error);
            }
        }
        best
    }
}

impl Grid {
    fn new(footprint: Footprint, width: usize, height: usize, config: Config) -> Self {
        let points = Infill::new(footprint, width as u8, height as u8).points().to_vec();
        let mut reach = vec![Vec::new(); width * height];
        for (texel, point) in points.iter().enumerate() {
            for (index, share) in corners(point, width) {
                if share > 0 {
                    reach[index].push((texel, share));
                }
            }
        }
        Self { config, points, width, weights: width * height, reach }
    }

    fn improve(&self, mode: DecodeMode, rounds: usize, texels: &CoarseTexels) -> State {
        let mut state = self.start(texels);
        for _ in 0..rounds {
            let levels = self.levels(mode, &state);
            self.improve_weights(&levels, texels, &mut state);
            if let Some((low, high)) = self.least_squares(texels, &state) {
                let (before, error) = ((state.low, state.high), state.error);
                (state.low, state.high) = (low, high);
                state.error = self.error(&self.levels(mode, &state), texels, &state);
                if state.error >= error {
                    (state.low, state.high) = before;
                    state.error = error;
                    break;
                }
            }
        }
        state
    }

    /// Ends at one deviation from the mean, every weight from the mean of the texels it reaches.
    fn start(&self, texels: &CoarseTexels) -> State {
        let (mut mass, mut mean) = (0.0, 0.0);
        for texel in 0..self.points.len() {
            mass += texels.importance[texel];
            mean += texels.importance[texel] * texels.position[texel];
        }
        mean = if mass > 0.0 { mean / mass } else { 127.5 };
        let mut spread = 0.0;
        for texel in 0..self.points.len() {
            let offset = texels.position[texel] - mean;
            spread += texels.importance[texel] * offset * offset;
        }
        let spread = if mass > 0.0 { (spread / mass).sqrt() } else { 0.0 };
        let (low, high) = (byte(mean - spread), byte(mean + spread));
        let top = self.config.steps.len() - 1;
        let steps: Vec<usize> = self
            .reach
            .iter()
            .map(|reach| {
                let (mut mass, mut sum) = (0.0, 0.0);
                for &(texel, share) in reach {
                    let factor = texels.importance[texel] * share as f32;
                    mass += factor;
                    sum += factor * (texels.position[texel] - mean);
                }
                let place = if mass > 0.0 && spread > 0.0 { sum / mass / spread } else { 0.0 };
                ((place * 0.5 + 0.5).clamp(0.0, 1.0) * top as f32 + 0.5) as usize
            })
            .collect();
        let mut sums = [0; Footprint::MAX_TEXELS];
        for (sum, point) in sums.iter_mut().zip(&self.points) {
            *sum = corners(point, self.width)
                .filter(|&(_, share)| share > 0)
                .map(|(index, share)| share * i32::from(self.config.steps[steps[index]]))
                .sum();
        }
        State { low, high, steps, sums, error: f32::INFINITY }
    }

    /// Texel values of all weights 0..=64.
    fn levels(&self, mode: DecodeMode, state: &State) -> [f32; 65] {
        std::array::from_fn(|weight| decoded_level(mode, state.low, state.high, weight as u8))
    }

    /// One sweep over the stored weights; each takes its best step given the others.
    fn improve_weights(&self, levels: &[f32; 65], texels: &CoarseTexels, state: &mut State) {
        for (index, reach) in self.reach.iter().enumerate() {
            let present = i32::from(self.config.steps[state.steps[index]]);
            let mut best = (f32::INFINITY, state.steps[index]);
            for (number, &step) in self.config.steps.iter().enumerate() {
                let change = i32::from(step) - present;
                let mut error = 0.0;
                for &(texel, share) in reach {
                    error += texels.error(levels, texel, state.sums[texel] + share * change);
                }
                if error < best.0 {
                    best = (error, number);
                }
            }
            let change = i32::from(self.config.steps[best.1]) - present;
            state.steps[index] = best.1;
            for &(texel, share) in reach {
                state.sums[texel] += share * change;
            }
        }
        state.error = self.error(levels, texels, state);
    }

    fn error(&self, levels: &[f32; 65], texels: &CoarseTexels, state: &State) -> f32 {
        (0..self.points.len()).map(|texel| texels.error(levels, texel, state.sums[texel])).sum()
    }

    fn least_squares(&self, texels: &CoarseTexels, state: &State) -> Option<(u8, u8)> {
        let [mut q, mut qu, mut quu, mut qx, mut qux] = [0.0_f32; 5];
        for texel in 0..self.points.len() {
            let u = ((state.sums[texel] + 8) >> 4) as f32 / 64.0;
            let (importance, x) = (texels.importance[texel], texels.position[texel]);
            q += importance;
            qu += importance * u;
            quu += importance * u * u;
            qx += importance * x;
            qux += importance * u * x;
        }
        let determinant = q * quu - qu * qu;
        if determinant <= 1e-6 * q * q {
            return None;
        }
        let slope = (q * qux - qu * qx) / determinant;
        let low = (qx - slope * qu) / q;
        Some((byte(low), byte(low + slope)))
    }

    fn pack(&self, state: &State) -> u128 {
        let steps: Vec<u8> = state.steps.iter().map(|&step| step as u8).collect();
        debug_assert_eq!(self.config.endpoints.len(), 256);
        debug_assert_eq!(steps.len(), self.weights);
        self.config.pack_single(&[state.low, state.high], &steps)
    }
}

impl CoarseTexels {
    pub(super) fn new(footprint: Footprint, frame: &Frame, window: &Window<'_>) -> Self {
        let zero = [0.0; Footprint::MAX_TEXELS];
        let (mut position, mut importance) = (zero, zero);
        window.copy_to(footprint.width(), &mut position, &mut importance);
        for texel in 0..footprint.texels() {
            position[texel] = 127.5 + position[texel] * frame.stretch[texel];
            importance[texel] *= frame.square[texel];
        }
        Self { position, importance }
    }

    fn error(&self, levels: &[f32; 65], texel: usize, sum: i32) -> f32 {
        let offset = self.position[texel] - levels[((sum + 8) >> 4) as usize];
        self.importance[texel] * offset * offset
    }
}

/// The four stored weights around a texel and their shares of 16.
fn corners(point: &InfillPoint, width: usize) -> impl Iterator<Item = (usize, i32)> {
    let first = usize::from(point.first);
    [first, first + 1, first + width, first + width + 1]
        .into_iter()
        .zip(point.shares.map(i32::from))
}

fn byte(value: f32) -> u8 {
    (value + 0.5) as u8
}
