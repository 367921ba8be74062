//! Throughput of the ASTC weight codec on one core: encoding by preset and footprint, decoding of
//! the blocks that the encoder writes. i.i.d. Gaussian weights; elements are weights.
//!
//! `cargo bench --bench astc`; astcenc's own decompressor on the same blocks:
//! `cargo bench -p compress-model-astc --bench decode`.

use std::hint::black_box;
use std::time::Duration;

use compress_model_astc::encode::{Importance, NativeEncoder, Preset};
use compress_model_astc::{BlockGrid, Coder, DecodeMode, Encoder, Footprint, Params, RowScale};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const ROWS: usize = 120;
const COLS: usize = 1536;

fn weights() -> Vec<f32> {
    let normal = rand_distr::Normal::new(0.0, 0.02).expect("a valid deviation");
    Pcg64Mcg::seed_from_u64(1).sample_iter::<f32, _>(normal).take(ROWS * COLS).collect()
}

fn encode(criterion: &mut Criterion) {
    let weights = weights();
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(weights.len() as u64)).sample_size(20);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    let cases = [
        ("6x6", Preset::Fast, RowScale::Searched),
        ("6x6", Preset::Default, RowScale::Searched),
        ("6x6", Preset::Best, RowScale::Searched),
        ("6x6", Preset::Fast, RowScale::FullRange),
        ("6x6", Preset::Default, RowScale::FullRange),
        ("6x6", Preset::Best, RowScale::FullRange),
        ("5x5", Preset::Fast, RowScale::FullRange),
        ("6x5", Preset::Fast, RowScale::FullRange),
        ("8x6", Preset::Fast, RowScale::FullRange),
        ("8x8", Preset::Fast, RowScale::FullRange),
        ("12x12", Preset::Fast, RowScale::FullRange),
    ];
    for (text, preset, row_scale) in cases {
        let footprint: Footprint = text.parse().expect("footprint");
        let encoder = Encoder::Native(preset, row_scale);
        let mut coder = coder(footprint, encoder);
        let mut blocks = vec![0; BlockGrid::new(ROWS, COLS, footprint).byte_len()];
        let mut scales = vec![f16::ZERO; ROWS];
        group.bench_function(format!("{text} {preset:?} {row_scale:?}"), |bencher| {
            bencher.iter(|| {
                coder
                    .encode_rows(black_box(&weights), ROWS, COLS, &mut blocks, &mut scales)
                    .expect("encode");
            });
        });
    }
    group.finish();
}

/// Columns of blocks one after the other, as error feedback drives them.
fn encode_columns(criterion: &mut Criterion) {
    let footprint: Footprint = "6x6".parse().expect("footprint");
    let weights = weights();
    let mut encoder = NativeEncoder::new(footprint, DecodeMode::Unorm8, Preset::Default);
    let mut scales = vec![f16::ZERO; ROWS];
    let equal = Importance::Equal;
    encoder.choose_scales(&weights, ROWS, COLS, equal, &mut scales).expect("scales");
    let width = footprint.width();
    let columns: Vec<Vec<f32>> = (0..COLS / width)
        .map(|column| {
            let rows = weights.chunks_exact(COLS);
            rows.flat_map(|row| &row[column * width..][..width]).copied().collect()
        })
        .collect();
    let mut blocks = vec![0; BlockGrid::new(ROWS, width, footprint).byte_len()];
    let mut decoded = vec![0.0; ROWS * width];
    let mut group = criterion.benchmark_group("encode columns");
    group.throughput(Throughput::Elements(weights.len() as u64)).sample_size(20);
    group.bench_function("6x6 Default", |bencher| {
        bencher.iter(|| {
            for column in &columns {
                encoder
                    .encode_column(column, ROWS, width, equal, &scales, &mut blocks, &mut decoded)
                    .expect("encode");
            }
        });
    });
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let weights = weights();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(weights.len() as u64));
    for footprint in Footprint::ALL {
        let mut coder = coder(footprint, Encoder::Native(Preset::Default, RowScale::FullRange));
        let mut blocks = vec![0; BlockGrid::new(ROWS, COLS, footprint).byte_len()];
        let mut scales = vec![f16::ZERO; ROWS];
        coder.encode_rows(&weights, ROWS, COLS, &mut blocks, &mut scales).expect("encode");
        let mut out = vec![0.0; ROWS * COLS];
        group.bench_function(footprint.to_string(), |bencher| {
            bencher.iter(|| {
                coder
                    .decode_rows(black_box(&blocks), &scales, ROWS, COLS, &mut out)
                    .expect("decode");
            });
        });
    }
    group.finish();
}

fn coder(footprint: Footprint, encoder: Encoder) -> Coder {
    Coder::new(Params { footprint, decode: DecodeMode::Unorm8, encoder }).expect("coder")
}

criterion_group!(benches, encode, encode_columns, decode);
criterion_main!(benches);
