//! Sums over |w| above a threshold, the only thing that a Newton step has to recompute.
//!
//! Everything here is inlined into a caller that is compiled once per vector unit. Each sum runs
//! over [`LANES`] interleaved accumulators that are joined pairwise, so its rounding does not
//! depend on the width of the vector unit.

/// Interleaved accumulators of a sum.
pub(crate) const LANES: usize = 32;

/// Thresholds that [`scan`] tries at once.
pub(super) const CANDIDATES: usize = 16;

/// The identity of floating-point addition: x + -0.0 is x for every x, +0.0 would turn -0.0 into
/// +0.0 and so keep the compiler from masking the addition.
const NOTHING: f32 = -0.0;

/// The weights above a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Large {
    /// Σ |w| over |w| > threshold.
    pub(super) sum: f32,
    /// How many there are.
    pub(super) count: u32,
}

/// Adds up the lanes pairwise: lane k and lane k + half, until one is left.
#[inline(always)]
pub(crate) fn reduce(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for k in 0..half {
            lanes[k] += lanes[k + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Σ |w|.
#[inline(always)]
pub(super) fn abs_sum(w: &[f32]) -> f32 {
    let mut sum = [NOTHING; LANES];
    let (chunks, rest) = w.as_chunks::<LANES>();
    for chunk in chunks {
        for k in 0..LANES {
            sum[k] += chunk[k].abs();
        }
    }
    for (sum, x) in sum.iter_mut().zip(rest) {
        *sum += x.abs();
    }
    reduce(sum)
}

/// The weights with |w| > `threshold`.
#[inline(always)]
pub(super) fn large(w: &[f32], threshold: f32) -> Large {
    let mut sum = [NOTHING; LANES];
    let mut count = [0u32; LANES];
    let (chunks, rest) = w.as_chunks::<LANES>();
    for chunk in chunks {
        for k in 0..LANES {
            let x = chunk[k].abs();
            let is_large = x > threshold;
            sum[k] += if is_large { x } else { NOTHING };
            count[k] += u32::from(is_large);
        }
    }
    for ((sum, count), x) in sum.iter_mut().zip(&mut count).zip(rest) {
        let x = x.abs();
        let is_large = x > threshold;
        *sum += if is_large { x } else { NOTHING };
        *count += u32::from(is_large);
    }
    Large { sum: reduce(sum), count: count.iter().sum() }
}

/// For each of the thresholds, the sum and the number of the weights with |w| above it.
///
/// The lanes are the thresholds and the weights go by one at a time, which needs no sum across
/// lanes: the cheaper order for groups of a few dozen weights. Even and odd weights have their
/// own accumulators, since an addition takes longer than it takes to start the next one.
#[inline(always)]
pub(super) fn scan(
    w: &[f32],
    thresholds: &[f32; CANDIDATES],
) -> ([f32; CANDIDATES], [f32; CANDIDATES]) {
    let mut sum = [[NOTHING; CANDIDATES]; 2];
    let mut count = [[0u32; CANDIDATES]; 2];
    let (pairs, rest) = w.as_chunks::<2>();
    for pair in pairs {
        for (half, x) in pair.iter().enumerate() {
            let x = x.abs();
            for k in 0..CANDIDATES {
                let is_large = x > thresholds[k];
                sum[half][k] += if is_large { x } else { NOTHING };
                count[half][k] += u32::from(is_large);
            }
        }
    }
    for x in rest {
        let x = x.abs();
        for k in 0..CANDIDATES {
            let is_large = x > thresholds[k];
            sum[0][k] += if is_large { x } else { NOTHING };
            count[0][k] += u32::from(is_large);
        }
    }
    let mut sums = [0.0; CANDIDATES];
    let mut counts = [0.0; CANDIDATES];
    for k in 0..CANDIDATES {
        sums[k] = sum[0][k] + sum[1][k];
        counts[k] = (count[0][k] + count[1][k]) as f32;
    }
    (sums, counts)
}
