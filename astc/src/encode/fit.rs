//! Exact fit of one subset: nearest true levels, least-squares endpoints, snapped to their grid.
//!
//! Everything here is in texel steps (255·t) and f32, with [`FIT_LANES`] partial sums in fixed
//! order and no fused operations, so that it is equal on every machine.

use super::config::{Config, decoded_level};
use super::patterns::{FIT_LANES, Pattern};
use crate::DecodeMode;
use crate::simd::{Simd, dispatch};

/// Padded lanes of all subsets of a block together.
pub(super) const MAX_LANES: usize = 64 + 4 * FIT_LANES;
/// Most groups of lanes of a subset.
const MAX_GROUPS: usize = 64 / FIT_LANES;
/// Most weight levels.
const MAX_LEVELS: usize = 32;

type Lanes = [f32; FIT_LANES];

/// Room for 64 texels and one that padding lanes read.
pub(super) const FIT_TEXELS: usize = 65;

/// Texels of a block: position 255·t (not clamped) and importance relative to the largest.
#[derive(Debug, Clone)]
pub(super) struct Texels {
    pub(super) position: [f32; FIT_TEXELS],
    pub(super) importance: [f32; FIT_TEXELS],
}

/// A block's endpoints and weights, by index into the configuration's ascending tables.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    /// Low and high end of each subset, in the order of [`Pattern::subsets`].
    pub(super) ends: [(u8, u8); 4],
    /// Weight of each padded lane of each subset.
    pub(super) steps: [u8; MAX_LANES],
    /// Σ importance·(position - decoded)².
    pub(super) error: f32,
}

/// How far endpoints are refined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refinement {
    /// Rounds of least squares.
    pub(super) rounds: usize,
    /// Whether each end is also tried one grid value up and down.
    pub(super) neighbours: bool,
}

dispatch! {
    /// Fits every subset of `pattern` from the endpoints `starts` (texel steps).
    fn fit = fit_with(
        config: &Config,
        mode: DecodeMode,
        pattern: &Pattern,
        texels: &Texels,
        starts: &[(f32, f32); 4],
        refinement: Refinement,
    ) -> Fit
}

#[inline(always)]
fn fit_with<S: Simd>(
    s: S,
    config: &Config,
    mode: DecodeMode,
    pattern: &Pattern,
    texels: &Texels,
    starts: &[(f32, f32); 4],
    refinement: Refinement,
) -> Fit {
    let mut fit = Fit { ends: [(0, 0); 4], steps: [0; MAX_LANES], error: 0.0 };
    let mut lane = 0;
    for (number, subset) in pattern.subsets.iter().enumerate() {
        let mut state = SubsetFit::new(s, config, mode, texels, &subset.padded);
        state.try_ends(starts[number]);
        for _ in 0..refinement.rounds {
            let Some(ends) = state.least_squares() else { break };
            if !state.try_ends(ends) {
                break;
            }
        }
        if refinement.neighbours {
            state.try_neighbours();
        }
        fit.ends[number] = state.ends;
        fit.error += state.error;
        let out = &mut fit.steps[lane..lane + subset.padded.len()];
        for (out, weights) in out.as_chunks_mut::<FIT_LANES>().0.iter_mut().zip(&state.weights) {
            for (out, &weight) in out.iter_mut().zip(weights) {
                *out = config.step_numbers[weight as usize];
            }
        }
        lane += subset.padded.len();
    }
    fit
}

/// The best ends of a subset so far.
struct SubsetFit<'a, S: Simd> {
    s: S,
    config: &'a Config,
    mode: DecodeMode,
    groups: usize,
    position: [Lanes; MAX_GROUPS],
    importance: [Lanes; MAX_GROUPS],
    ends: (u8, u8),
    error: f32,
    /// Interpolation weight 0..=64 of each lane.
    weights: [Lanes; MAX_GROUPS],
}

impl<'a, S: Simd> SubsetFit<'a, S> {
    #[inline(always)]
    fn new(s: S, config: &'a Config, mode: DecodeMode, texels: &Texels, padded: &[u8]) -> Self {
        let zero = [[0.0; FIT_LANES]; MAX_GROUPS];
        let (mut position, mut importance) = (zero, zero);
        let (lists, _) = padded.as_chunks::<FIT_LANES>();
        for ((list, position), importance) in lists.iter().zip(&mut position).zip(&mut importance) {
            for lane in 0..FIT_LANES {
                let texel = usize::from(list[lane]).min(FIT_TEXELS - 1);
                position[lane] = texels.position[texel];
                importance[lane] = texels.importance[texel];
            }
        }
        Self {
            s,
            config,
            mode,
            groups: lists.len(),
            position,
            importance,
            ends: (0, 0),
            error: f32::INFINITY,
            weights: zero,
        }
    }

