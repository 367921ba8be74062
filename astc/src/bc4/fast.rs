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

/// Half widths of starts about the weighted mean, in weighted standard deviations: better than
/// the insets where rows of one block have unequal scales.
const SPREADS: [f32; 4] = [1.1, 1.4, 1.7, 2.0];

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

/// Every squared distance to the fixed levels is over this.
const ALL: f32 = -1.0;

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
fn search_with<S: Simd>(s: S, texels: &Texels, ladder: Ladder) -> Pairs {
    match ladder {
        Ladder::Seven => search_from::<S, false>(s, texels, span(texels, ALL), ALL),
        Ladder::Five => {
            let limit = NEAR_FIXED * NEAR_FIXED;
            let inner = span(texels, limit);
            let none = Pairs { error: [f32::INFINITY; LANES], ..inner };
            if inner.error == [0.0; LANES] {
                return none;
            }
            let mut found = search_from::<S, true>(s, texels, inner, limit);
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
fn search_from<S: Simd, const FIXED: bool>(
    s: S,
    texels: &Texels,
    span: Pairs,
    limit: f32,
) -> Pairs {
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
    let (mean, deviation) = spread(texels, limit);
    for widths in SPREADS {
        let (mut low, mut high) = (span.low, span.high);
        for lane in 0..LANES {
            low[lane] = higher(mean[lane] - widths * deviation[lane], 0.0);
            high[lane] = lower(mean[lane] + widths * deviation[lane], 255.0);
        }
        try_pair::<FIXED>(texels, &low, &high, &mut best);
    }
    for _ in 1..ROUNDS {
        let (low, high) = least_squares::<S, FIXED>(s, texels, &best.low, &best.high);
        try_pair::<FIXED>(texels, &low, &high, &mut best);
    }
    let (low, high) = least_squares::<S, FIXED>(s, texels, &best.low, &best.high);
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
        // 1 where the texel counts, 0 where not. One loop a quantity, so that each is a vector.
        let (mut counts, mut inner) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            counts[lane] = if texels.importance[texel][lane] > 0.0 { 1.0 } else { 0.0 };
        }
        for lane in 0..LANES {
            inner[lane] = if texels.to_fixed[texel][lane] > limit { counts[lane] } else { 0.0 };
        }
        for lane in 0..LANES {
            near[lane] += counts[lane] - inner[lane];
        }
        for lane in 0..LANES {
            let position = texels.position[texel][lane];
            low[lane] = lower(low[lane], if inner[lane] > 0.0 { position } else { 1e9 });
        }
        for lane in 0..LANES {
            let position = texels.position[texel][lane];
            high[lane] = higher(high[lane], if inner[lane] > 0.0 { position } else { -1e9 });
        }
    }
    for lane in 0..LANES {
        let (least, most) = (low[lane], high[lane]);
        low[lane] = if least > most { 127.0 } else { least };
        high[lane] = if least > most { 128.0 } else { most };
    }
    Pairs { low, high, error: near }
}

/// Weighted mean and standard deviation of the texels that [`span`] takes for inner.
#[inline(always)]
fn spread(texels: &Texels, limit: f32) -> (Lanes, Lanes) {
    let mut inner = texels.importance;
    for (inner, to_fixed) in inner.iter_mut().zip(&texels.to_fixed) {
        for lane in 0..LANES {
            inner[lane] = if to_fixed[lane] > limit { inner[lane] } else { 0.0 };
        }
    }
    let (mut mass, mut mean) = ([f32::MIN_POSITIVE; LANES], [0.0; LANES]);
    for (position, importance) in texels.position.iter().zip(&inner) {
        for lane in 0..LANES {
            mass[lane] += importance[lane];
            mean[lane] += importance[lane] * position[lane];
        }
    }
    for lane in 0..LANES {
        mean[lane] /= mass[lane];
    }
    let mut variance = [0.0; LANES];
    for (position, importance) in texels.position.iter().zip(&inner) {
        for lane in 0..LANES {
            let offset = position[lane] - mean[lane];
            variance[lane] += importance[lane] * offset * offset;
        }
    }
    for lane in 0..LANES {
        variance[lane] = (variance[lane] / mass[lane]).sqrt();
    }
    (mean, variance)
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
