//! The exact search: branch and bound over all endpoint pairs of one block.
//!
//! A square of pairs with ends within r of its middle has every level within r of the middle's
//! level, since levels are convex combinations of the ends. So the middle's error with all
//! distances shortened by r bounds the error of every pair in the square from below. Squares of
//! 8 x 8 pairs are halved in both directions down to single pairs, eight at a time, and dropped
//! as soon as their bound shows that they cannot beat the best pair known. Most of the first
//! squares need no such bound: texels that lie outside their widest range cost too much.

use super::DecodeMode;
use super::block::{BLOCK_TEXELS, integer_level};
use super::lanes::{LANES, Ladder, Lanes, Texels, bounds, higher, lower};
use crate::simd::{Level, Simd, dispatch};

/// Pairs along the side of the first squares.
const FIRST_SIDE: usize = 8;

/// First squares along each direction.
const FIRST_COUNT: usize = 256 / FIRST_SIDE;

/// Most that llvmpipe's levels differ from the exact ones, over all pairs: 1.6.
const LLVMPIPE_DEVIATION: f32 = 1.601;

/// A bound of f32 sums may be this much too high.
const ROUNDING: f32 = 1.0 - 1e-5;

/// An endpoint pair, low first, and its error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    pub(super) low: u8,
    pub(super) high: u8,
    pub(super) error: f32,
}

/// Scratch memory of the search.
#[derive(Debug, Default)]
pub(super) struct ExactSearch {
    squares: Vec<(u8, u8)>,
    halved: Vec<(u8, u8)>,
}

impl ExactSearch {
    /// The best of `known` and all pairs on `ladder`; among equals the known one, then the first
    /// in the order of the halved squares.
    ///
    /// `texels` holds the block in all lanes.
    pub(super) fn improve(
        &mut self,
        level: Level,
        mode: DecodeMode,
        ladder: Ladder,
        texels: &Texels,
        known: Pair,
    ) -> Pair {
        let steps = ladder.steps();
        let (shift, deviation) = deviation(mode, steps);
        let mut shifted = texels.clone();
        shifted.position.as_flattened_mut().iter_mut().for_each(|position| *position += shift);

        let mut best = known;
        let mut side = FIRST_SIDE;
        self.first_squares(level, ladder, texels, best.error);
        while side > 1 {
            let middle = (side - 1) as f32 * 0.5;
            let slack = middle + deviation;
            self.halved.clear();
            for squares in self.squares.chunks(LANES) {
                let (low, high) = ends(squares, middle);
                let found = bounds(level, &shifted, ladder, &low, &high, slack);
                for (&square, bound) in squares.iter().zip(found) {
                    if bound * ROUNDING < best.error {
                        quarter(square, (side / 2) as u8, &mut self.halved);
                    }
                }
            }
            std::mem::swap(&mut self.squares, &mut self.halved);
            side /= 2;
        }
        for pairs in self.squares.chunks(LANES) {
            let (low, high) = ends(pairs, 0.0);
            let found = match mode {
                DecodeMode::Exact => bounds(level, texels, ladder, &low, &high, 0.0),
                _ => integer_errors(level, mode, texels, ladder, &low, &high),
            };
            for (&(low, high), error) in pairs.iter().zip(found) {
                if error < best.error {
                    best = Pair { low, high, error };
                }
            }
        }
        best
    }

    /// The squares whose pairs may have an error below `limit` by the texels outside their range.
    ///
    /// No reader's levels lie outside the ends of their pair.
    fn first_squares(&mut self, level: Level, ladder: Ladder, texels: &Texels, limit: f32) {
        let (mut below, mut above) = ([0.0; FIRST_COUNT], [0.0; FIRST_COUNT]);
        for first in (0..FIRST_COUNT).step_by(LANES) {
            let corner = |lane: usize| ((first + lane) * FIRST_SIDE) as f32;
            let low = std::array::from_fn(corner);
            let high = std::array::from_fn(|lane| corner(lane) + (FIRST_SIDE - 1) as f32);
            let range = |from: &Lanes, to: &Lanes| outside(level, texels, ladder, from, to);
            below[first..first + LANES].copy_from_slice(&range(&low, &[f32::INFINITY; LANES]));
            above[first..first + LANES].copy_from_slice(&range(&[f32::NEG_INFINITY; LANES], &high));
        }
        self.squares.clear();
        for low in 0..FIRST_COUNT {
            for high in low..FIRST_COUNT {
                if (below[low] + above[high]) * ROUNDING < limit {
                    self.squares.push(((low * FIRST_SIDE) as u8, (high * FIRST_SIDE) as u8));
                }
            }
        }
    }
}

