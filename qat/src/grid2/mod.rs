//! The balanced 2-bit grid: ŵ = s·q, q in {-1.5, -0.5, 0.5, 1.5}.
//!
//! Code c stands for q = c - 1.5, so that codes ascend with the weight. A magnitude equal to the
//! scale, halfway between two levels, takes the inner one; zero of either sign takes +0.5.

mod kernels;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;

use half::f16;
use multiversion::multiversion;

use crate::groups::{finite_f16, group_len, groups_per_row, max_abs, rows};
use crate::{Error, newton, pack};

/// The balanced 2-bit grid with one fp16 scale a row or a group of weights.
///
/// # What the fit does
/// The scale of a group is the least-squares one ([`newton::fit_scale`]), rounded to fp16. The
/// codes are the nearest levels for the rounded scale.
///
/// # Zero and tiny weights
/// A group of zeros has scale 0, codes of +0.5 and decodes to +0. So does a group whose scale
/// rounds to zero, below 2⁻²⁵: this is no error, since it costs at most 1.5·2⁻²⁵ of root mean
/// square a weight over the unrounded fit, less than the spacing of fp16 numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid2 {
    group: Option<NonZeroUsize>,
}

impl Grid2 {
    /// One scale a row.
    #[must_use]
    pub fn per_row() -> Self {
        Self { group: None }
    }

    /// One scale for each `group` weights of a row; the last group of a row may be shorter.
    #[must_use]
    pub fn grouped(group: NonZeroUsize) -> Self {
        Self { group: Some(group) }
    }

    /// Weights that share a scale; none for one scale a row.
    #[must_use]
    pub fn group(&self) -> Option<NonZeroUsize> {
        self.group
    }

    /// Bytes of the codes of a row of `cols` weights, four codes to a byte.
    #[must_use]
    pub fn code_bytes_per_row(&self, cols: usize) -> usize {
        pack::packed2_len(cols)
    }

    /// Scales of a row of `cols` weights.
    #[must_use]
    pub fn scales_per_row(&self, cols: usize) -> usize {
        groups_per_row(self.group, cols)
    }

    /// Codes the rows of `w`, row-major [rows, cols] and finite.
    ///
    /// Writes `codes` [rows, [`Self::code_bytes_per_row`]], each row from a new byte with the code
    /// of column 4k in bits 0-1 of byte k and zero bits past the last column, and `scales` [rows,
    /// [`Self::scales_per_row`]].
    ///
    /// # Errors
    /// [`Error::ScaleOverflow`] for the first group whose scale is past the range of fp16. The
    /// contents of `codes` and `scales` are then unspecified.
    ///
    /// # Panics
    /// If the lengths do not belong to the same number of rows.
    pub fn encode_rows(
        &self,
        w: &[f32],
        cols: usize,
        codes: &mut [u8],
        scales: &mut [f16],
    ) -> Result<(), Error> {
        let (code_bytes, groups) = (self.code_bytes_per_row(cols), self.scales_per_row(cols));
        let rows = rows(w.len(), cols, &[(codes.len(), code_bytes), (scales.len(), groups)]);
        let len = group_len(self.group, cols);
        let mut unpacked = vec![0; cols];
        for row in 0..rows {
            let w = &w[row * cols..][..cols];
            let scales = &mut scales[row * groups..][..groups];
            encode_row(w, len, scales, &mut unpacked, &mut codes[row * code_bytes..][..code_bytes])
                .map_err(|group| Error::ScaleOverflow {
                    row,
                    group,
                    magnitude: w.chunks(len).nth(group).map_or(0.0, max_abs),
                })?;
        }
        Ok(())
    }

