//! The texels of a subset side by side, and the two passes over them that the search is made of.
//!
//! All sums are f32 in eight partial sums of fixed order, equal at every instruction set.

use super::levels::MAX_LEVELS;
use crate::encode::patterns::FIT_LANES;
use crate::simd::{Simd, dispatch};

const MAX_GROUPS: usize = 64 / FIT_LANES;

/// Weights of a block in raster order; the last place is what padding lanes read.
#[derive(Debug, Clone)]
pub(super) struct BlockTexels {
    pub(super) value: [f32; 65],
    /// 1, or 0 past the matrix's edge.
    pub(super) importance: [f32; 65],
}

/// The weights of one subset, padded to whole groups.
#[derive(Debug, Clone)]
pub(super) struct Lanes {
    groups: usize,
    value: [[f32; FIT_LANES]; MAX_GROUPS],
    importance: [[f32; FIT_LANES]; MAX_GROUPS],
    /// Number of weights.
    pub(super) mass: f32,
    /// Smallest weight, infinite without any.
    pub(super) low: f32,
    /// Largest weight.
    pub(super) high: f32,
}

impl Lanes {
    /// Gathers the texels of a padded list.
    pub(super) fn gather(block: &BlockTexels, padded: &[u8]) -> Self {
        let zero = [[0.0; FIT_LANES]; MAX_GROUPS];
        let (lists, _) = padded.as_chunks::<FIT_LANES>();
        let mut lanes = Self {
            groups: lists.len(),
            value: zero,
            importance: zero,
            mass: 0.0,
            low: f32::INFINITY,
            high: f32::NEG_INFINITY,
        };
        for (group, list) in lists.iter().enumerate() {
            for (lane, &texel) in list.iter().enumerate() {
                let (value, importance) =
                    (block.value[usize::from(texel)], block.importance[usize::from(texel)]);
                lanes.value[group][lane] = value;
                lanes.importance[group][lane] = importance;
                if importance > 0.0 {
                    lanes.mass += importance;
                    lanes.low = lanes.low.min(value);
                    lanes.high = lanes.high.max(value);
                }
            }
        }
        lanes
    }
}

/// What remains when every texel takes its nearest level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Score {
    /// Sum of squared errors.
    pub(super) error: f32,
    /// Sum of weight minus decoded weight.
    pub(super) residual: f32,
}

/// Evenly spaced levels from `low` to `high`, their error, and the ends that suit the texels
/// nearest to each level best.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) error: f32,
    pub(super) next: Option<(f32, f32)>,
}

dispatch! {
    /// Scores the ascending `levels` plus `offset`.
    fn score = score_with(lanes: &Lanes, levels: &[f32], offset: f32) -> Score
}

dispatch! {
    /// One round of the line fit; `steps` are the places of the levels, 0 to 1.
    fn fit_line = fit_line_with(lanes: &Lanes, steps: &[f32], ends: (f32, f32)) -> Line
}

#[inline(always)]
fn score_with<S: Simd>(s: S, lanes: &Lanes, levels: &[f32], offset: f32) -> Score {
    let mut splat = [s.splat_float(0.0); MAX_LEVELS];
    for (splat, &level) in splat.iter_mut().zip(levels) {
        *splat = s.splat_float(level);
    }
    let splat = &splat[..levels.len().min(MAX_LEVELS)];
    let offset = s.splat_float(offset);
    let (mut error, mut residual) = (s.splat_float(0.0), s.splat_float(0.0));
    for (value, importance) in lanes.value.iter().zip(&lanes.importance).take(lanes.groups) {
        let wanted = s.sub_floats(s.floats(value), offset);
        let mut least = s.splat_float(f32::INFINITY);
        let mut chosen = s.splat_float(0.0);
        for &level in splat {
            let away = s.sub_floats(wanted, level);
            let distance = s.mul_floats(away, away);
            chosen = s.select_below_floats(distance, least, away, chosen);
            least = s.select_below_floats(distance, least, distance, least);
        }
        let importance = s.floats(importance);
        error = s.add_floats(error, s.mul_floats(importance, least));
        residual = s.add_floats(residual, s.mul_floats(importance, chosen));
    }
    Score { error: s.horizontal_sum(error), residual: s.horizontal_sum(residual) }
}

#[inline(always)]
fn fit_line_with<S: Simd>(s: S, lanes: &Lanes, steps: &[f32], ends: (f32, f32)) -> Line {
    let (low, range) = (ends.0, ends.1 - ends.0);
    let mut levels = [(s.splat_float(0.0), s.splat_float(0.0)); MAX_LEVELS];
    for (level, &step) in levels.iter_mut().zip(steps) {
        *level = (s.splat_float(range * step), s.splat_float(step));
    }
    let levels = &levels[..steps.len().min(MAX_LEVELS)];
    let low_lanes = s.splat_float(low);
    let mut sums = [s.splat_float(0.0); 6];
    for (value, importance) in lanes.value.iter().zip(&lanes.importance).take(lanes.groups) {
        // Relative to the low end, so that sums do not cancel where the mean is far from zero.
        let x = s.sub_floats(s.floats(value), low_lanes);
        let mut least = s.splat_float(f32::INFINITY);
        let mut u = s.splat_float(0.0);
        for &(level, step) in levels {
            let away = s.sub_floats(x, level);
            let distance = s.mul_floats(away, away);
            u = s.select_below_floats(distance, least, step, u);
            least = s.select_below_floats(distance, least, distance, least);
        }
        let q = s.floats(importance);
        let (qu, qx) = (s.mul_floats(q, u), s.mul_floats(q, x));
        let terms = [q, qu, s.mul_floats(qu, u), qx, s.mul_floats(qx, u), s.mul_floats(q, least)];
        for (sum, term) in sums.iter_mut().zip(terms) {
            *sum = s.add_floats(*sum, term);
        }
    }
    let [q, qu, quu, qx, qux, error] = sums.map(
        #[inline(always)]
        |sum| s.horizontal_sum(sum),
    );
    let determinant = q * quu - qu * qu;
    let next = (determinant > 1e-6 * q * q).then(|| {
        let slope = (q * qux - qu * qx) / determinant;
        let start = low + (qx - slope * qu) / q;
        (start, start + slope)
    });
    Line { error, next }
}