/// How far below the exact levels a reader's are on average, and how far at most from there.
fn deviation(mode: DecodeMode, steps: f32) -> (f32, f32) {
    match mode {
        DecodeMode::Exact => (0.0, 0.0),
        // Cut by 0 to (steps - 1)/steps.
        DecodeMode::Unorm8 => (0.5 * (steps - 1.0) / steps, 0.5 * (steps - 1.0) / steps),
        DecodeMode::Llvmpipe => (0.0, LLVMPIPE_DEVIATION),
    }
}

/// The four quarters of a square that hold pairs with low <= high.
fn quarter((low, high): (u8, u8), half: u8, out: &mut Vec<(u8, u8)>) {
    out.push((low, high));
    out.push((low, high + half));
    if low < high {
        out.push((low + half, high));
    }
    out.push((low + half, high + half));
}

/// Middles of the squares, unused lanes repeating the last.
fn ends(squares: &[(u8, u8)], middle: f32) -> (Lanes, Lanes) {
    let of = |lane: usize| squares[lane.min(squares.len() - 1)];
    (
        std::array::from_fn(|lane| f32::from(of(lane).0) + middle),
        std::array::from_fn(|lane| f32::from(of(lane).1) + middle),
    )
}

dispatch! {
    /// Errors of the texels outside the ranges `low` to `high`.
    fn outside = outside_with(
        texels: &Texels,
        ladder: Ladder,
        low: &Lanes,
        high: &Lanes,
    ) -> Lanes
}

#[inline(always)]
fn outside_with<S: Simd>(
    _: S,
    texels: &Texels,
    ladder: Ladder,
    low: &Lanes,
    high: &Lanes,
) -> Lanes {
    let mut sum = [0.0; LANES];
    for texel in 0..BLOCK_TEXELS {
        for lane in 0..LANES {
            let position = texels.position[texel][lane];
            let distance = higher(higher(low[lane] - position, position - high[lane]), 0.0);
            let square = match ladder {
                Ladder::Seven => distance * distance,
                Ladder::Five => lower(distance * distance, texels.to_fixed[texel][lane]),
            };
            sum[lane] += texels.importance[texel][lane] * square;
        }
    }
    sum
}

/// The error of a pair over the levels of a reader that stores bytes.
pub(super) fn error_over_integers(
    level: Level,
    mode: DecodeMode,
    ladder: Ladder,
    texels: &Texels,
    pair: Pair,
) -> f32 {
    let (low, high) = ends(&[(pair.low, pair.high)], 0.0);
    integer_errors(level, mode, texels, ladder, &low, &high)[0]
}

dispatch! {
    /// Errors over the levels of a reader that stores bytes, for pairs of integers.
    fn integer_errors = integer_errors_with(
        mode: DecodeMode,
        texels: &Texels,
        ladder: Ladder,
        low: &Lanes,
        high: &Lanes,
    ) -> Lanes
}

#[inline(always)]
fn integer_errors_with<S: Simd>(
    _: S,
    mode: DecodeMode,
    texels: &Texels,
    ladder: Ladder,
    low: &Lanes,
    high: &Lanes,
) -> Lanes {
    // The ends as stored: the order chooses the ladder.
    let (steps, e0, e1) = match ladder {
        Ladder::Seven => (7, high, low),
        Ladder::Five => (5, low, high),
    };
    let mut levels = [[0.0; LANES]; 8];
    for (k, level) in levels.iter_mut().enumerate().take(steps + 1) {
        for lane in 0..LANES {
            let (e0, e1) = (e0[lane] as i32, e1[lane] as i32);
            level[lane] = match k {
                0 => e0,
                k if k == steps => e1,
                k => integer_level(mode, steps as i32, k as i32, e0, e1),
            } as f32;
        }
    }
    let mut sum = [0.0; LANES];
    for texel in 0..BLOCK_TEXELS {
        let mut least = match ladder {
            Ladder::Seven => [f32::INFINITY; LANES],
            Ladder::Five => texels.to_fixed[texel],
        };
        for level in &levels[..=steps] {
            for lane in 0..LANES {
                let distance = texels.position[texel][lane] - level[lane];
                least[lane] = lower(distance * distance, least[lane]);
            }
        }
        for lane in 0..LANES {
            sum[lane] += texels.importance[texel][lane] * least[lane];
        }
    }
    sum
}
