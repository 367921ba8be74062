//! The adapter that lowers a layer's output error most.

use super::product::multiply;
use compress_model_feedback::Factor;
use compress_model_lora::{Adapter, DenseMatrix, Error, SvdOptions, TruncatedSvd, truncated_svd};

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
