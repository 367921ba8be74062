//! 4-bit groups for embeddings: ŵ = scale·q + min, q in 0..=15.
//!
//! This is MLX's affine format with `bits = 4`: its `scales` are the scales and its `biases` the
//! minima.

mod fit;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;

use half::f16;
use multiversion::multiversion;

use crate::groups::{group_len, groups_per_row, max_abs, rows};
use crate::{Error, pack};

use fit::Overflow;

/// Weights that share scale and minimum unless said otherwise.
const DEFAULT_GROUP: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// 4-bit groups with an fp16 scale and minimum each.
///
/// # What the fit does
/// It starts from the extremes of the group, then alternates least squares for scale and minimum
/// with the nearest codes. Scale and minimum are rounded to fp16 before the codes are chosen and
/// the error is measured, and only a lower error is accepted.
///
/// # Equal and tiny weights
/// A group whose largest weight is less than 15·2⁻²⁵ above its minimum in fp16 has scale 0 and
/// decodes to its mean rounded to fp16, zeros of either sign to +0. This is no error: what the
/// rounding of the scale adds is less than eight of fp16's smallest numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int4 {
    group: NonZeroUsize,
}

impl Default for Int4 {
    /// Groups of 64.
    fn default() -> Self {
        Self { group: DEFAULT_GROUP }
    }
}

impl Int4 {
    /// One scale and minimum for each `group` weights of a row; the last group of a row may be
    /// shorter.
    #[must_use]
    pub fn grouped(group: NonZeroUsize) -> Self {
        Self { group }
    }

    /// Weights that share scale and minimum.
    #[must_use]
    pub fn group(&self) -> NonZeroUsize {
        self.group
    }

    /// Bytes of the codes of a row of `cols` weights, two codes to a byte.
    #[must_use]
    pub fn code_bytes_per_row(&self, cols: usize) -> usize {
        pack::packed4_len(cols)
    }

    /// Scales, and minima, of a row of `cols` weights.
    #[must_use]
    pub fn scales_per_row(&self, cols: usize) -> usize {
        groups_per_row(Some(self.group), cols)
    }

    /// Codes the rows of `w`, row-major [rows, cols] and finite.
    ///
    /// Writes `codes` [rows, [`Self::code_bytes_per_row`]], each row from a new byte with the code
    /// of column 2k in bits 0-3 of byte k and zero bits past the last column, and `scales` and
    /// `mins` [rows, [`Self::scales_per_row`]].
    ///
    /// # Errors
    /// [`Error::MinOverflow`] or [`Error::ScaleOverflow`] for the first group whose minimum or
    /// spread is past the range of fp16. The contents of the outputs are then unspecified.
    ///
    /// # Panics
    /// If the lengths do not belong to the same number of rows.
    pub fn encode_rows(
        &self,
        w: &[f32],
        cols: usize,
        codes: &mut [u8],
        scales: &mut [f16],
        mins: &mut [f16],
    ) -> Result<(), Error> {
        let (code_bytes, groups) = (self.code_bytes_per_row(cols), self.scales_per_row(cols));
        let coded = [(codes.len(), code_bytes), (scales.len(), groups), (mins.len(), groups)];
        let rows = rows(w.len(), cols, &coded);
        let len = group_len(Some(self.group), cols);
        let mut unpacked = vec![0; cols];
        for row in 0..rows {
            let w = &w[row * cols..][..cols];
            let affine =
                (&mut scales[row * groups..][..groups], &mut mins[row * groups..][..groups]);
            let codes = &mut codes[row * code_bytes..][..code_bytes];
            encode_row(w, len, affine, &mut unpacked, codes).map_err(|(group, overflow)| {
                let magnitude = w.chunks(len).nth(group).map_or(0.0, max_abs);
                match overflow {
                    Overflow::Scale => Error::ScaleOverflow { row, group, magnitude },
                    Overflow::Min => Error::MinOverflow { row, group, magnitude },
                }
            })?;
        }
        Ok(())
    }

    /// Decodes what [`Self::encode_rows`] wrote: f32(scale)·q + f32(min), the product and the sum
    /// each rounded to f32.
    ///
    /// # Panics
    /// If the lengths do not belong to the same number of rows.
    pub fn decode_rows(
        &self,
        codes: &[u8],
        scales: &[f16],
        mins: &[f16],
        cols: usize,
        out: &mut [f32],
    ) {
        let (code_bytes, groups) = (self.code_bytes_per_row(cols), self.scales_per_row(cols));
        let coded = [(codes.len(), code_bytes), (scales.len(), groups), (mins.len(), groups)];
        let rows = rows(out.len(), cols, &coded);
        let len = group_len(Some(self.group), cols);
        let mut unpacked = vec![0; cols];
        for row in 0..rows {
            let codes = &codes[row * code_bytes..][..code_bytes];
            let affine = (&scales[row * groups..][..groups], &mins[row * groups..][..groups]);
            decode_row(codes, affine, len, &mut unpacked, &mut out[row * cols..][..cols]);
        }
    }
}

/// Codes one row; the error is the group at fault and what is past fp16.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn encode_row(
    w: &[f32],
    len: usize,
    affine: (&mut [f16], &mut [f16]),
    unpacked: &mut [u8],
    codes: &mut [u8],
) -> Result<(), (usize, Overflow)> {
    encode_row_inline(w, len, affine, unpacked, codes)
}

#[inline(always)]
fn encode_row_inline(
    w: &[f32],
    len: usize,
    (scales, mins): (&mut [f16], &mut [f16]),
    unpacked: &mut [u8],
    codes: &mut [u8],
) -> Result<(), (usize, Overflow)> {
    let groups = w.chunks(len).zip(unpacked.chunks_mut(len)).zip(scales.iter_mut().zip(mins));
    for (group, ((w, unpacked), (scale, min))) in groups.enumerate() {
        (*scale, *min) = fit::fit(w).map_err(|overflow| (group, overflow))?;
        fit::choose(w, scale.to_f32(), min.to_f32(), unpacked);
    }
    pack::pack4_inline(unpacked, codes);
    Ok(())
}

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn decode_row(
    codes: &[u8],
    affine: (&[f16], &[f16]),
    len: usize,
    unpacked: &mut [u8],
    out: &mut [f32],
) {
    decode_row_inline(codes, affine, len, unpacked, out);
}

#[inline(always)]
fn decode_row_inline(
    codes: &[u8],
    (scales, mins): (&[f16], &[f16]),
    len: usize,
    unpacked: &mut [u8],
    out: &mut [f32],
) {
    pack::unpack4_inline(codes, unpacked);
    let groups = unpacked.chunks(len).zip(out.chunks_mut(len)).zip(scales.iter().zip(mins));
    for ((unpacked, out), (scale, min)) in groups {
        let (scale, min) = (scale.to_f32(), min.to_f32());
        for (out, &code) in out.iter_mut().zip(unpacked) {
            *out = scale * f32::from(code) + min;
        }
    }
}
