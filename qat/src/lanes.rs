//! Sums in a fixed order, whatever vector unit computes them.

/// Interleaved accumulators of a sum: element i of a slice goes to lane i mod `LANES`.
pub(crate) const LANES: usize = 32;

/// One element for each accumulator.
pub(crate) type Lanes = [f32; LANES];

/// The identity of floating-point addition: x + -0.0 is x for every x, while +0.0 would turn -0.0
/// into +0.0 and so keep the compiler from masking the addition.
pub(crate) const NOTHING: f32 = -0.0;

/// Calls `f` with the elements of `w`, a lane each, and the number of lanes in use; the lanes that
/// the last call leaves over are zero.
#[inline(always)]
pub(crate) fn for_chunks(w: &[f32], mut f: impl FnMut(&Lanes, usize)) {
    let (chunks, rest) = w.as_chunks::<LANES>();
    for chunk in chunks {
        f(chunk, LANES);
    }
    if !rest.is_empty() {
        let mut padded = [0.0; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        f(&padded, rest.len());
    }
}

/// Adds up the lanes pairwise: lane k and lane k + half, until one is left.
#[inline(always)]
pub(crate) fn reduce(mut lanes: Lanes) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for k in 0..half {
            lanes[k] += lanes[k + half];
        }
        half /= 2;
    }
    lanes[0]
}
