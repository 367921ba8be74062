//! Triangular factors on any number of threads with the same bits.
//!
//! Matrices are cut into tiles of a fixed size, and each tile is computed by one thread; what a
//! tile is computed from does not depend on who else is at work.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{
    LltParams, LltRegularization, cholesky_in_place, cholesky_in_place_scratch,
};
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::prelude::{Reborrow, ReborrowMut};
use faer::{Accum, Auto, Mat, MatMut, MatRef, Par, Spec};
use rayon::prelude::*;

/// Rows and columns of a tile.
const TILE: usize = 128;

/// The lower Cholesky factor of a symmetric matrix, if it is positive definite. Only the lower
/// half is read, and what is above the diagonal of the result means nothing.
pub(crate) fn cholesky(mut matrix: Mat<f64>) -> Option<Mat<f64>> {
    let n = matrix.nrows();
    for first in (0..n).step_by(TILE) {
        let width = TILE.min(n - first);
        let (_, mut rest) = matrix.as_mut().split_at_row_mut(first);
        let (mut diagonal, mut below) = rest.rb_mut().split_at_row_mut(width);
        let mut diagonal = diagonal.rb_mut().subcols_mut(first, width);
        factor_tile(diagonal.rb_mut())?;
        let diagonal = diagonal.rb();
        // The rows below of these columns: X·Lᵀ = A.
        row_tiles(below.rb_mut()).into_par_iter().for_each(|(_, tile)| {
            let columns = tile.subcols_mut(first, width);
            solve_lower_triangular_in_place(diagonal, columns.transpose_mut(), Par::Seq);
        });
        let panel = below.rb().subcols(first, width).to_owned();
        // All columns after them, up to the diagonal, the longest rows first.
        row_tiles(below).into_par_iter().rev().with_max_len(1).for_each(|(row, tile)| {
            let rows = tile.nrows();
            matmul(
                tile.subcols_mut(first + width, row + rows),
                Accum::Add,
                panel.as_ref().subrows(row, rows),
                panel.as_ref().subrows(0, row + rows).transpose(),
                -1.0,
                Par::Seq,
            );
        });
    }
    Some(matrix)
}

/// Cuts `matrix` into tiles of rows, each with its first row.
fn row_tiles(mut matrix: MatMut<'_, f64>) -> Vec<(usize, MatMut<'_, f64>)> {
    let mut tiles = Vec::new();
    let mut row = 0;
    while matrix.nrows() > 0 {
        let rows = TILE.min(matrix.nrows());
        let (tile, rest) = matrix.split_at_row_mut(rows);
        tiles.push((row, tile));
        row += rows;
        matrix = rest;
    }
    tiles
}

fn factor_tile(mut tile: MatMut<'_, f64>) -> Option<()> {
    let n = tile.nrows();
    let params: Spec<LltParams, f64> = Spec::new(<LltParams as Auto<f64>>::auto());
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(n, Par::Seq, params));
    let stack = MemStack::new(&mut memory);
    let none = LltRegularization::default();
    cholesky_in_place(tile.rb_mut(), none, Par::Seq, stack, params).ok()?;
    (0..n).all(|i| tile[(i, i)].is_finite()).then_some(())
}

/// The inverse of a lower triangular matrix; what is above its diagonal is not read, and zero in
/// the result.
pub(crate) fn inverse(lower: MatRef<'_, f64>) -> Mat<f64> {
    let n = lower.nrows();
    let mut inverse = Mat::<f64>::zeros(n, n);
    let mut tiles = Vec::new();
    let mut rest = inverse.as_mut();
    let mut first = 0;
    while rest.ncols() > 0 {
        let (tile, after) = rest.split_at_col_mut(TILE.min(n - first));
        tiles.push((first, tile));
        first += TILE;
        rest = after;
    }
    // The first columns are the longest.
    tiles.into_par_iter().with_max_len(1).for_each(|(first, tile)| {
        let mut tile = tile.subrows_mut(first, n - first);
        (0..tile.ncols()).for_each(|i| tile[(i, i)] = 1.0);
        let lower = lower.submatrix(first, first, n - first, n - first);
        solve_lower_triangular_in_place(lower, tile, Par::Seq);
    });
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positive(n: usize) -> Mat<f64> {
        let x = |i: usize, j: usize| ((i * 37 + j * 101 + i * j) % 23) as f64 - 11.0;
        Mat::from_fn(n, n, |i, j| {
            (0..40).map(|k| x(i, k) * x(j, k)).sum::<f64>() + if i == j { 50.0 } else { 0.0 }
        })
    }

    #[test]
    fn factors_and_inverses_multiply_back_at_every_cut() {
        for n in [1, 5, TILE - 1, TILE, TILE + 1, 2 * TILE + 37] {
            let a = positive(n);
            let factor = cholesky(a.clone()).unwrap();
            let lower = Mat::from_fn(n, n, |i, j| if j <= i { factor[(i, j)] } else { 0.0 });
            let back = &lower * lower.transpose();
            let identity = inverse(factor.as_ref()) * &lower;
            for i in 0..n {
                for j in 0..n {
                    assert!((back[(i, j)] - a[(i, j)]).abs() < 1e-8 * a[(i, i)], "{n}: {i} {j}");
                    let one = f64::from(u8::from(i == j));
                    assert!((identity[(i, j)] - one).abs() < 1e-10, "{n}: {i} {j}");
                }
            }
        }
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let n = 3 * TILE + 11;
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let lower = cholesky(positive(n)).unwrap();
                let inverse = inverse(lower.as_ref());
                (0..n)
                    .flat_map(|j| (j..n).map(move |i| (i, j)))
                    .map(|at| (lower[at].to_bits(), inverse[at].to_bits()))
                    .collect::<Vec<_>>()
            })
        };
        assert!(on(1) == on(4));
    }

    #[test]
    fn what_is_not_positive_definite_has_none() {
        let n = TILE + 3;
        let mut a = positive(n);
        a[(n - 2, n - 2)] = -1.0;
        assert!(cholesky(a).is_none());
        assert!(cholesky(Mat::from_fn(2, 2, |_, _| f64::NAN)).is_none());
    }
}
