//! The best approximation within a subspace (Rayleigh-Ritz).

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, Par};

use super::{TruncatedSvd, jacobi};

/// Rows converted to f64 at a time.
const GRAM_ROWS: usize = 512;

/// The best rank-`rank` approximation of W within the orthonormal `basis`, given `image`, which
/// is scale·W·Q. Singular values are divided by `scale`.
pub(super) fn rayleigh_ritz(
    basis: &Mat<f32>,
    image: &Mat<f32>,
    rank: usize,
    scale: f32,
) -> TruncatedSvd {
    let (rows, cols, width) = (image.nrows(), basis.nrows(), basis.ncols());
    let (values, vectors) = eigen(&gram(image));
    // Eigenvalues come in ascending order.
    let s: Vec<f32> = (0..rank).map(|k| values[width - 1 - k].max(0.0).sqrt() as f32).collect();
    // Below it, directions are rounding noise of an image in f32.
    let floor = s[0] * f32::EPSILON * width as f32;
    let kept = s.iter().filter(|&&s| s > floor).count();
    let leading =
        Mat::from_fn(
            width,
            rank,
            |i, k| {
                if k < kept { vectors[(i, width - 1 - k)] as f32 } else { 0.0 }
            },
        );
    let mut u = vec![0.0; rows * rank];
    let view = MatMut::from_row_major_slice_mut(&mut u, rows, rank);
    matmul(view, Accum::Replace, image, &leading, 1.0, Par::Seq);
    for row in u.chunks_exact_mut(rank) {
        for (value, &s) in row[..kept].iter_mut().zip(&s) {
            *value /= s;
        }
    }
    let mut vt = vec![0.0; rank * cols];
    let view = MatMut::from_row_major_slice_mut(&mut vt, rank, cols);
    matmul(view, Accum::Replace, leading.transpose(), basis.transpose(), 1.0, Par::Seq);
    let s = s.iter().enumerate().map(|(k, s)| if k < kept { s / scale } else { 0.0 }).collect();
    TruncatedSvd { u, s, vt, rows, cols }
}

/// BᵀB in f64, summed over runs of rows in order: in f32 the squares would cost half the digits.
fn gram(image: &Mat<f32>) -> Mat<f64> {
    let width = image.ncols();
    let mut gram = Mat::<f64>::zeros(width, width);
    for first in (0..image.nrows()).step_by(GRAM_ROWS) {
        let count = GRAM_ROWS.min(image.nrows() - first);
        let rows = Mat::<f64>::from_fn(count, width, |i, j| f64::from(image[(first + i, j)]));
        matmul(&mut gram, Accum::Add, rows.transpose(), &rows, 1.0, Par::Seq);
    }
    gram
}

/// Eigenvalues in ascending order, and the eigenvectors as columns. faer's solver reports no
/// convergence on some ordinary matrices; Jacobi's method always ends.
fn eigen(a: &Mat<f64>) -> (Vec<f64>, Mat<f64>) {
    tridiagonal_eigen(a).unwrap_or_else(|| jacobi::eigen(a))
}

fn tridiagonal_eigen(a: &Mat<f64>) -> Option<(Vec<f64>, Mat<f64>)> {
    let n = a.nrows();
    let mut values = Diag::<f64>::zeros(n);
    let mut vectors = Mat::<f64>::zeros(n, n);
    let params = Default::default();
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, params);
    let mut buffer = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut buffer);
    let vectors_out = Some(vectors.as_mut());
    self_adjoint_evd(a.as_ref(), values.as_mut(), vectors_out, Par::Seq, stack, params).ok()?;
    let values: Vec<f64> = (0..n).map(|i| values.column_vector()[i]).collect();
    values.iter().all(|value| value.is_finite()).then_some((values, vectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_solvers_agree() {
        let image = Mat::<f32>::from_fn(90, 30, |i, j| ((i * 7 + j * j * 13) % 41) as f32 - 20.0);
        let a = gram(&image);
        let (values, vectors) = tridiagonal_eigen(&a).unwrap();
        let (expected, reference) = jacobi::eigen(&a);
        for (value, expected) in values.iter().zip(&expected) {
            assert!((value - expected).abs() < 1e-12 * expected.abs().max(values[29]));
        }
        let top: f64 = (0..30).map(|i| vectors[(i, 29)] * reference[(i, 29)]).sum();
        assert!((top.abs() - 1.0).abs() < 1e-9, "{top}");
    }
}
