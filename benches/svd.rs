//! The truncated SVD beside full ones, on a matrix with the spectrum of a trained layer.
//!
//! `cargo bench --bench svd`, with `--features lapack` also LAPACK's `gesdd` on OpenBLAS.

use std::hint::black_box;

use compress_model_lora::{DenseMatrix, SvdOptions, truncated_svd};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use faer::MatRef;
use rand::{RngExt, SeedableRng};

/// Noise and 64 directions of falling size: a flat tail with a head, as trained layers have.
fn matrix(size: usize) -> Vec<f32> {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(size as u64);
    let mut normal = || rng.sample::<f32, _>(rand_distr::StandardNormal);
    let mut w: Vec<f32> = (0..size * size).map(|_| normal() * 0.02).collect();
    for k in 0..64 {
        let u: Vec<f32> = (0..size).map(|_| normal()).collect();
        let v: Vec<f32> = (0..size).map(|_| normal()).collect();
        let scale = 0.02 / (size as f32).sqrt() * 4.0 * 0.95f32.powi(k);
        for (row, u) in w.chunks_exact_mut(size).zip(&u) {
            for (w, v) in row.iter_mut().zip(&v) {
                *w += scale * u * v;
            }
        }
    }
    w
}

fn svd(c: &mut Criterion) {
    let mut group = c.benchmark_group("svd");
    group.sample_size(10);
    for size in [1024, 2048, 4096] {
        let w = matrix(size);
        group.bench_with_input(BenchmarkId::new("truncated, rank 16", size), &w, |b, w| {
            let matrix = DenseMatrix::new(w, size);
            b.iter(|| truncated_svd(black_box(&matrix), &SvdOptions::new(16)).expect("finite"));
        });
        group.bench_with_input(BenchmarkId::new("faer, full", size), &w, |b, w| {
            let matrix = MatRef::from_row_major_slice(w, size, size);
            b.iter(|| black_box(matrix).thin_svd().expect("converges"));
        });
        #[cfg(feature = "lapack")]
        group.bench_with_input(BenchmarkId::new("LAPACK gesdd, full", size), &w, |b, w| {
            b.iter(|| {
                compress_model_lora::lapack::full_svd(black_box(w), size).expect("converges")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, svd);
criterion_main!(benches);
