//! The adapter that lowers a layer's output error most.

use compress_model_feedback::Factor;
use compress_model_lora::{Adapter, DenseMatrix, Error, SvdOptions, TruncatedSvd, truncated_svd};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Rows a task multiplies.
const TASK_ROWS: usize = 64;

/// The adapter of rank `rank` that is nearest to `wanted`, row-major, in the norm of H = M·Mᵀ: the
/// truncated SVD of wanted·M, its right side times M⁻¹ (QERA, arXiv 2410.06040; EoRA, arXiv
/// 2410.21271).
///
/// # Errors
/// As the SVD and the rounding of the factors to fp16.
pub(super) fn nearest(
    wanted: &[f32],
    factor: &Factor,
    rank: usize,
    seed: u64,
) -> Result<Adapter, Error> {
    let n = factor.width();
    let order = factor.order();
    let mut ordered = vec![0.0; wanted.len()];
    for (row, out) in wanted.chunks_exact(n).zip(ordered.chunks_exact_mut(n)) {
        for (out, &column) in out.iter_mut().zip(order) {
            *out = row[column];
        }
    }
    let image = multiply(&ordered, factor.root(), n);
    let options = SvdOptions { seed, ..SvdOptions::new(rank) };
    let svd = truncated_svd(&DenseMatrix::new(&image, n), &options)?;
    let back = multiply(&svd.vt, factor.inverse(), n);
    let TruncatedSvd { u, mut s, mut vt, rows, cols } = svd;
    for ((s, vt), back) in s.iter_mut().zip(vt.chunks_exact_mut(n)).zip(back.chunks_exact(n)) {
        // Unit length again, so that both factors take the root of the product.
        let length = back.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
        *s *= length;
        for (value, &column) in back.iter().zip(order) {
            vt[column] = if length > 0.0 { value / length } else { 0.0 };
        }
    }
    Adapter::from_svd(&TruncatedSvd { u, s, vt, rows, cols })
}

/// x·H for row-major x with n columns and H [n, n].
fn multiply(x: &[f32], h: &[f32], n: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let h = MatRef::from_row_major_slice(h, n, n);
    out.par_chunks_mut(TASK_ROWS * n).zip(x.par_chunks(TASK_ROWS * n)).for_each(|(out, x)| {
        let rows = x.len() / n;
        let x = MatRef::from_row_major_slice(x, rows, n);
        let out = MatMut::from_row_major_slice_mut(out, rows, n);
        matmul(out, Accum::Replace, x, h, 1.0, Par::Seq);
    });
    out
}
