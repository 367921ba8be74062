//! Encoding throughput of the presets on one thread: i.i.d. Gaussian weights at 6x6 and, for the
//! fast preset, some other footprints. Throughput is in weights.

use std::time::Duration;

use compress_model_astc::encode::{Importance, NativeEncoder, Preset};
use compress_model_astc::{BlockGrid, DecodeMode, Footprint};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;

const ROWS: usize = 120;
const COLS: usize = 1536;

fn encode(criterion: &mut Criterion) {
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let weights: Vec<f32> = (0..ROWS * COLS)
        .map(|_| 0.02 * Distribution::<f32>::sample(&StandardNormal, &mut rng))
        .collect();
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(weights.len() as u64)).sample_size(20);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    let cases = [
        ("6x6", Preset::Fast),
        ("6x6", Preset::Default),
        ("6x6", Preset::Best),
        ("5x5", Preset::Fast),
        ("6x5", Preset::Fast),
        ("8x6", Preset::Fast),
        ("8x8", Preset::Fast),
        ("12x12", Preset::Fast),
    ];
    for (text, preset) in cases {
        let Ok(footprint) = text.parse::<Footprint>() else { continue };
        let mut encoder = NativeEncoder::new(footprint, DecodeMode::Unorm8, preset);
        let mut blocks = vec![0; BlockGrid::new(ROWS, COLS, footprint).byte_len()];
        let mut scales = vec![f16::ZERO; ROWS];
        group.bench_function(format!("{text} {preset:?}"), |bencher| {
            bencher.iter(|| {
                encoder
                    .encode_rows(&weights, ROWS, COLS, Importance::Equal, &mut blocks, &mut scales)
                    .map(|()| blocks[0])
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
