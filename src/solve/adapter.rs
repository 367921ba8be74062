//! The adapter that lowers a layer's output error most.

use compress_model_feedback::Factor;
use compress_model_lora::{Adapter, DenseMatrix, Error, SvdOptions, TruncatedSvd, truncated_svd};

use super::product::multiply;

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
    let svd = decompose(wanted, factor, &SvdOptions { seed, ..SvdOptions::new(rank) })?;
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

/// The output error that each of the first `rank` singular directions of `error` holds.
///
/// # Errors
/// As the SVD.
pub(super) fn energies(error: &[f32], factor: &Factor, rank: usize) -> Result<Vec<f64>, Error> {
    // An estimate: fewer passes than for the adapter itself.
    let svd = decompose(error, factor, &SvdOptions { depth: 4, ..SvdOptions::new(rank) })?;
    let mut energies: Vec<f64> = svd.s.iter().map(|s| f64::from(*s).powi(2)).collect();
    energies.resize(rank, 0.0);
    Ok(energies)
}

/// The truncated SVD of `matrix`·M, columns in the factor's order.
fn decompose(matrix: &[f32], factor: &Factor, options: &SvdOptions) -> Result<TruncatedSvd, Error> {
    let image = multiply(&factor.ordered(matrix), factor.root(), factor.width());
    truncated_svd(&DenseMatrix::new(&image, factor.width()), options)
}
