//! What coding a matrix one way or another would leave.

use std::sync::Arc;

use compress_model_feedback::{Factor, Hessian, difference, squared_norm};

use super::adapter::energies;
use super::matrix::{Matrix, SolveError};
use super::options::SolveOptions;
use crate::codec::{Codec, CodecError, WorkerPool, WorkerPools};

/// What coding `weights`, row-major with `cols` columns, each on its own decodes to.
///
/// # Errors
/// As coding.
pub(crate) fn plain_codes(
    weights: &[f32],
    cols: usize,
    pool: &WorkerPool,
) -> Result<Vec<f32>, CodecError> {
    Matrix { weights, cols, pool, rank: 0, seed: 0 }.plain()
}

/// The output error that solving `weights` with `codec` leaves, tr(E·H·Eᵀ), and what those weights
/// decode to. `factor` is of `hessian`, in natural order.
///
/// # Errors
/// As coding.
pub(crate) fn output_error(
    weights: &[f32],
    codec: &Arc<dyn Codec>,
    hessian: &Hessian,
    factor: &Factor,
    options: &SolveOptions,
) -> Result<(f64, Vec<f32>), SolveError> {
    let cols = hessian.width();
    let pool = WorkerPools::default().of(codec);
    let factor = factor
        .for_units(codec.column_unit().unwrap_or(1))
        .expect("invariant: a factor in natural order");
    let matrix = Matrix { weights, cols, pool: &pool, rank: 0, seed: 0 };
    let decoded = matrix.solve(hessian, &factor, options)?.decoded;
    let error = difference(weights, &decoded);
    Ok((squared_norm(&error, hessian.values(), cols), decoded))
}

/// Share of the output error of `decoded` that an adapter of each of `ranks` takes away.
///
/// # Errors
/// As the SVD.
pub(crate) fn adapter_shares(
    weights: &[f32],
    decoded: &[f32],
    hessian: &Hessian,
    factor: &Factor,
    ranks: &[usize],
) -> Result<Vec<f64>, SolveError> {
    let most = ranks.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return Ok(vec![0.0; ranks.len()]);
    }
    let error = difference(weights, decoded);
    let whole = squared_norm(&error, hessian.values(), hessian.width());
    let taken = energies(&error, factor, most)?;
    if whole <= 0.0 {
        return Ok(vec![0.0; ranks.len()]);
    }
    let share = |rank: &usize| (taken[..*rank].iter().sum::<f64>() / whole).clamp(0.0, 1.0);
    Ok(ranks.iter().map(share).collect())
}
