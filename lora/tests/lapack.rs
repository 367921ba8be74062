//! The truncated SVD against LAPACK: `cargo test -p compress-model-lora --features lapack`.

#![allow(clippy::unwrap_used)]

use compress_model_lora::{DenseMatrix, SvdOptions, lapack, truncated_svd};
use rand::{RngExt, SeedableRng};

/// Noise with a few directions that stand out, as in a trained layer.
fn matrix(rows: usize, cols: usize) -> Vec<f32> {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(7);
    let mut normal = || rng.sample::<f32, _>(rand_distr::StandardNormal);
    let mut w: Vec<f32> = (0..rows * cols).map(|_| normal() * 0.02).collect();
    for k in 0..20 {
        let u: Vec<f32> = (0..rows).map(|_| normal()).collect();
        let v: Vec<f32> = (0..cols).map(|_| normal()).collect();
        let size = 0.02 * 0.8f32.powi(k);
        for (row, u) in w.chunks_exact_mut(cols).zip(&u) {
            for (w, v) in row.iter_mut().zip(&v) {
                *w += size * u * v;
            }
        }
    }
    w
}

#[test]
fn leading_triplets_are_those_of_lapack() {
    for (rows, cols) in [(400, 300), (150, 700)] {
        let w = matrix(rows, cols);
        let ours = truncated_svd(&DenseMatrix::new(&w, cols), &SvdOptions::new(8)).unwrap();
        let full = lapack::full_svd(&w, cols).unwrap();
        let rank = rows.min(cols);
        for k in 0..8 {
            assert!((ours.s[k] / full.s[k] - 1.0).abs() < 1e-4, "{k}: {} {}", ours.s[k], full.s[k]);
            let ours = &ours.vt[k * cols..][..cols];
            let full_v = &full.vt[k * cols..][..cols];
            let cosine: f32 = ours.iter().zip(full_v).map(|(a, b)| a * b).sum();
            assert!(cosine.abs() > 0.999, "{k}: {cosine}");
        }
        assert_eq!(full.u.len(), rows * rank);
    }
}
