//! Products on the GPU with the 2-bit codes that the qat crate packs.
//!
//! Without an adapter the test says so and passes, unless `COMPRESS_MODEL_REQUIRE_GPU` is 1.

use std::num::NonZeroUsize;

use compress_model_astc::DecodeMode;
use compress_model_astc::gpu::{
    DecodePath, GpuAdapter, GpuDecoder, GpuProducts, Grid2, Input, LowRank,
};
use compress_model_qat::Grid2 as Grid2Codec;
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64Mcg;

/// Largest error of a product over its largest value.
const BOUND: f64 = 1e-5;

fn normal(rng: &mut Pcg64Mcg, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.sample(StandardNormal)).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn codes_that_qat_packed_multiply_as_qat_decodes_them() {
    const RANK: usize = 3;
    let adapters = GpuAdapter::all();
    let required = std::env::var("COMPRESS_MODEL_REQUIRE_GPU").is_ok_and(|value| value == "1");
    assert!(!required || !adapters.is_empty(), "no GPU adapter");
    if adapters.is_empty() {
        eprintln!("skipped: no GPU adapter");
    }
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    for adapter in &adapters {
        let gpu = adapter.open().unwrap();
        let path = DecodePath::Computed(DecodeMode::Unorm8.into());
        let decoder = GpuDecoder::new(&gpu, path).unwrap();
        let products = GpuProducts::new(&decoder).unwrap();
        let mut worst = 0.0_f64;
        // Rows of whole words, of whole bytes, and of neither.
        for (rows, cols, group) in [(33, 1024, 0), (17, 516, 64), (9, 203, 32), (5, 7, 0)] {
            let grouped = NonZeroUsize::new(group).map(Grid2Codec::grouped);
            let codec = grouped.unwrap_or_else(Grid2Codec::per_row);
            let group = codec.group().map_or(cols, NonZeroUsize::get);
            let mut w = normal(&mut rng, rows * cols);
            let mut codes = vec![0; rows * codec.code_bytes_per_row(cols)];
            let mut scales = vec![f16::ZERO; rows * codec.scales_per_row(cols)];
            codec.encode_rows(&w, cols, &mut codes, &mut scales).unwrap();
            codec.decode_rows(&codes, &scales, cols, &mut w);

            let (a, b) = (normal(&mut rng, RANK * cols), normal(&mut rng, rows * RANK));
            let weights = Grid2 { rows, cols, group, codes: &codes, scales: &scales };
            let low_rank = LowRank { rank: RANK, a: &a, b: &b };
            let linear = products.grid2(&weights, Some(low_rank)).unwrap();
            let x = normal(&mut rng, cols);
            let mut y = vec![f32::NAN; rows];
            products.multiply(&linear, Input::F32(&x), 1, &mut y).unwrap();

            let reduced: Vec<f64> = a.chunks_exact(cols).map(|a| dot(a, &x)).collect();
            let adapted =
                |b: &[f32]| -> f64 { b.iter().zip(&reduced).map(|(b, t)| f64::from(*b) * t).sum() };
            let expected: Vec<f64> = w
                .chunks_exact(cols)
                .zip(b.chunks_exact(RANK))
                .map(|(w, b)| dot(w, &x) + adapted(b))
                .collect();
            let largest = expected.iter().fold(0.0, |most: f64, e| most.max(e.abs()));
            let errors = y.iter().zip(&expected).map(|(f, e)| (f64::from(*f) - e).abs() / largest);
            worst = errors.fold(worst, f64::max);

            // A vector of one 1 gives the column that qat decodes, to the bit.
            let linear = products.grid2(&weights, None).unwrap();
            for hot in [0, cols / 2, cols - 1] {
                let x: Vec<f32> = (0..cols).map(|col| f32::from(u8::from(col == hot))).collect();
                products.multiply(&linear, Input::F32(&x), 1, &mut y).unwrap();
                let column: Vec<f32> = w.chunks_exact(cols).map(|row| row[hot]).collect();
                assert_eq!(y, column, "{}: column {hot} of {cols}", gpu.info().label());
            }
        }
        println!("{}: codes that qat packed, f32: {worst:.1e}", gpu.info().label());
        assert!(worst < BOUND, "{worst}");
    }
}
