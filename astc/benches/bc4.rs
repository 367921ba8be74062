//! BC4 on one thread: encoding by effort, and decoding. Gaussian weights; throughput in weights.

use std::time::Duration;

use compress_model_astc::bc4::{Coder, DecodeMode, Effort, Params, byte_len};
use compress_model_astc::encode::Importance;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;

const ROWS: usize = 64;
const COLS: usize = 1536;

fn bc4(criterion: &mut Criterion) {
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let weights: Vec<f32> = (0..ROWS * COLS)
        .map(|_| 0.02 * Distribution::<f32>::sample(&StandardNormal, &mut rng))
        .collect();
    let mut blocks = vec![0; byte_len(ROWS, COLS)];
    let mut scales = vec![f16::ZERO; ROWS];
    let mut group = criterion.benchmark_group("bc4");
    group.throughput(Throughput::Elements(weights.len() as u64)).sample_size(20);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    for effort in [Effort::Fast, Effort::Best] {
        for decode in [DecodeMode::Exact, DecodeMode::Unorm8] {
            let mut coder = Coder::new(Params { decode, effort });
            group.bench_function(format!("encode {effort:?} {decode:?}"), |bencher| {
                bencher.iter(|| {
                    coder
                        .encode_rows(
                            &weights,
                            ROWS,
                            COLS,
                            Importance::Equal,
                            &mut blocks,
                            &mut scales,
                        )
                        .map(|()| blocks[0])
                });
            });
        }
    }
    let coder = Coder::new(Params { decode: DecodeMode::Exact, effort: Effort::Fast });
    let mut decoded = vec![0.0; ROWS * COLS];
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            coder
                .decode_rows(&blocks, &scales, ROWS, COLS, &mut decoded)
                .map(|()| decoded[0].to_bits())
        });
    });
    group.finish();
}

criterion_group!(benches, bc4);
criterion_main!(benches);