    /// Codes the rows of `w` with the scales that they have: as [`Self::encode_rows`], but `scales`
    /// are given.
    ///
    /// # Panics
    /// If the lengths do not belong to the same number of rows.
    pub fn encode_rows_at(&self, w: &[f32], cols: usize, scales: &[f16], codes: &mut [u8]) {
        let (code_bytes, groups) = (self.code_bytes_per_row(cols), self.scales_per_row(cols));
        let rows = rows(w.len(), cols, &[(codes.len(), code_bytes), (scales.len(), groups)]);
        let len = group_len(self.group, cols);
        let mut unpacked = vec![0; cols];
        for row in 0..rows {
            let scales = &scales[row * groups..][..groups];
            let w = w[row * cols..][..cols].chunks(len);
            for ((w, unpacked), scale) in w.zip(unpacked.chunks_mut(len)).zip(scales) {
                kernels::choose(w, scale.to_f32(), unpacked);
            }
            pack::pack2(&unpacked, &mut codes[row * code_bytes..][..code_bytes]);
        }
    }

    /// Decodes what [`Self::encode_rows`] wrote: each weight is exactly f32(scale) · q.
    ///
    /// # Panics
    /// If the lengths do not belong to the same number of rows.
    pub fn decode_rows(&self, codes: &[u8], scales: &[f16], cols: usize, out: &mut [f32]) {
        let (code_bytes, groups) = (self.code_bytes_per_row(cols), self.scales_per_row(cols));
        let rows = rows(out.len(), cols, &[(codes.len(), code_bytes), (scales.len(), groups)]);
        let len = group_len(self.group, cols);
        let mut unpacked = vec![0; cols];
        for row in 0..rows {
            let codes = &codes[row * code_bytes..][..code_bytes];
            let scales = &scales[row * groups..][..groups];
            decode_row(codes, scales, len, &mut unpacked, &mut out[row * cols..][..cols]);
        }
    }

    /// The least-squares scales of the rows of `w`, row-major [rows, cols] and finite, not rounded
    /// to fp16: the optimum s*(W) that a [`crate::ScaleEma`] follows. Writes [rows,
    /// [`Self::scales_per_row`]].
    ///
    /// # Panics
    /// If the lengths do not belong to the same number of rows.
    pub fn fit_scales(&self, w: &[f32], cols: usize, scales: &mut [f32]) {
        let groups = self.scales_per_row(cols);
        let rows = rows(w.len(), cols, &[(scales.len(), groups)]);
        let len = group_len(self.group, cols);
        for row in 0..rows {
            let w = &w[row * cols..][..cols];
            for (scale, w) in scales[row * groups..].iter_mut().zip(w.chunks(len)) {
                *scale = newton::fit_scale(w);
            }
        }
    }
}

/// Codes one row; the error is the group whose scale is past fp16.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn encode_row(
    w: &[f32],
    len: usize,
    scales: &mut [f16],
    unpacked: &mut [u8],
    codes: &mut [u8],
) -> Result<(), usize> {
    encode_row_inline(w, len, scales, unpacked, codes)
}

#[inline(always)]
fn encode_row_inline(
    w: &[f32],
    len: usize,
    scales: &mut [f16],
    unpacked: &mut [u8],
    codes: &mut [u8],
) -> Result<(), usize> {
    let groups = w.chunks(len).zip(unpacked.chunks_mut(len)).zip(scales);
    for (group, ((w, unpacked), scale)) in groups.enumerate() {
        *scale = finite_f16(newton::fit_inline(w)).ok_or(group)?;
        kernels::choose(w, scale.to_f32(), unpacked);
    }
    pack::pack2_inline(unpacked, codes);
    Ok(())
}

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn decode_row(codes: &[u8], scales: &[f16], len: usize, unpacked: &mut [u8], out: &mut [f32]) {
    decode_row_inline(codes, scales, len, unpacked, out);
}

#[inline(always)]
fn decode_row_inline(
    codes: &[u8],
    scales: &[f16],
    len: usize,
    unpacked: &mut [u8],
    out: &mut [f32],
) {
    pack::unpack2_inline(codes, unpacked);
    for ((unpacked, out), scale) in unpacked.chunks(len).zip(out.chunks_mut(len)).zip(scales) {
        kernels::levels(unpacked, scale.to_f32(), out);
    }
}
