//! The exact Newton fit of the 2-bit grid's scale.
//!
//! For fixed codes q the error Σ (w - s·q)² is quadratic in s, so that one Newton step reaches its
//! minimum: s = Σ w·q / Σ q². For a fixed s the best codes are those of |w| > s: 1.5, else 0.5.
//! Alternating the two never raises the error and ends at a fixed point of the codes.
//!
//! Only two numbers change from step to step. With T = Σ |w| over all n weights, and S = Σ |w| and
//! c the number over |w| > s, the step is s = (T/2 + S) / (n/4 + 2c), and the error it leaves is
//! Σ w² - (T/2 + S)² / (n/4 + 2c). A step is one pass over weights that sit in the first-level
//! cache.
//!
//! A fixed point need not be the global optimum. Groups of at most [`EXACT_LEN`] weights are
//! therefore solved exactly: the optimum splits the sorted magnitudes somewhere, and all splits
//! are tried. Longer runs start from the best of 16 thresholds spread over the useful multiples
//! of the mean magnitude; what is left to gain there is below 0.1 % of the error.

mod sums;
mod weighted;

use multiversion::multiversion;

pub(crate) use sums::{LANES, reduce};
pub use weighted::fit_scale_weighted;

use sums::CANDIDATES;

/// Magnitude of the outer levels ±1.5·s over s.
pub const OUTER_LEVEL: f32 = 1.5;

/// Up to this many weights the fit is the global optimum.
pub const EXACT_LEN: usize = 32;

/// Ends the iteration where rounding keeps two splits apart forever; fits need 3 to 15 steps.
const MAX_STEPS: usize = 64;

/// Thresholds tried at the start, in multiples of the mean magnitude: geometric from 0.6 to 5.
/// The optimum is at 1.25 for Gaussian weights and 1.5 for Laplace; heavy tails raise it.
const STARTS: [f32; CANDIDATES] = [
    0.6, 0.691, 0.796, 0.917, 1.056, 1.216, 1.4, 1.613, 1.858, 2.14, 2.465, 2.839, 3.27, 3.766,
    4.338, 5.0,
];

/// The least-squares scale of the 2-bit grid for `w`, not rounded; 0 if all weights are zero.
///
/// It is a fixed point of [`newton_step`], and the global optimum for at most [`EXACT_LEN`]
/// weights. The weights have to be finite; a result past the range of f32 is infinite.
#[must_use]
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2",))]
pub fn fit_scale(w: &[f32]) -> f32 {
    fit_inline(w)
}

/// One Newton step: the best scale for the codes that scale `s` assigns, Σ w·q / Σ q².
///
/// The result is 0 if all weights are zero.
#[must_use]
pub fn newton_step(w: &[f32], s: f32) -> f32 {
    let large = sums::large(w, s);
    Split { total: sums::abs_sum(w), len: w.len() as f32 }.scale(large.sum, large.count as f32)
}

/// The scale that the published parametrisation s = f·max|w| / 1.5 gives for factor `f`.
#[must_use]
pub fn scale_from_factor(f: f32, max_abs: f32) -> f32 {
    f * max_abs / OUTER_LEVEL
}

/// The factor f of the published parametrisation s = f·max|w| / 1.5; 0 where max|w| is 0.
#[must_use]
pub fn factor_from_scale(s: f32, max_abs: f32) -> f32 {
    if max_abs == 0.0 { 0.0 } else { s * OUTER_LEVEL / max_abs }
}

/// What stays the same while the split into small and large magnitudes moves.
#[derive(Clone, Copy)]
struct Split {
    /// Σ |w|.
    total: f32,
    /// Number of weights.
    len: f32,
}

impl Split {
    /// Σ |w|·|q| and Σ q² with `count` large weights that add up to `sum`.
    #[inline(always)]
    fn terms(self, sum: f32, count: f32) -> (f32, f32) {
        (0.5 * self.total + sum, 0.25 * self.len + 2.0 * count)
    }

    #[inline(always)]
    fn scale(self, sum: f32, count: f32) -> f32 {
        if self.len == 0.0 {
            return 0.0;
        }
        let (products, squares) = self.terms(sum, count);
        products / squares
    }

    /// By how much the best scale of this split lowers the error from Σ w².
    #[inline(always)]
    fn gain(self, sum: f32, count: f32) -> f32 {
        let (products, squares) = self.terms(sum, count);
        products * products / squares
    }
}

/// The best split seen so far; among equals the first one.
#[derive(Clone, Copy)]
struct Best {
    gain: f32,
    sum: f32,
    count: f32,
}

impl Best {
    /// Starts from no large weight at all, which is exact for weights of one magnitude: their
    /// scale is twice the magnitude, which fp16 holds if it holds the magnitude.
    #[inline(always)]
    fn none_large(split: Split) -> Self {
        Self { gain: split.gain(0.0, 0.0), sum: 0.0, count: 0.0 }
    }

    #[inline(always)]
    fn try_thresholds(&mut self, w: &[f32], split: Split, thresholds: &[f32; CANDIDATES]) {
        let (sums, counts) = sums::scan(w, thresholds);
        let mut gains = [0.0; CANDIDATES];
        for k in 0..CANDIDATES {
            gains[k] = split.gain(sums[k], counts[k]);
        }
        for k in 0..CANDIDATES {
            if gains[k] > self.gain {
                *self = Self { gain: gains[k], sum: sums[k], count: counts[k] };
            }
        }
    }

    #[inline(always)]
    fn try_all_large(&mut self, split: Split) {
        let gain = split.gain(split.total, split.len);
        if gain > self.gain {
            *self = Self { gain, sum: split.total, count: split.len };
        }
    }
}

/// [`fit_scale`], to be inlined into a loop that is compiled per vector unit.
#[inline(always)]
pub(crate) fn fit_inline(w: &[f32]) -> f32 {
    let total = sums::abs_sum(w);
    if w.is_empty() || total == 0.0 {
        return 0.0;
    }
    let split = Split { total, len: w.len() as f32 };
    let mut best = Best::none_large(split);
    if w.len() <= EXACT_LEN {
        for candidates in w.chunks(CANDIDATES) {
            let mut thresholds = [f32::INFINITY; CANDIDATES];
            for (threshold, x) in thresholds.iter_mut().zip(candidates) {
                *threshold = x.abs();
            }
            best.try_thresholds(w, split, &thresholds);
        }
        best.try_all_large(split);
        return split.scale(best.sum, best.count);
    }
    let mean = total / split.len;
    best.try_thresholds(w, split, &STARTS.map(|start| start * mean));
    iterate(w, split, best)
}

/// Newton steps until the codes stay the same.
#[inline(always)]
fn iterate(w: &[f32], split: Split, start: Best) -> f32 {
    let mut scale = split.scale(start.sum, start.count);
    let mut count = start.count;
    for _ in 0..MAX_STEPS {
        let large = sums::large(w, scale);
        scale = split.scale(large.sum, large.count as f32);
        if large.count as f32 == count {
            break;
        }
        count = large.count as f32;
    }
    scale
}

#[cfg(test)]
mod tests;
