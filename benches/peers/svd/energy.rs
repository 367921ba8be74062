//! How much of the best possible energy the truncated SVD captures on real weights.
//!
//! `cargo run --release --example svd_energy -- MODEL [RANK [DEPTH [OVERSAMPLE]]]`
//!
//! For every linear weight of a checkpoint: Σσ² of the leading triplets found, over the same sum
//! from all eigenvalues of the Gram matrix in f64.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use compress_model::checkpoint::Checkpoint;
use compress_model::checkpoint::dtype::AlignedBytes;
use compress_model::checkpoint::role::Role;
use compress_model_lora::{DenseMatrix, SvdOptions, truncated_svd};
use faer::{Mat, MatRef, Side};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let model = args.first().ok_or("usage: svd_energy MODEL [RANK [DEPTH [OVERSAMPLE]]]")?;
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |text| text.parse());
    let mut options = SvdOptions::new(number(1, 16)?);
    options.depth = number(2, options.depth)?;
    options.oversample = number(3, options.oversample)?;

    let checkpoint = Checkpoint::open(Path::new(model))?;
    let mut ratios = Vec::new();
    let (mut ours_seconds, mut exact_seconds) = (0.0, 0.0);
    for tensor in checkpoint.tensors().iter().filter(|t| t.role == Role::Linear) {
        let [_, cols] = tensor.shape[..] else { continue };
        let mut weights = vec![0.0; tensor.elements() as usize];
        checkpoint.read_weights(tensor, 0, &mut AlignedBytes::default(), &mut weights)?;
        let start = Instant::now();
        let svd = truncated_svd(&DenseMatrix::new(&weights, cols), &options)?;
        ours_seconds += start.elapsed().as_secs_f64();
        let found: f64 = svd.s.iter().map(|&s| f64::from(s).powi(2)).sum();
        let start = Instant::now();
        let best = best_energy(&weights, cols, svd.s.len())?;
        exact_seconds += start.elapsed().as_secs_f64();
        let all: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
        ratios.push((found / best, best / all, tensor.name.clone()));
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!("{options:?}: {} linear weights of {model}", ratios.len());
    let (worst, _, name) = ratios.first().ok_or("no linear weights")?;
    println!("captured energy over the optimum: worst {worst:.5} ({name})");
    println!("median {:.5}", ratios[ratios.len() / 2].0);
    let shares: Vec<f64> = ratios.iter().map(|r| r.1).collect();
    let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
    let most = shares.iter().copied().fold(0.0, f64::max);
    println!(
        "the optimum holds {:.1} % to {:.1} % of a weight's energy",
        100.0 * least,
        100.0 * most
    );
    println!("seconds: ours {ours_seconds:.2}, Gram matrix and eigenvalues {exact_seconds:.2}");
    Ok(())
}

/// Σσ² of the leading `rank` singular values, by the eigenvalues of the smaller Gram matrix.
fn best_energy(weights: &[f32], cols: usize, rank: usize) -> Result<f64, Box<dyn Error>> {
    let rows = weights.len() / cols;
    let w = MatRef::from_row_major_slice(weights, rows, cols);
    let w = Mat::<f64>::from_fn(rows, cols, |i, j| f64::from(w[(i, j)]));
    let gram = if rows < cols { &w * w.transpose() } else { w.transpose() * &w };
    let mut values =
        gram.self_adjoint_eigenvalues(Side::Lower).map_err(|e| format!("eigenvalues: {e:?}"))?;
    values.sort_by(|a, b| b.total_cmp(a));
    Ok(values.iter().take(rank).sum())
}
