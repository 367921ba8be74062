//! Eigenvalues of a symmetric matrix by Jacobi rotations.
//!
//! Slower than the tridiagonal methods, but it cannot fail to converge: each rotation takes
//! 2·a_pq² from the off-diagonal sum of squares (Golub and Van Loan, Matrix Computations, 8.5).

use faer::Mat;

/// Sweeps after which a matrix of any size met here is diagonal; seven to ten are usual.
const MAX_SWEEPS: usize = 60;

/// Eigenvalues in ascending order, and the eigenvectors as columns, of the symmetric `a`.
pub(super) fn eigen(a: &Mat<f64>) -> (Vec<f64>, Mat<f64>) {
    let n = a.nrows();
    let mut a = a.clone();
    let mut vectors = Mat::<f64>::identity(n, n);
    let whole: f64 = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|p| a[p].powi(2)).sum();
    for _ in 0..MAX_SWEEPS {
        let off: f64 = (0..n).flat_map(|q| (0..q).map(move |p| (p, q))).map(|p| a[p].powi(2)).sum();
        if off <= whole * f64::EPSILON.powi(2) {
            break;
        }
        for q in 1..n {
            for p in 0..q {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[(i, i)].total_cmp(&a[(j, j)]));
    let values = order.iter().map(|&i| a[(i, i)]).collect();
    (values, Mat::from_fn(n, n, |i, j| vectors[(i, order[j])]))
}

/// The rotation in the plane of `p` and `q` that makes a_pq zero.
fn rotate(a: &mut Mat<f64>, vectors: &mut Mat<f64>, p: usize, q: usize) {
    let apq = a[(p, q)];
    if apq == 0.0 {
        return;
    }
    let theta = (a[(q, q)] - a[(p, p)]) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for k in 0..a.nrows() {
        let (kp, kq) = (a[(k, p)], a[(k, q)]);
        a[(k, p)] = c * kp - s * kq;
        a[(k, q)] = s * kp + c * kq;
    }
    for k in 0..a.nrows() {
        let (pk, qk) = (a[(p, k)], a[(q, k)]);
        a[(p, k)] = c * pk - s * qk;
        a[(q, k)] = s * pk + c * qk;
        let (kp, kq) = (vectors[(k, p)], vectors[(k, q)]);
        vectors[(k, p)] = c * kp - s * kq;
        vectors[(k, q)] = s * kp + c * kq;
    }
    a[(p, q)] = 0.0;
    a[(q, p)] = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // [[2, 1], [1, 2]] has eigenvalues 1 and 3 along (1, -1) and (1, 1).
        let a = Mat::from_fn(2, 2, |i, j| if i == j { 2.0 } else { 1.0 });
        let (values, vectors) = eigen(&a);
        assert!((values[0] - 1.0).abs() < 1e-15 && (values[1] - 3.0).abs() < 1e-15, "{values:?}");
        assert!((vectors[(0, 0)] + vectors[(1, 0)]).abs() < 1e-15);
        assert!((vectors[(0, 1)] - vectors[(1, 1)]).abs() < 1e-15);
    }

    #[test]
    fn vectors_diagonalise() {
        let n = 40;
        let b = Mat::<f64>::from_fn(n, n, |i, j| ((i * 31 + j * 17) % 23) as f64 - 11.0);
        let a = b.transpose() * &b;
        let (values, v) = eigen(&a);
        assert!(values.is_sorted());
        let size = values[n - 1];
        let moved = &a * &v;
        for j in 0..n {
            for i in 0..n {
                assert!((moved[(i, j)] - values[j] * v[(i, j)]).abs() < 1e-12 * size, "{i} {j}");
            }
        }
        let square = v.transpose() * &v;
        assert!((0..n).all(|i| (square[(i, i)] - 1.0).abs() < 1e-12));
    }
}
