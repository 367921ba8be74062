//! Decode and fused matrix-vector product on every GPU of this machine beside the CPU.
//!
//! ```sh
//! cargo bench --bench gpu
//! ```
//!
//! One 1152 x 1152 Gaussian matrix, coded 6x6. Products are y = (W + B·A)·x with an adapter of rank 16
//! and f32 vectors everywhere; the GPU's include upload and readback. Each adapter's name stands in its label: llvmpipe is a software
//! renderer, there for correctness.

use std::hint::black_box;

use compress_model_astc::encode::Preset;
use compress_model_astc::gpu::{
    AdapterKind, DecodePath, GpuAdapter, GpuDecoder, GpuProducts, Grid2, Input, LowRank,
};
use compress_model_astc::{BlockGrid, Coder, DecodeMode, Encoder, Footprint, Params, RowScale};
use compress_model_qat::Grid2 as Grid2Codec;
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64Mcg;

const SIZE: usize = 1152;
const RANK: usize = 16;
/// Rows that the CPU decodes at once.
const ROWS: usize = 12;

struct Layer {
    grid: BlockGrid,
    blocks: Vec<u8>,
    scales: Vec<f16>,
    codes: Vec<u8>,
    code_scales: Vec<f16>,
    a: Vec<f32>,
    b: Vec<f32>,
    x: Vec<f32>,
}

fn params() -> Params {
    let footprint = Footprint::new(6, 6).expect("a legal footprint");
    let encoder = Encoder::Native(Preset::Fast, RowScale::FullRange);
    Params { footprint, decode: DecodeMode::Unorm8, encoder }
}

impl Layer {
    fn new() -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(1);
        let mut normal =
            |count: usize| -> Vec<f32> { (0..count).map(|_| rng.sample(StandardNormal)).collect() };
        let (w, a, b, x) =
            (normal(SIZE * SIZE), normal(RANK * SIZE), normal(SIZE * RANK), normal(SIZE));
        let grid = BlockGrid::new(SIZE, SIZE, params().footprint);
        let (mut blocks, mut scales) = (vec![0; grid.byte_len()], vec![f16::ZERO; SIZE]);
        let mut coder = Coder::new(params()).expect("the native encoder");
        coder.encode_rows(&w, SIZE, SIZE, &mut blocks, &mut scales).expect("finite weights");
        let codec = Grid2Codec::per_row();
        let mut codes = vec![0; SIZE * codec.code_bytes_per_row(SIZE)];
        let mut code_scales = vec![f16::ZERO; SIZE];
        codec.encode_rows(&w, SIZE, &mut codes, &mut code_scales).expect("finite weights");
        Self { grid, blocks, scales, codes, code_scales, a, b, x }
    }

    fn low_rank(&self) -> Option<LowRank<'_>> {
        Some(LowRank { rank: RANK, a: &self.a, b: &self.b })
    }
}

/// Σ a·b in 16 sums, as the compiler vectorises it.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for (a, b) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        for i in 0..16 {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum()
}

impl Layer {
    /// (W + B·A)·x on the CPU, `decode(first_row, weights)` giving a few rows of W at a time, which
    /// stay in the cache.
    fn product(&self, mut decode: impl FnMut(usize, &mut [f32])) -> Vec<f32> {
        let reduced: Vec<f32> = self.a.chunks_exact(SIZE).map(|a| dot(a, &self.x)).collect();
        let mut rows = vec![0.0; ROWS * SIZE];
        let mut y = Vec::with_capacity(SIZE);
        for first in (0..SIZE).step_by(ROWS) {
            decode(first, &mut rows);
            y.extend(rows.chunks_exact(SIZE).map(|w| dot(w, &self.x)));
        }
        for (y, b) in y.iter_mut().zip(self.b.chunks_exact(RANK)) {
            *y += dot(b, &reduced);
        }
        y
    }
}

