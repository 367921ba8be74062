//! The fast search: eight blocks at a time, without branches.
//!
//! On each ladder: a grid of starts inside and just outside the span of the texels, rounds of
//! least squares from the best, and a walk over the neighbouring pairs of integers.

use super::block::BLOCK_TEXELS;
use super::lanes::{LANES, Ladder, Lanes, Texels, errors, higher, least_squares, lower, snap};
use crate::simd::{Simd, dispatch};

/// Where a start's low end lies, in steps of the ladder above the lowest texel; its high end lies
/// as far below the highest.
const INSETS: [f32; 4] = [-0.25, 0.1, 0.45, 0.8];

/// Rounds of least squares.
const ROUNDS: usize = 2;

/// Steps of low and high tried around the best pair, in order.
const NEIGHBOURS: [(f32, f32); 8] = [
    (-1.0, 0.0),
    (1.0, 0.0),
    (0.0, -1.0),
    (0.0, 1.0),
    (-1.0, -1.0),
    (1.0, 1.0),
    (-1.0, 1.0),
    (1.0, -1.0),
];

/// A texel at most this near to 0 or 255 may be left to the fixed levels.
const NEAR_FIXED: f32 = 24.0;

/// The best pair of each lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pairs {
    pub(super) low: Lanes,
    pub(super) high: Lanes,
    pub(super) error: Lanes,
}

dispatch! {
    /// The best pair that the search finds on a ladder; an infinite error where the ladder has
    /// nothing to offer.
    fn search = search_with(texels: &Texels, ladder: Ladder) -> Pairs
}

#[inline(always)]
fn search_with<S: Simd>(_: S, texels: &Texels, ladder: Ladder) -> Pairs {
    match ladder {
        Ladder::Seven => search_from::<false>(texels, span(texels, -1.0)),
        Ladder::Five => {
            let inner = span(texels, NEAR_FIXED * NEAR_FIXED);
            let none = Pairs { error: [f32::INFINITY; LANES], ..inner };
            if inner.error == [0.0; LANES] {
                return none;
            }
            let mut found = search_from::<true>(texels, inner);
            for lane in 0..LANES {
                if inner.error[lane] == 0.0 {
                    found.error[lane] = f32::INFINITY;
                }
            }
            found
        }
    }
}

#[inline(always)]
fn search_from<const FIXED: bool>(texels: &Texels, span: Pairs) -> Pairs {
    let steps = if FIXED { Ladder::Five } else { Ladder::Seven }.steps();
    let mut best = Pairs { error: [f32::INFINITY; LANES], ..span };
    for inset_low in INSETS {
        for inset_high in INSETS {
            let (mut low, mut high) = (span.low, span.high);
            for lane in 0..LANES {
                let step = (span.high[lane] - span.low[lane]) * (1.0 / steps);
                low[lane] = span.low[lane] + inset_low * step;
                high[lane] = span.high[lane] - inset_high * step;
            }
            try_pair::<FIXED>(texels, &low, &high, &mut best);
        }
    }
    for _ in 1..ROUNDS {
        let (low, high) = least_squares::<FIXED>(texels, &best.low, &best.high);
        try_pair::<FIXED>(texels, &low, &high, &mut best);
    }
    let (low, high) = least_squares::<FIXED>(texels, &best.low, &best.high);
    best = Pairs { low: low.map(snap), high: high.map(snap), error: best.error };
    best.error = errors::<FIXED, false>(texels, &best.low, &best.high, 0.0);
    for (down, up) in NEIGHBOURS {
        let (mut low, mut high) = (best.low, best.high);
        for lane in 0..LANES {
            high[lane] = snap(high[lane] + up);
            low[lane] = lower(snap(low[lane] + down), high[lane]);
        }
        try_pair::<FIXED>(texels, &low, &high, &mut best);
    }
    best
}

/// Lowest and highest texel that count and whose squared distance to the fixed levels is over
/// `limit`; in place of the error how many count and are within it.
#[inline(always)]
fn span(texels: &Texels, limit: f32) -> Pairs {
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let mut near = [0.0; LANES];
    for texel in 0..BLOCK_TEXELS {
        for lane in 0..LANES {
            let position = texels.position[texel][lane];
            let counts = texels.importance[texel][lane] > 0.0;
            let inner = texels.to_fixed[texel][lane] > limit;
            near[lane] += if counts & !inner { 1.0 } else { 0.0 };
            low[lane] = if counts & inner { lower(low[lane], position) } else { low[lane] };
            high[lane] = if counts & inner { higher(high[lane], position) } else { high[lane] };
        }
    }
    for lane in 0..LANES {
        let empty = low[lane] > high[lane];
        low[lane] = if empty { 127.0 } else { low[lane] };
        high[lane] = if empty { 128.0 } else { high[lane] };
    }
    Pairs { low, high, error: near }
}

/// Takes the pair where it is better.
#[inline(always)]
fn try_pair<const FIXED: bool>(texels: &Texels, low: &Lanes, high: &Lanes, best: &mut Pairs) {
    let error = errors::<FIXED, false>(texels, low, high, 0.0);
    for lane in 0..LANES {
        let better = error[lane] < best.error[lane];
        best.low[lane] = if better { low[lane] } else { best.low[lane] };
        best.high[lane] = if better { high[lane] } else { best.high[lane] };
        best.error[lane] = if better { error[lane] } else { best.error[lane] };
    }
}
