//! The fit with a weight on each error: the diagonal of a Hessian.

use multiversion::multiversion;

use super::{MAX_STEPS, STARTS, fit_inline};
use crate::lanes::{LANES, reduce};

/// The scale that minimises Σ h·(w - s·q)², a fixed point of s = Σ h·w·q / Σ h·q², not rounded.
///
/// `h` holds one weight of the error for each element of `w`, finite and not negative: the
/// diagonal of H = XᵀX over the layer's inputs. Where all of `h` is zero nothing depends on the
/// scale and the result is that of [`super::fit_scale`]; where all of h·w is zero it is 0.
///
/// # Panics
/// If `w` and `h` differ in length.
#[must_use]
pub fn fit_scale_weighted(w: &[f32], h: &[f32]) -> f32 {
    assert_eq!(w.len(), h.len(), "one Hessian entry for each weight");
    fit_dispatched(w, h)
}

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn fit_dispatched(w: &[f32], h: &[f32]) -> f32 {
    let all = large(w, h, -1.0);
    if all.weight == 0.0 {
        return fit_inline(w);
    }
    if all.sum == 0.0 {
        return 0.0;
    }
    let mean = (all.sum / all.weight) as f32;
    let mut best = Large::default();
    let mut best_gain = best.gain(all);
    for start in STARTS {
        let candidate = large(w, h, start * mean);
        let gain = candidate.gain(all);
        if gain > best_gain {
            (best, best_gain) = (candidate, gain);
        }
    }
    let mut scale = best.scale(all);
    for _ in 0..MAX_STEPS {
        let next = large(w, h, scale);
        scale = next.scale(all);
        if next.count == best.count {
            break;
        }
        best = next;
    }
    scale
}

/// The weights above a threshold. Sums of a tensor's Hessian can pass the square root of f32's
/// range, hence f64.
#[derive(Clone, Copy, Default)]
struct Large {
    /// Σ h·|w|.
    sum: f64,
    /// Σ h.
    weight: f64,
    count: u32,
}

impl Large {
    fn terms(self, all: Self) -> (f64, f64) {
        (0.5 * all.sum + self.sum, 0.25 * all.weight + 2.0 * self.weight)
    }

    fn scale(self, all: Self) -> f32 {
        let (products, squares) = self.terms(all);
        (products / squares) as f32
    }

    fn gain(self, all: Self) -> f64 {
        let (products, squares) = self.terms(all);
        products * products / squares
    }
}

/// The weights with |w| > `threshold`.
#[inline(always)]
fn large(w: &[f32], h: &[f32], threshold: f32) -> Large {
    let mut sum = [0.0; LANES];
    let mut weight = [0.0; LANES];
    let mut count = [0u32; LANES];
    for (w, h) in w.chunks(LANES).zip(h.chunks(LANES)) {
        for (k, (w, h)) in w.iter().zip(h).enumerate() {
            let x = w.abs();
            let is_large = x > threshold;
            sum[k] += if is_large { h * x } else { 0.0 };
            weight[k] += if is_large { *h } else { 0.0 };
            count[k] += u32::from(is_large);
        }
    }
    Large {
        sum: f64::from(reduce(sum)),
        weight: f64::from(reduce(weight)),
        count: count.iter().sum(),
    }
}
