//! Orthonormal blocks of columns.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use multiversion::multiversion;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// A direction shorter than this, relative to what it was before it was made orthogonal to the
/// others, is rounding noise.
const DEPENDENT: f64 = 1e-5;

/// Partial sums of a dot product; the order of summation is fixed.
const LANES: usize = 8;

/// Standard normal numbers, drawn row by row.
pub(super) fn random_block(rows: usize, cols: usize, rng: &mut Pcg64Mcg) -> Mat<f32> {
    let mut block = Mat::zeros(rows, cols);
    for row in 0..rows {
        for col in 0..cols {
            block[(row, col)] = rng.sample(rand_distr::StandardNormal);
        }
    }
    block
}

/// Makes the columns of `block` orthonormal and orthogonal to `basis`. Columns that depend on
/// the others give way to random ones: without them the iteration would starve on a matrix that
/// has few large singular values. `basis` and `block` together have at most as many columns as
/// rows.
pub(super) fn orthonormalise(block: &mut Mat<f32>, basis: MatRef<'_, f32>, rng: &mut Pcg64Mcg) {
    // Twice: in floating point, once leaves what cancellation has uncovered.
    for _ in 0..2 {
        let before: Vec<f64> = (0..block.ncols()).map(|j| norm(block.col_as_slice(j))).collect();
        project_out(block, basis);
        for (j, before) in before.iter().enumerate() {
            make_unit(block, j, 0..j, DEPENDENT * before);
        }
    }
    for j in 0..block.ncols() {
        if block.col_as_slice(j).iter().all(|&x| x == 0.0) {
            refill(block, j, basis, rng);
        }
    }
}

/// Puts a random direction in column `j`, orthogonal to the basis and to the other columns.
fn refill(block: &mut Mat<f32>, j: usize, basis: MatRef<'_, f32>, rng: &mut Pcg64Mcg) {
    let mut column = random_block(block.nrows(), 1, rng);
    // Where few directions are left, most of a random one goes at first: hence three times.
    for _ in 0..3 {
        project_out(&mut column, basis);
        block.col_as_slice_mut(j).copy_from_slice(column.col_as_slice(0));
        make_unit(block, j, (0..block.ncols()).filter(|&i| i != j), 0.0);
        column.col_as_slice_mut(0).copy_from_slice(block.col_as_slice(j));
    }
}

/// Makes column `j` orthogonal to the unit columns `others` and of length one, or zero if no
/// more than `floor` is left of it.
fn make_unit(block: &mut Mat<f32>, j: usize, others: impl Iterator<Item = usize>, floor: f64) {
    let mut column = block.col_as_slice(j).to_vec();
    for other in others {
        let other = block.col_as_slice(other);
        let along = dot(other, &column);
        subtract(&mut column, other, along);
    }
    let length = norm(&column);
    let scale = if length > floor { 1.0 / length } else { 0.0 };
    for (to, x) in block.col_as_slice_mut(j).iter_mut().zip(column) {
        *to = (f64::from(x) * scale) as f32;
    }
}

/// block -= basis·(basisᵀ·block)
fn project_out(block: &mut Mat<f32>, basis: MatRef<'_, f32>) {
    if basis.ncols() > 0 {
        let mut shadow = Mat::<f32>::zeros(basis.ncols(), block.ncols());
        matmul(&mut shadow, Accum::Replace, basis.transpose(), &*block, 1.0, Par::Seq);
        matmul(&mut *block, Accum::Add, basis, &shadow, -1.0, Par::Seq);
    }
}

/// column -= along·other
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn subtract(column: &mut [f32], other: &[f32], along: f64) {
    for (x, o) in column.iter_mut().zip(other) {
        *x = (f64::from(*x) - along * f64::from(*o)) as f32;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += f64::from(a) * f64::from(b);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    sums.iter().sum::<f64>() + rest
}

fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}
