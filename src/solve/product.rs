//! Matrix products in parallel over rows, cut by shape alone.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Rows a task multiplies.
const TASK_ROWS: usize = 64;

/// x·H for row-major x with n columns and H [n, n].
pub(super) fn multiply(x: &[f32], h: &[f32], n: usize) -> Vec<f32> {
    product(x, MatRef::from_row_major_slice(h, n, n), n)
}

/// x·Hᵀ for row-major x with n columns and H [n, n].
pub(super) fn multiply_transposed(x: &[f32], h: &[f32], n: usize) -> Vec<f32> {
    product(x, MatRef::from_row_major_slice(h, n, n).transpose(), n)
}

fn product(x: &[f32], h: MatRef<'_, f32>, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(TASK_ROWS * n).zip(x.par_chunks(TASK_ROWS * n)).for_each(|(out, x)| {
        let rows = x.len() / n;
        let x = MatRef::from_row_major_slice(x, rows, n);
        let out = MatMut::from_row_major_slice_mut(out, rows, n);
        matmul(out, Accum::Replace, x, h, 1.0, Par::Seq);
    });
    out
}
