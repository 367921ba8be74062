//! Throughput of the 2-bit grid and the 4-bit groups on one core, Gaussian weights.
//!
//! `cargo bench --bench grid`

use std::hint::black_box;
use std::num::NonZeroUsize;

use compress_model_qat::{Grid2, Int4, newton};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use half::slice::HalfFloatSliceExt;
use rand::{RngExt, SeedableRng};

const COLS: usize = 4096;
const ROWS: usize = 64;

fn weights() -> Vec<f16> {
    let rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
    let normal = rand_distr::Normal::new(0.0, 0.02).expect("a valid deviation");
    rng.sample_iter::<f32, _>(normal).take(ROWS * COLS).map(f16::from_f32).collect()
}

fn grid2(c: &mut Criterion) {
    let source = weights();
    let mut group = c.benchmark_group("grid2");
    group.throughput(Throughput::Elements(source.len() as u64));
    for size in [0, 128, 64, 32] {
        let grid = NonZeroUsize::new(size).map_or_else(Grid2::per_row, Grid2::grouped);
        let name = if size == 0 { "row".to_owned() } else { format!("group {size}") };
        let mut codes = vec![0; ROWS * grid.code_bytes_per_row(COLS)];
        let mut scales = vec![f16::ZERO; ROWS * grid.scales_per_row(COLS)];
        let mut row = vec![0.0f32; COLS];
        group.bench_function(format!("fit and pack fp16, {name}"), |b| {
            b.iter(|| {
                let outputs = codes
                    .chunks_exact_mut(grid.code_bytes_per_row(COLS))
                    .zip(scales.chunks_exact_mut(grid.scales_per_row(COLS)));
                for (source, (codes, scales)) in source.chunks_exact(COLS).zip(outputs) {
                    black_box(source).convert_to_f32_slice(&mut row);
                    grid.encode_rows(&row, COLS, codes, scales).expect("in range");
                }
                black_box((&codes, &scales));
            });
        });
        let mut out = vec![0.0f32; source.len()];
        group.bench_function(format!("decode to f32, {name}"), |b| {
            b.iter(|| grid.decode_rows(black_box(&codes), &scales, COLS, black_box(&mut out)));
        });
    }
    let mut floats = vec![0.0f32; source.len()];
    source.convert_to_f32_slice(&mut floats);
    group.bench_function("Newton fit alone, row", |b| {
        b.iter(|| {
            floats.chunks_exact(COLS).map(|row| newton::fit_scale(black_box(row))).sum::<f32>()
        });
    });
    group.finish();
}

fn int4(c: &mut Criterion) {
    let mut floats = vec![0.0f32; ROWS * COLS];
    weights().convert_to_f32_slice(&mut floats);
    let int4 = Int4::grouped(NonZeroUsize::new(64).expect("not zero"));
    let mut codes = vec![0; ROWS * int4.code_bytes_per_row(COLS)];
    let mut scales = vec![f16::ZERO; ROWS * int4.scales_per_row(COLS)];
    let mut mins = scales.clone();
    let mut group = c.benchmark_group("int4");
    group.throughput(Throughput::Elements(floats.len() as u64));
    group.bench_function("fit and pack, group 64", |b| {
        b.iter(|| {
            int4.encode_rows(black_box(&floats), COLS, &mut codes, &mut scales, &mut mins)
                .expect("in range");
        });
    });
    let mut out = vec![0.0f32; floats.len()];
    group.bench_function("decode to f32, group 64", |b| {
        b.iter(|| int4.decode_rows(black_box(&codes), &scales, &mins, COLS, black_box(&mut out)));
    });
    group.finish();
}

criterion_group!(benches, grid2, int4);
criterion_main!(benches);