fn cpu(group: &mut BenchmarkGroup<'_, WallTime>, layer: &Layer) {
    let mut coder = Coder::new(params()).expect("the native encoder");
    let mut decode = |first: usize, rows: usize, w: &mut [f32]| {
        let strip = layer.grid.blocks_across() * BlockGrid::BLOCK_BYTES;
        let blocks = &layer.blocks[first / 6 * strip..][..rows / 6 * strip];
        coder
            .decode_rows(blocks, &layer.scales[first..][..rows], rows, SIZE, w)
            .expect("legal blocks");
    };
    let mut w = vec![0.0; SIZE * SIZE];
    group.bench_function("CPU, one thread/decode 6x6", |b| {
        b.iter(|| decode(0, SIZE, black_box(&mut w)));
    });
    group.bench_function("CPU, one thread/fused matvec 6x6", |b| {
        b.iter(|| black_box(layer.product(|first, w| decode(first, ROWS, w))));
    });
    let codec = Grid2Codec::per_row();
    let bytes = codec.code_bytes_per_row(SIZE);
    group.bench_function("CPU, one thread/fused matvec grid2", |b| {
        b.iter(|| {
            black_box(layer.product(|first, w| {
                let codes = &layer.codes[first * bytes..][..ROWS * bytes];
                codec.decode_rows(codes, &layer.code_scales[first..][..ROWS], SIZE, w);
            }))
        });
    });
}

fn on_gpu(group: &mut BenchmarkGroup<'_, WallTime>, decoder: &GpuDecoder<'_>, layer: &Layer) {
    let info = decoder.gpu().info();
    let kind = if info.kind == AdapterKind::Cpu { ", software renderer" } else { "" };
    let label = format!("{}{kind}, {}", info.label(), decoder.path());
    let upload = || {
        let made = decoder.upload(layer.grid, &layer.blocks, &layer.scales);
        made.expect("the matrix fits")
    };
    let matrix = upload();
    let mut w = vec![0.0; SIZE * SIZE];
    group.bench_function(format!("{label}/decode 6x6"), |b| {
        b.iter(|| decoder.decode(&matrix, 0..SIZE, black_box(&mut w)).expect("a sane driver"));
    });
    let products = GpuProducts::new(decoder).expect("a sane driver");
    let codes = Grid2 {
        rows: SIZE,
        cols: SIZE,
        group: SIZE,
        codes: &layer.codes,
        scales: &layer.code_scales,
    };
    let linears = [
        ("6x6", products.texture(upload(), layer.low_rank()).expect("a sane driver")),
        ("grid2", products.grid2(&codes, layer.low_rank()).expect("a sane driver")),
    ];
    let mut y = vec![0.0; SIZE];
    for (weights, linear) in &linears {
        group.bench_function(format!("{label}/fused matvec {weights}"), |b| {
            b.iter(|| {
                let x = Input::F32(&layer.x);
                products.multiply(linear, x, 1, black_box(&mut y)).expect("a sane driver");
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let layer = Layer::new();
    let mut group = criterion.benchmark_group("gpu");
    group.throughput(Throughput::Elements((SIZE * SIZE) as u64));
    cpu(&mut group, &layer);
    for adapter in GpuAdapter::all() {
        let gpu = match adapter.open() {
            Ok(gpu) => gpu,
            Err(e) => {
                eprintln!("left out: {e}");
                continue;
            }
        };
        let sampled = gpu.self_test().ok().and_then(|t| t.sampled_mode(DecodeMode::Unorm8.into()));
        let computed = DecodePath::Computed(DecodeMode::Unorm8.into());
        for path in sampled.map(DecodePath::Sampled).into_iter().chain([computed]) {
            let decoder = GpuDecoder::new(&gpu, path).expect("a path that the self-test allows");
            on_gpu(&mut group, &decoder, &layer);
        }
    }
    group.finish();
    criterion.final_summary();
}
