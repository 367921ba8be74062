//! The error that counts.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Rows a task multiplies.
const TASK_ROWS: usize = 64;

/// What is left of `weights` where `decoded` stands for them: W - Ŵ.
#[must_use]
pub fn difference(weights: &[f32], decoded: &[f32]) -> Vec<f32> {
    weights.iter().zip(decoded).map(|(w, d)| w - d).collect()
}

/// tr(E·H·Eᵀ) for `e`, row-major with as many columns as H [n, n] has: the squared change of a
/// layer's output if E is the change of its weights and H the mean of x·xᵀ. Sums are f64 in a
/// fixed order.
///
/// # Panics
/// If the lengths do not fit.
#[must_use]
pub fn squared_norm(e: &[f32], h: &[f32], n: usize) -> f64 {
    assert!(h.len() == n * n && (n == 0 || e.len().is_multiple_of(n)), "whole rows");
    if n == 0 {
        return 0.0;
    }
    let parts: Vec<f64> = e
        .par_chunks(TASK_ROWS * n)
        .map(|e| {
            let rows = e.len() / n;
            let mut product = vec![0.0f32; e.len()];
            matmul(
                MatMut::from_row_major_slice_mut(&mut product, rows, n),
                Accum::Replace,
                MatRef::from_row_major_slice(e, rows, n),
                MatRef::from_row_major_slice(h, n, n),
                1.0,
                Par::Seq,
            );
            e.iter().zip(&product).map(|(e, p)| f64::from(*e) * f64::from(*p)).sum()
        })
        .collect();
    parts.iter().sum()
}
