//! The exact search: branch and bound over all endpoint pairs of one block.
//!
//! A square of pairs with ends within r of its middle has every level within r of the middle's
//! level, since levels are convex combinations of the ends. So the middle's error with all
//! distances shortened by r bounds the error of every pair in the square from below. Squares of
//! 16 x 16 pairs are halved in both directions down to single pairs, eight at a time, and dropped
//! as soon as their bound shows that they cannot beat the best pair known.

use super::DecodeMode;
use super::block::{BLOCK_TEXELS, integer_level};
use super::lanes::{LANES, Ladder, Lanes, Texels, bounds, lower};
use crate::simd::{Level, Simd, dispatch};

/// Pairs along the side of the first squares.
const FIRST_SIDE: u16 = 16;

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
    /// The best of `known` and all pairs on `ladder`; among equals the known one, then the one
    /// with the lower ends.
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
        self.squares.clear();
        for low in (0..=255_u8).step_by(side.into()) {
            self.squares.extend((low..=255).step_by(side.into()).map(|high| (low, high)));
        }
        while side > 1 {
            let middle = f32::from(side - 1) * 0.5;
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
