//! Scale and minimum of one 4-bit group, inlined into a caller that is compiled per vector unit.

use half::f16;

use crate::groups::finite_f16;
use crate::lanes::{LANES, Lanes, NOTHING, for_chunks, reduce};

/// Largest code.
const MAX_CODE: f32 = 15.0;

/// Rounds of least squares; the error hardly moves after the third.
const MAX_ROUNDS: usize = 6;

/// x + 2²³ rounds 0 <= x < 2²² to the nearest integer, ties to even, and leaves it in the low
/// bits: the same operation on every vector unit.
const ROUND: f32 = 8_388_608.0;

/// What is past the range of fp16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overflow {
    Scale,
    Min,
}

/// fp16 scale and minimum of a group.
#[inline(always)]
pub(super) fn fit(w: &[f32]) -> Result<(f16, f16), Overflow> {
    let (low, high) = extremes(w);
    let min = rounded_min(low).ok_or(Overflow::Min)?;
    let scale = finite_f16((high - min.to_f32()).max(0.0) / MAX_CODE).ok_or(Overflow::Scale)?;
    let group = Group { len: w.len() as f32, low, u: sum_above(w, low) };
    if scale == f16::ZERO {
        let mean = low + group.u / group.len;
        return Ok((f16::ZERO, rounded_min(mean).ok_or(Overflow::Min)?));
    }
    let mut best = (scale, min);
    let mut sums = Sums::of(w, low, scale.to_f32(), min.to_f32());
    for _ in 0..MAX_ROUNDS {
        let Some((scale, min)) = sums.least_squares(group) else { break };
        if (scale, min) == best {
            break;
        }
        let next = Sums::of(w, low, scale.to_f32(), min.to_f32());
        if next.error >= sums.error {
            break;
        }
        (best, sums) = ((scale, min), next);
    }
    Ok(best)
}

/// The nearest code of each weight, the even one where two are as near.
#[inline(always)]
pub(super) fn choose(w: &[f32], scale: f32, min: f32, codes: &mut [u8]) {
    if scale == 0.0 {
        codes.fill(0);
        return;
    }
    let inverse = 1.0 / scale;
    for (code, w) in codes.iter_mut().zip(w) {
        *code = nearest(*w, inverse, min).to_bits() as u8 & 15;
    }
}

/// The nearest code of a weight, plus [`ROUND`].
#[inline(always)]
fn nearest(w: f32, inverse: f32, min: f32) -> f32 {
    let x = (w - min) * inverse;
    let x = if x > 0.0 { x } else { 0.0 };
    let x = if x < MAX_CODE { x } else { MAX_CODE };
    x + ROUND
}

/// The minimum as fp16, never -0.
#[inline(always)]
fn rounded_min(min: f32) -> Option<f16> {
    finite_f16(min + 0.0)
}

/// Smallest and largest weight.
#[inline(always)]
fn extremes(w: &[f32]) -> (f32, f32) {
    let mut low = [f32::INFINITY; LANES];
    let mut high = [f32::NEG_INFINITY; LANES];
    for_chunks(w, |chunk: &Lanes, used| {
        for k in 0..LANES {
            let x = chunk[k];
            low[k] = if k < used && x < low[k] { x } else { low[k] };
            high[k] = if k < used && x > high[k] { x } else { high[k] };
        }
    });
    let low = low.iter().fold(f32::INFINITY, |a, &x| if x < a { x } else { a });
    let high = high.iter().fold(f32::NEG_INFINITY, |a, &x| if x > a { x } else { a });
    (low, high)
}

/// Σ (w - low).
#[inline(always)]
fn sum_above(w: &[f32], low: f32) -> f32 {
    let mut sum = [NOTHING; LANES];
    for_chunks(w, |chunk: &Lanes, used| {
        for k in 0..LANES {
            sum[k] += if k < used { chunk[k] - low } else { NOTHING };
        }
    });
    reduce(sum)
}

/// The part of the normal equations that does not depend on the codes. Weights enter as
/// u = w - low, which keeps the equations well conditioned where the spread is small beside the
/// values.
#[derive(Clone, Copy)]
struct Group {
    /// Number of weights.
    len: f32,
    /// Smallest weight.
    low: f32,
    /// Σ u.
    u: f32,
}

/// Sums over the codes that a scale and minimum give.
struct Sums {
    /// Σ (w - ŵ)².
    error: f32,
    /// Σ q.
    q: f32,
    /// Σ q².
    qq: f32,
    /// Σ u·q.
    uq: f32,
}

impl Sums {
    #[inline(always)]
    fn of(w: &[f32], low: f32, scale: f32, min: f32) -> Self {
        let inverse = 1.0 / scale;
        let mut error = [NOTHING; LANES];
        let mut q_sum = [NOTHING; LANES];
        let mut qq = [NOTHING; LANES];
        let mut uq = [NOTHING; LANES];
        for_chunks(w, |chunk: &Lanes, used| {
            for k in 0..LANES {
                let q = nearest(chunk[k], inverse, min) - ROUND;
                let e = chunk[k] - (scale * q + min);
                error[k] += if k < used { e * e } else { NOTHING };
                q_sum[k] += if k < used { q } else { NOTHING };
                qq[k] += if k < used { q * q } else { NOTHING };
                uq[k] += if k < used { (chunk[k] - low) * q } else { NOTHING };
            }
        });
        Self { error: reduce(error), q: reduce(q_sum), qq: reduce(qq), uq: reduce(uq) }
    }

    /// The scale and minimum with the least error for these codes: both from the normal
    /// equations, then the minimum again for the rounded scale. None where the codes do not
    /// determine them.
    #[inline(always)]
    fn least_squares(&self, group: Group) -> Option<(f16, f16)> {
        let Group { len, low, u } = group;
        let determinant = len * self.qq - self.q * self.q;
        if determinant <= 0.0 {
            return None;
        }
        let scale = finite_f16((len * self.uq - u * self.q) / determinant)?;
        if scale <= f16::ZERO {
            return None;
        }
        let min = rounded_min(low + (u - scale.to_f32() * self.q) / len)?;
        Some((scale, min))
    }
}
