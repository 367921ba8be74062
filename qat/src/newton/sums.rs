//! Sums over |w| above a threshold, the only thing that a Newton step has to recompute.
//!
//! Everything here is inlined into a caller that is compiled once per vector unit. Each sum runs
//! over [`LANES`] interleaved accumulators that are joined pairwise, so its rounding does not
//! depend on the width of the vector unit.

use crate::lanes::{LANES, Lanes, NOTHING, for_chunks, reduce};

/// The weights above a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Large {
    /// Σ |w| over |w| > threshold.
    pub(super) sum: f32,
    /// How many there are.
    pub(super) count: f32,
}

/// Σ |w|.
#[inline(always)]
pub(super) fn abs_sum(w: &[f32]) -> f32 {
    let mut sum = [NOTHING; LANES];
    for_chunks(w, |chunk: &Lanes, _| {
        for k in 0..LANES {
            sum[k] += chunk[k].abs();
        }
    });
    reduce(sum)
}

/// The weights with |w| > `threshold`, which is not negative.
#[inline(always)]
pub(super) fn large(w: &[f32], threshold: f32) -> Large {
    let mut sum = [NOTHING; LANES];
    let mut count = [0u32; LANES];
    for_chunks(w, |chunk: &Lanes, _| {
        for k in 0..LANES {
            let x = chunk[k].abs();
            let is_large = x > threshold;
            sum[k] += if is_large { x } else { NOTHING };
            count[k] += u32::from(is_large);
        }
    });
    Large { sum: reduce(sum), count: count.iter().sum::<u32>() as f32 }
}

/// For each of the thresholds, the sum and the number of the weights with |w| above it.
#[derive(Clone, Copy)]
pub(super) struct Scan<const N: usize> {
    pub(super) sum: [f32; N],
    pub(super) count: [u32; N],
}

/// Tries all thresholds in one pass.
///
/// The lanes are the thresholds and the weights go by one at a time, which needs no sum across
/// lanes: the cheaper order for groups of a few dozen weights. `WAYS` weights in turn have their
/// own accumulators, since an addition takes longer than it takes to start the next one.
#[inline(always)]
pub(super) fn scan<const N: usize, const WAYS: usize>(w: &[f32], thresholds: &[f32; N]) -> Scan<N> {
    let mut sum = [[NOTHING; N]; WAYS];
    let mut count = [[0u32; N]; WAYS];
    let (turns, rest) = w.as_chunks::<WAYS>();
    for turn in turns {
        for way in 0..WAYS {
            let x = turn[way].abs();
            for k in 0..N {
                let is_large = x > thresholds[k];
                sum[way][k] += if is_large { x } else { NOTHING };
                count[way][k] += u32::from(is_large);
            }
        }
    }
    for x in rest {
        let x = x.abs();
        for k in 0..N {
            let is_large = x > thresholds[k];
            sum[0][k] += if is_large { x } else { NOTHING };
            count[0][k] += u32::from(is_large);
        }
    }
    for way in 1..WAYS {
        for k in 0..N {
            sum[0][k] += sum[way][k];
            count[0][k] += count[way][k];
        }
    }
    Scan { sum: sum[0], count: count[0] }
}
