//! Exact fit of one subset: nearest true levels, least-squares endpoints, snapped to their grid.
//!
//! Everything here is in texel steps (255·t) and f32, with [`FIT_LANES`] partial sums in fixed
//! order and no fused operations, so that it is equal on every machine.

use super::config::{Config, decoded_level};
use super::pairs::SEARCH_TEXELS;
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

/// Texels of a block: position 255·t (not clamped) and importance relative to the largest.
#[derive(Debug, Clone)]
pub(super) struct Texels {
    pub(super) position: [f32; SEARCH_TEXELS],
    pub(super) importance: [f32; SEARCH_TEXELS],
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
    _: S,
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
        let mut state = SubsetFit::new(config, mode, texels, &subset.padded);
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
        fit.ends[number] = state.best.ends;
        fit.error += state.best.error;
        for (out, &step) in fit.steps[lane..].iter_mut().zip(state.best.steps.as_flattened()) {
            *out = step as u8;
        }
        lane += subset.padded.len();
    }
    fit
}

#[derive(Clone, Copy)]
struct Trial {
    ends: (u8, u8),
    steps: [[i32; FIT_LANES]; MAX_GROUPS],
    error: f32,
}

struct SubsetFit<'a> {
    config: &'a Config,
    mode: DecodeMode,
    groups: usize,
    position: [Lanes; MAX_GROUPS],
    importance: [Lanes; MAX_GROUPS],
    best: Trial,
}

impl<'a> SubsetFit<'a> {
    #[inline(always)]
    fn new(config: &'a Config, mode: DecodeMode, texels: &Texels, padded: &[u8]) -> Self {
        let groups = padded.len() / FIT_LANES;
        let mut position = [[0.0; FIT_LANES]; MAX_GROUPS];
        let mut importance = [[0.0; FIT_LANES]; MAX_GROUPS];
        for (index, &texel) in padded.iter().enumerate() {
            let texel = usize::from(texel);
            position[index / FIT_LANES][index % FIT_LANES] = texels.position[texel];
            importance[index / FIT_LANES][index % FIT_LANES] = texels.importance[texel];
        }
        let best =
            Trial { ends: (0, 0), steps: [[0; FIT_LANES]; MAX_GROUPS], error: f32::INFINITY };
        Self { config, mode, groups, position, importance, best }
    }

    /// Snaps the ends to the grid and takes them if they are better.
    #[inline(always)]
    fn try_ends(&mut self, (low, high): (f32, f32)) -> bool {
        let grid = &self.config.endpoints;
        self.try_indices(nearest(grid, low), nearest(grid, high))
    }

    #[inline(always)]
    fn try_indices(&mut self, low: u8, high: u8) -> bool {
        let grid = &self.config.endpoints;
        let mut levels = [0.0; MAX_LEVELS];
        for (level, &step) in levels.iter_mut().zip(&self.config.steps) {
            *level =
                decoded_level(self.mode, grid[usize::from(low)], grid[usize::from(high)], step);
        }
        let trial = self.assign((low, high), &levels[..self.config.steps.len()]);
        let better = trial.error < self.best.error;
        if better {
            self.best = trial;
        }
        better
    }

    /// Nearest level of every texel, the lower of two equally near.
    #[inline(always)]
    fn assign(&self, ends: (u8, u8), levels: &[f32]) -> Trial {
        let mut steps = [[0; FIT_LANES]; MAX_GROUPS];
        let mut errors = [0.0; FIT_LANES];
        for group in 0..self.groups {
            let position = &self.position[group];
            let mut least = [f32::INFINITY; FIT_LANES];
            for (number, &level) in levels.iter().enumerate() {
                for lane in 0..FIT_LANES {
                    let distance = (position[lane] - level) * (position[lane] - level);
                    let nearer = distance < least[lane];
                    least[lane] = if nearer { distance } else { least[lane] };
                    steps[group][lane] = if nearer { number as i32 } else { steps[group][lane] };
                }
            }
            for lane in 0..FIT_LANES {
                errors[lane] += self.importance[group][lane] * least[lane];
            }
        }
        Trial { ends, steps, error: total(errors) }
    }

    /// The ends that minimise the error for the present weights; `None` where all texels that
    /// count share one weight.
    #[inline(always)]
    fn least_squares(&self) -> Option<(f32, f32)> {
        let mut sums = [[0.0; FIT_LANES]; 5];
        for group in 0..self.groups {
            for lane in 0..FIT_LANES {
                let step = self.best.steps[group][lane] as usize;
                let u = f32::from(self.config.steps[step]) / 64.0;
                let (q, x) = (self.importance[group][lane], self.position[group][lane]);
                let terms = [q, q * u, q * u * u, q * x, q * u * x];
                for (sum, term) in sums.iter_mut().zip(terms) {
                    sum[lane] += term;
                }
            }
        }
        let [q, qu, quu, qx, qux] = sums.map(total);
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
        let (low, high) = self.best.ends;
        for (down, up) in [(-1, 0), (1, 0), (0, -1), (0, 1)] {
            let low = (i32::from(low) + down).clamp(0, last) as u8;
            let high = (i32::from(high) + up).clamp(0, last) as u8;
            self.try_indices(low, high);
        }
    }
}

/// Sum of the lanes, in a fixed tree.
#[inline(always)]
fn total(lanes: Lanes) -> f32 {
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6]))
        + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
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
