//! The two loops over single codes, inlined into callers that are compiled per vector unit.

/// Code of a weight in a group whose scale is zero: the level +0.5·0.
const ZERO_CODE: u8 = 2;

/// The code of the level nearest to each weight, the inner one where two are as near.
#[inline(always)]
pub(super) fn choose(w: &[f32], scale: f32, codes: &mut [u8]) {
    if scale == 0.0 {
        codes.fill(ZERO_CODE);
        return;
    }
    for (code, &w) in codes.iter_mut().zip(w) {
        *code = (u32::from(w >= -scale) + u32::from(w >= 0.0) + u32::from(w > scale)) as u8;
    }
}

/// scale · (code - 1.5) for each code.
#[inline(always)]
pub(super) fn levels(codes: &[u8], scale: f32, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = scale * (f32::from(code) - 1.5);
    }
}
