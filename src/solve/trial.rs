//! What coding a matrix one way or another would leave.

use std::sync::Arc;

use compress_model_feedback::{Factor, Hessian, squared_norm};

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

/// The output error that solving `weights` with `codec` leaves, tr(E·H·Eᵀ), for each of `ranks`: of
/// adapters fitted to the error afterwards.
///
/// # Errors
/// As coding, and the SVD.
pub(crate) fn output_errors(
    weights: &[f32],
    codec: &Arc<dyn Codec>,
    hessian: &Hessian,
    ranks: &[usize],
    options: &SolveOptions,
) -> Result<Vec<f64>, SolveError> {
    let cols = hessian.width();
    let pool = WorkerPools::default().of(codec);
    let factor = Factor::new(hessian, codec.column_unit().unwrap_or(1), options.order);
    let matrix = Matrix { weights, cols, pool: &pool, rank: 0, seed: 0 };
    let solution = matrix.solve(hessian, &factor, options)?;
    let error: Vec<f32> = weights.iter().zip(&solution.decoded).map(|(w, d)| w - d).collect();
    let whole = squared_norm(&error, hessian.values(), cols);
    let most = ranks.iter().copied().max().unwrap_or(0);
    let taken = if most > 0 { energies(&error, &factor, most)? } else { Vec::new() };
    let left = |rank: &usize| (whole - taken[..*rank].iter().sum::<f64>()).max(0.0);
    Ok(ranks.iter().map(left).collect())
}
