//! Squared errors of endpoint pairs, eight at a time.
//!
//! A lane is one candidate for one block: the fast search has eight blocks in the lanes, the exact
//! search eight pairs for one block. All is f32 in texel steps (255·t), each operation rounded on
//! its own and every sum in the order of texels, so that results are equal on every machine.

use super::block::BLOCK_TEXELS;
use crate::simd::{Simd, dispatch};

/// Lanes of a vector.
pub(super) const LANES: usize = 8;

pub(super) type Lanes = [f32; LANES];

/// Adding and subtracting it rounds |x| < 2^22 to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// Which levels an endpoint pair spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ladder {
    /// Seven steps.
    Seven,
    /// Five steps, and the fixed levels 0 and 255.
    Five,
}

impl Ladder {
    pub(super) fn steps(self) -> f32 {
        match self {
            Self::Seven => 7.0,
            Self::Five => 5.0,
        }
    }
}

/// The texels of eight blocks, or of one block eight times.
#[derive(Debug, Clone)]
pub(super) struct Texels {
    /// 255·t.
    pub(super) position: [Lanes; BLOCK_TEXELS],
    /// Relative to the largest of the block; 0 for padding.
    pub(super) importance: [Lanes; BLOCK_TEXELS],
    /// Squared distance to the nearer of 0 and 255.
    pub(super) to_fixed: [Lanes; BLOCK_TEXELS],
}

impl Texels {
    pub(super) fn new() -> Self {
        let zero = [[0.0; LANES]; BLOCK_TEXELS];
        Self { position: zero, importance: zero, to_fixed: zero }
    }

    /// Sets the distances to the fixed levels.
    #[inline(always)]
    pub(super) fn measure_fixed(&mut self) {
        for (to_fixed, position) in self.to_fixed.iter_mut().zip(&self.position) {
            for lane in 0..LANES {
                let distance = lower(position[lane], 255.0 - position[lane]);
                to_fixed[lane] = distance * distance;
            }
        }
    }
}

/// The lower; unlike `f32::min` one instruction, as NaN does not occur.
#[inline(always)]
pub(super) fn lower(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The higher; see [`lower`].
#[inline(always)]
pub(super) fn higher(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Levels a unit, 0 for an empty range.
#[inline(always)]
fn density(steps: f32, low: f32, high: f32) -> f32 {
    let range = high - low;
    if range > 0.0 { steps / range } else { 0.0 }
}

/// Σ importance·distance² to the nearest level of each lane's pair.
///
/// `FIXED` says whether the ladder has the fixed levels. With `BOUND` every distance is first
/// shortened by `slack`, which gives a lower bound for all pairs whose levels are that near.
#[inline(always)]
pub(super) fn errors<const FIXED: bool, const BOUND: bool>(
    texels: &Texels,
    low: &Lanes,
    high: &Lanes,
    slack: f32,
) -> Lanes {
    let steps = if FIXED { Ladder::Five } else { Ladder::Seven }.steps();
    let (mut dense, mut step) = ([0.0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        dense[lane] = density(steps, low[lane], high[lane]);
        step[lane] = (high[lane] - low[lane]) * (1.0 / steps);
    }
    let mut sum = [0.0; LANES];
    for texel in 0..BLOCK_TEXELS {
        let position = &texels.position[texel];
        let importance = &texels.importance[texel];
        let to_fixed = &texels.to_fixed[texel];
        for lane in 0..LANES {
            let offset = position[lane] - low[lane];
            let place = lower(higher(offset * dense[lane], 0.0), steps);
            let level = (place + ROUND) - ROUND;
            let mut distance = offset - level * step[lane];
            if BOUND {
                distance = higher(distance.abs() - slack, 0.0);
            }
            let square = distance * distance;
            let square = if FIXED { lower(square, to_fixed[lane]) } else { square };
            sum[lane] += importance[lane] * square;
        }
    }
    sum
}

/// The ends that minimise each lane's error for the levels that its texels have now; the present
/// ends where all texels share a level.
#[inline(always)]
pub(super) fn least_squares<const FIXED: bool>(
    texels: &Texels,
    low: &Lanes,
    high: &Lanes,
) -> (Lanes, Lanes) {
    let steps = if FIXED { Ladder::Five } else { Ladder::Seven }.steps();
    let mut dense = [0.0; LANES];
    for lane in 0..LANES {
        dense[lane] = density(steps, low[lane], high[lane]);
    }
    let zero = [0.0; LANES];
    let (mut q, mut qu, mut quu, mut qx, mut qux) = (zero, zero, zero, zero, zero);
    for texel in 0..BLOCK_TEXELS {
        for lane in 0..LANES {
            let offset = texels.position[texel][lane] - low[lane];
            let place = lower(higher(offset * dense[lane], 0.0), steps);
            let u = ((place + ROUND) - ROUND) * (1.0 / steps);
            let distance = offset - u * (high[lane] - low[lane]);
            let fixed = FIXED & (distance * distance > texels.to_fixed[texel][lane]);
            let weight = if fixed { 0.0 } else { texels.importance[texel][lane] };
            q[lane] += weight;
            qu[lane] += weight * u;
            quu[lane] += weight * u * u;
            qx[lane] += weight * offset;
            qux[lane] += weight * u * offset;
        }
    }
    let (mut new_low, mut new_high) = (*low, *high);
    for lane in 0..LANES {
        let determinant = q[lane] * quu[lane] - qu[lane] * qu[lane];
        if determinant > 1e-6 * q[lane] * q[lane] {
            let slope = (q[lane] * qux[lane] - qu[lane] * qx[lane]) / determinant;
            let shift = (qx[lane] - slope * qu[lane]) / q[lane];
            new_low[lane] = low[lane] + shift;
            new_high[lane] = new_low[lane] + slope;
        }
    }
    (new_low, new_high)
}

/// The nearest endpoint value.
#[inline(always)]
pub(super) fn snap(value: f32) -> f32 {
    lower(higher((value + ROUND) - ROUND, 0.0), 255.0)
}

dispatch! {
    /// [`errors`] with `slack`, at an instruction set.
    fn bounds = bounds_with(
        texels: &Texels,
        ladder: Ladder,
        low: &Lanes,
        high: &Lanes,
        slack: f32,
    ) -> Lanes
}

#[inline(always)]
fn bounds_with<S: Simd>(
    _: S,
    texels: &Texels,
    ladder: Ladder,
    low: &Lanes,
    high: &Lanes,
    slack: f32,
) -> Lanes {
    match ladder {
        Ladder::Seven => errors::<false, true>(texels, low, high, slack),
        Ladder::Five => errors::<true, true>(texels, low, high, slack),
    }
}