    /// Snaps the ends to the grid and takes them if they are better.
    #[inline(always)]
    fn try_ends(&mut self, (low, high): (f32, f32)) -> bool {
        let grid = &self.config.endpoints;
        self.try_indices(nearest(grid, low), nearest(grid, high))
    }

    /// Gives every texel its nearest level, the lower of two equally near.
    #[inline(always)]
    fn try_indices(&mut self, low: u8, high: u8) -> bool {
        let s = self.s;
        let grid = &self.config.endpoints;
        let (low_value, high_value) = (grid[usize::from(low)], grid[usize::from(high)]);
        let steps = &self.config.steps;
        let mut levels = [s.splat_float(0.0); MAX_LEVELS];
        for (level, &step) in levels.iter_mut().zip(steps) {
            *level = s.splat_float(decoded_level(self.mode, low_value, high_value, step));
        }
        let mut weights = [[0.0; FIT_LANES]; MAX_GROUPS];
        let mut errors = s.splat_float(0.0);
        for (group, weights) in weights.iter_mut().enumerate().take(self.groups) {
            let position = s.floats(&self.position[group]);
            let mut least = s.splat_float(f32::INFINITY);
            let mut chosen = s.splat_float(0.0);
            for (&level, &step) in levels.iter().zip(steps) {
                let offset = s.sub_floats(position, level);
                let distance = s.mul_floats(offset, offset);
                let weight = s.splat_float(step.into());
                chosen = s.select_below_floats(distance, least, weight, chosen);
                least = s.select_below_floats(distance, least, distance, least);
            }
            let weighted = s.mul_floats(s.floats(&self.importance[group]), least);
            errors = s.add_floats(errors, weighted);
            s.store_floats(chosen, weights);
        }
        let error = s.horizontal_sum(errors);
        let better = error < self.error;
        if better {
            self.ends = (low, high);
            self.error = error;
            self.weights = weights;
        }
        better
    }

    /// The ends that minimise the error for the present weights; `None` where all texels that
    /// count share one weight.
    #[inline(always)]
    fn least_squares(&self) -> Option<(f32, f32)> {
        let s = self.s;
        let mut sums = [s.splat_float(0.0); 5];
        for group in 0..self.groups {
            let q = s.floats(&self.importance[group]);
            let x = s.floats(&self.position[group]);
            let u = s.mul_floats(s.floats(&self.weights[group]), s.splat_float(1.0 / 64.0));
            let (qu, qx) = (s.mul_floats(q, u), s.mul_floats(q, x));
            let terms = [q, qu, s.mul_floats(qu, u), qx, s.mul_floats(qx, u)];
            for (sum, term) in sums.iter_mut().zip(terms) {
                *sum = s.add_floats(*sum, term);
            }
        }
        let [q, qu, quu, qx, qux] = sums.map(
            #[inline(always)]
            |sum| s.horizontal_sum(sum),
        );
        let determinant = q * quu - qu * qu;
        if determinant <= 1e-6 * q * q {
            return None;
        }
        let slope = (q * qux - qu * qx) / determinant;
        let low = (qx - slope * qu) / q;
        Some((low, low + slope))
    }

    #[inline(always)]
    fn try_neighbours(&mut self) {
        let last = self.config.endpoints.len() as i32 - 1;
        let (low, high) = self.ends;
        for (down, up) in [(-1, 0), (1, 0), (0, -1), (0, 1)] {
            let low = (i32::from(low) + down).clamp(0, last) as u8;
            let high = (i32::from(high) + up).clamp(0, last) as u8;
            self.try_indices(low, high);
        }
    }
}

/// Index of the grid value nearest to `value`, the lower of two equally near.
#[inline(always)]
fn nearest(grid: &[u8], value: f32) -> u8 {
    // Endpoint grids are almost evenly spaced, so the guess is at most one off.
    let last = grid.len() - 1;
    let guess = ((value.clamp(0.0, 255.0) / 255.0 * last as f32) + 0.5) as usize;
    let mut best = guess.min(last);
    for candidate in [guess.saturating_sub(1), (guess + 1).min(last)] {
        let distance = |index: usize| (f32::from(grid[index]) - value).abs();
        if (distance(candidate), candidate) < (distance(best), best) {
            best = candidate;
        }
    }
    best as u8
}
