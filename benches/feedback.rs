//! Speed of error feedback: damping, factors and the sweep over the columns, by codec and shape,
//! in weights a second, on all threads. Weights are heavy-tailed; H is that of inputs that share a
//! few directions and have some loud channels, as activations do.
//!
//! `cargo bench --bench feedback`

use std::hint::black_box;

use compress_model::codec::{self, WorkerPool, WorkerPools};
use compress_model_feedback::{
    Damping, Factor, Gram, Hessian, Order, Panel, descend, difference, round, squared_norm,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

/// Rows and columns: the attention, gate and down layers of a small model, and a larger square.
const SHAPES: [(usize, usize); 4] = [(576, 576), (1536, 576), (576, 1536), (2048, 2048)];

/// Directions that the inputs share.
const DIRECTIONS: usize = 48;

/// Share of the channels that are loud, and how much louder they are.
const LOUD: (usize, f32) = (64, 12.0);

/// Passes of coordinate descent, as the command takes them.
const PASSES: usize = 2;

/// Student's t with five degrees of freedom, of the spread of a real layer.
fn weights(rows: usize, cols: usize) -> Vec<f32> {
    let rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
    let tails = rand_distr::StudentT::new(5.0f32).expect("a valid shape");
    rng.sample_iter(tails).take(rows * cols).map(|x: f32| 0.03 * x).collect()
}

/// The mean of x·xᵀ over twice as many inputs as channels.
fn second_moments(n: usize) -> Vec<f32> {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(2);
    let normal = rand_distr::Normal::new(0.0f32, 1.0).expect("a valid deviation");
    let mixing: Vec<f32> = (0..DIRECTIONS * n).map(|_| rng.sample(normal)).collect();
    let mut gram = Gram::new(n);
    for _ in 0..2 * n {
        let mut x: Vec<f32> = (0..n).map(|_| rng.sample(normal)).collect();
        for (k, direction) in mixing.chunks_exact(n).enumerate() {
            let along: f32 = rng.sample(normal) * 2.0 / (1.0 + k as f32).sqrt();
            x.iter_mut().zip(direction).for_each(|(x, d)| *x += along * d);
        }
        x.iter_mut().step_by(LOUD.0).for_each(|x| *x *= LOUD.1);
        gram.add(&x);
    }
    gram.mean()
}

fn codecs() -> [(&'static str, WorkerPool, usize); 3] {
    let build = |name, params: serde_json::Value| {
        let params = params.as_object().expect("a table").clone();
        WorkerPools::default().of(&codec::build(name, params).expect("a codec"))
    };
    [
        ("grid2 row", build("grid2", serde_json::json!({})), 96),
        ("grid2 group 64", build("grid2", serde_json::json!({ "group": 64 })), 96),
        ("astc 6x6", build("astc", serde_json::json!({ "footprint": "6x6" })), 384),
    ]
}

fn sweep(
    weights: &[f32],
    hessian: &Hessian,
    factor: &Factor,
    (pool, panel_rows, passes): (&WorkerPool, usize, usize),
) -> Vec<f32> {
    let n = factor.width();
    let importance: Vec<f32> = (0..n).map(|i| hessian.diagonal(i)).collect();
    let decoded: Vec<Vec<f32>> = weights
        .par_chunks(panel_rows * n)
        .map(|weights| {
            let solve = |worker: &mut dyn codec::Worker| {
                let mut coder = worker.column_coder(weights, n, &importance)?;
                let mut panel = Panel::new(weights, n);
                round(&mut panel, factor, &mut *coder);
                descend(&mut panel, hessian, &mut *coder, passes);
                Ok::<_, codec::CodecError>(panel.decoded())
            };
            pool.with(solve).expect("finite weights")
        })
        .collect();
    decoded.concat()
}

fn solver(c: &mut Criterion) {
    let codecs = codecs();
    for (rows, n) in SHAPES {
        let (weights, mean) = (weights(rows, n), second_moments(n));
        let mut group = c.benchmark_group(format!("{rows} x {n}"));
        group.sample_size(10).throughput(Throughput::Elements(weights.len() as u64));
        let damped = || Hessian::new(mean.clone(), n, Damping::default()).expect("a Hessian");
        let hessian = damped();
        group.bench_function("damping and factors", |b| {
            b.iter(|| Factor::new(black_box(&damped()), 1, Order::Activation));
        });
        for (name, pool, panel_rows) in &codecs {
            let unit = pool.codec().column_unit().expect("codes column by column");
            let factor = Factor::new(&hessian, unit, Order::Activation);
            for (label, passes) in [("feedback", 0), ("and descent", PASSES)] {
                let how = (pool, *panel_rows, passes);
                group.bench_function(format!("{name}, {label}"), |b| {
                    b.iter(|| sweep(black_box(&weights), &hessian, &factor, how));
                });
            }
            let solved = sweep(&weights, &hessian, &factor, (pool, *panel_rows, PASSES));
            let left = squared_norm(&difference(&weights, &solved), &mean, n);
            let db = 10.0 * (squared_norm(&weights, &mean, n) / left).log10();
            println!("{rows} x {n} {name}: output {db:.2} dB");
        }
        group.finish();
    }
}

criterion_group!(benches, solver);
criterion_main!(benches);
