use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::panels::DenseMatrix;

/// rows x cols with singular values `spectrum(k)`, by way of random orthonormal factors.
fn with_spectrum(rows: usize, cols: usize, spectrum: impl Fn(usize) -> f32) -> Vec<f32> {
    let k = rows.min(cols);
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let mut u = random_block(rows, k, &mut rng);
    let mut v = random_block(cols, k, &mut rng);
    orthonormalise(&mut u, Mat::zeros(rows, 0).as_ref(), &mut rng);
    orthonormalise(&mut v, Mat::zeros(cols, 0).as_ref(), &mut rng);
    for j in 0..k {
        for value in u.col_as_slice_mut(j) {
            *value *= spectrum(j);
        }
    }
    let mut w = vec![0.0; rows * cols];
    let view = MatMut::from_row_major_slice_mut(&mut w, rows, cols);
    matmul(view, Accum::Replace, &u, v.transpose(), 1.0, Par::Seq);
    w
}

fn random(count: usize) -> Vec<f32> {
    random_block(count, 1, &mut Pcg64Mcg::seed_from_u64(3)).col_as_slice(0).to_vec()
}

fn product(svd: &TruncatedSvd) -> Vec<f32> {
    let rank = svd.s.len();
    let mut w = vec![0.0; svd.rows * svd.cols];
    for (row, u) in w.chunks_exact_mut(svd.cols).zip(svd.u.chunks_exact(rank)) {
        for ((u, s), v) in u.iter().zip(&svd.s).zip(svd.vt.chunks_exact(svd.cols)) {
            for (w, v) in row.iter_mut().zip(v) {
                *w += u * s * v;
            }
        }
    }
    w
}

#[test]
fn known_singular_values_come_back() {
    for (rows, cols) in [(300, 200), (90, 410)] {
        let w = with_spectrum(rows, cols, |k| 10.0 * 0.9f32.powi(k as i32));
        let matrix = DenseMatrix::new(&w, cols);
        let svd = truncated_svd(&matrix, &SvdOptions::new(8)).unwrap();
        for (k, s) in svd.s.iter().enumerate() {
            let expected = 10.0 * 0.9f32.powi(k as i32);
            assert!((s / expected - 1.0).abs() < 1e-4, "{k}: {s} {expected}");
        }
    }
}

#[test]
fn a_flat_spectrum_is_caught_to_one_percent() {
    // Flatter than any real weight: σ falls by a 400th of the first at every step.
    let spectrum = |k: usize| 1.0 - k as f32 / 400.0;
    let w = with_spectrum(320, 500, spectrum);
    let svd = truncated_svd(&DenseMatrix::new(&w, 500), &SvdOptions::new(16)).unwrap();
    let energy = |s: f32| f64::from(s).powi(2);
    let found: f64 = svd.s.iter().map(|&s| energy(s)).sum();
    let best: f64 = (0..16).map(|k| energy(spectrum(k))).sum();
    assert!((0.99..=1.0 + 1e-5).contains(&(found / best)), "{}", found / best);
}

#[test]
fn one_outlier_direction_hides_no_other() {
    // Second and later directions are 5e-5 of the first: their squares are below its rounding.
    let spectrum = |k: usize| if k == 0 { 1000.0 } else { 0.05 * 0.8f32.powi(k as i32) };
    let w = with_spectrum(300, 200, spectrum);
    let svd = truncated_svd(&DenseMatrix::new(&w, 200), &SvdOptions::new(4)).unwrap();
    for k in 0..4 {
        assert!((svd.s[k] / spectrum(k) - 1.0).abs() < 0.02, "{k}: {} {}", svd.s[k], spectrum(k));
    }
}

#[test]
fn very_small_and_very_large_weights_are_not_lost() {
    for scale in [1e-30, 1e30] {
        let w = with_spectrum(60, 80, |k| 0.7f32.powi(k as i32) * scale);
        let svd = truncated_svd(&DenseMatrix::new(&w, 80), &SvdOptions::new(3)).unwrap();
        for (k, s) in svd.s.iter().enumerate() {
            assert!((s / scale / 0.7f32.powi(k as i32) - 1.0).abs() < 1e-4, "{scale} {k}: {s}");
        }
    }
}

#[test]
fn factors_are_orthonormal() {
    let w = random(150 * 230);
    let svd = truncated_svd(&DenseMatrix::new(&w, 230), &SvdOptions::new(12)).unwrap();
    let u = MatRef::from_row_major_slice(&svd.u, 150, 12);
    let vt = MatRef::from_row_major_slice(&svd.vt, 12, 230);
    for square in [u.transpose() * u, vt * vt.transpose()] {
        for (i, j) in (0..12).flat_map(|i| (0..12).map(move |j| (i, j))) {
            let expected = if i == j { 1.0 } else { 0.0 };
            assert!((square[(i, j)] - expected).abs() < 1e-4, "{i} {j}: {}", square[(i, j)]);
        }
    }
}

#[test]
fn small_thin_and_deficient_matrices_are_exact() {
    for (rows, cols) in [(1, 1), (1, 17), (17, 1), (5, 7), (23, 19), (64, 3), (40, 611), (613, 37)]
    {
        let w = random(rows * cols);
        let matrix = DenseMatrix::new(&w, cols);
        let svd = truncated_svd(&matrix, &SvdOptions::new(40)).unwrap();
        assert_eq!(svd.s.len(), rows.min(cols));
        for (a, b) in product(&svd).iter().zip(&w) {
            assert!((a - b).abs() < 1e-4, "{rows}x{cols}: {a} {b}");
        }
    }
    let zeros = vec![0.0; 40 * 30];
    let svd = truncated_svd(&DenseMatrix::new(&zeros, 30), &SvdOptions::new(4)).unwrap();
    assert_eq!(svd.s, [0.0; 4]);
    assert!(svd.u.iter().all(|&x| x == 0.0));
    let rank_one: Vec<f32> = (0..1200).map(|i| (i / 30) as f32 * (i % 30) as f32).collect();
    let svd = truncated_svd(&DenseMatrix::new(&rank_one, 30), &SvdOptions::new(4)).unwrap();
    assert!(svd.s[1] < svd.s[0] * 1e-4);
    for (a, b) in product(&svd).iter().zip(&rank_one) {
        assert!((a - b).abs() < 0.01, "{a} {b}");
    }
    let none = truncated_svd(&DenseMatrix::new(&zeros, 30), &SvdOptions::new(0)).unwrap();
    assert!(none.s.is_empty());
}

#[test]
fn the_same_on_any_number_of_threads() {
    // Ten panels in five stripes.
    let w = random(5000 * 40);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| truncated_svd(&DenseMatrix::new(&w, 40), &SvdOptions::new(16)).unwrap())
    };
    let one = run(1);
    for threads in [2, 5] {
        let other = run(threads);
        assert!(one.u == other.u && one.s == other.s && one.vt == other.vt, "{threads}");
    }
}

#[test]
fn bad_input_is_named() {
    let mut w = vec![1.0; 2000 * 30];
    w[1500 * 30] = f32::NAN;
    let error = truncated_svd(&DenseMatrix::new(&w, 30), &SvdOptions::new(4)).unwrap_err();
    assert!(matches!(error, Error::NonFinite { first, last } if (first..=last).contains(&1500)));
}
