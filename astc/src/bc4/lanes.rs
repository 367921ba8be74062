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

/// Levels a unit. Any finite number serves an empty range, whose levels are all equal.
#[inline(always)]
fn density(steps: f32, low: f32, high: f32) -> f32 {
    steps / higher(high - low, 1e-6)
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
pub(super) fn least_squares<S: Simd, const FIXED: bool>(
    s: S,
    texels: &Texels,
    low: &Lanes,
    high: &Lanes,
) -> (Lanes, Lanes) {
    let [q, qu, quu, qx, qux] = moments::<S, FIXED>(s, texels, low, high);
    let (mut new_low, mut new_high) = (*low, *high);
    for lane in 0..LANES {
        let determinant = q[lane] * quu[lane] - qu[lane] * qu[lane];
        let solvable = determinant > 1e-6 * q[lane] * q[lane];
        let slope = (q[lane] * qux[lane] - qu[lane] * qx[lane]) / determinant;
        let shift = (qx[lane] - slope * qu[lane]) / q[lane];
        new_low[lane] = if solvable { low[lane] + shift } else { low[lane] };
        new_high[lane] = if solvable { low[lane] + shift + slope } else { high[lane] };
    }
    (new_low, new_high)
}

/// Σ q, q·u, q·u², q·x and q·u·x over the texels on the ladder's own levels: q their importance,
/// u in 0..=1 the level nearest to each, x its distance from `low`.
///
/// Written in [`Simd`] operations because the compiler leaves five sums in scalar code.
#[inline(always)]
fn moments<S: Simd, const FIXED: bool>(
    s: S,
    texels: &Texels,
    low: &Lanes,
    high: &Lanes,
) -> [Lanes; 5] {
    let steps = if FIXED { Ladder::Five } else { Ladder::Seven }.steps();
    let (mut dense, mut range) = ([0.0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        dense[lane] = density(steps, low[lane], high[lane]);
        range[lane] = high[lane] - low[lane];
    }
    let (low, dense, range) = (s.floats(low), s.floats(&dense), s.floats(&range));
    let [zero, top, unit, round] = [0.0, steps, 1.0 / steps, ROUND].map(
        #[inline(always)]
        |value| s.splat_float(value),
    );
    let mut sums = [zero; 5];
    for texel in 0..BLOCK_TEXELS {
        let mut q = s.floats(&texels.importance[texel]);
        let x = s.sub_floats(s.floats(&texels.position[texel]), low);
        let place = s.mul_floats(x, dense);
        let place = s.select_below_floats(zero, place, place, zero);
        let place = s.select_below_floats(place, top, place, top);
        let u = s.mul_floats(s.sub_floats(s.add_floats(place, round), round), unit);
        if FIXED {
            let distance = s.sub_floats(x, s.mul_floats(u, range));
            let to_fixed = s.floats(&texels.to_fixed[texel]);
            q = s.select_below_floats(to_fixed, s.mul_floats(distance, distance), zero, q);
        }
        let (qu, qx) = (s.mul_floats(q, u), s.mul_floats(q, x));
        let terms = [q, qu, s.mul_floats(qu, u), qx, s.mul_floats(qx, u)];
        for (sum, term) in sums.iter_mut().zip(terms) {
            *sum = s.add_floats(*sum, term);
        }
    }
    sums.map(
        #[inline(always)]
        |sum| {
            let mut lanes = [0.0; LANES];
            s.store_floats(sum, &mut lanes);
            lanes
        },
    )
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
