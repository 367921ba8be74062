//! Changes of the features that a layer reads or writes, applied to its weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::rotation::Rotation;

/// Weights that a task changes at a time.
const TASK_WEIGHTS: usize = 1 << 16;

/// A linear map of features, as it acts on a row of weights.
#[derive(Debug, Clone)]
pub(crate) enum Factor {
    /// Weight j is multiplied by entry j.
    Scale(Arc<[f64]>),
    /// Weight j becomes weight `order[j]` of before.
    Permute(Arc<[usize]>),
    /// Each run of as many weights as the rotation has features is rotated.
    Rotate(Arc<Rotation>),
}

/// What the rows of each matrix, by the name of its tensor and its number there, go through.
pub(crate) type MatrixFactors = BTreeMap<(String, usize), Vec<Factor>>;

impl Factor {
    fn apply(&self, row: &mut [f64], scratch: &mut Vec<f64>) {
        match self {
            Self::Scale(scale) => row.iter_mut().zip(&**scale).for_each(|(x, s)| *x *= s),
            Self::Permute(order) => {
                scratch.clear();
                scratch.extend(order.iter().map(|&from| row[from]));
                row.copy_from_slice(scratch);
            }
            Self::Rotate(rotation) => rotation.apply(row),
        }
    }

    /// What acts on the features themselves where this acts on the weights that read them. A scale
    /// of zero has features that nobody reads: they become zero.
    fn of_features(&self) -> Self {
        match self {
            Self::Scale(scale) => {
                let inverse = scale.iter().map(|&s| if s == 0.0 { 0.0 } else { 1.0 / s });
                Self::Scale(inverse.collect())
            }
            other => other.clone(),
        }
    }
}

/// Applies `factors` in turn to each row of `weights`, `cols` weights a row.
pub(super) fn apply(factors: &[Factor], weights: &mut [f32], cols: usize) {
    if factors.is_empty() {
        return;
    }
    let task = (TASK_WEIGHTS / cols).max(1) * cols;
    weights.par_chunks_mut(task).for_each(|weights| {
        let mut rows: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
        let mut scratch = Vec::new();
        for factor in factors {
            match factor {
                // Several rows go through a matrix together.
                Factor::Rotate(rotation) => rotation.apply(&mut rows),
                _ => rows.chunks_exact_mut(cols).for_each(|row| factor.apply(row, &mut scratch)),
            }
        }
        weights.iter_mut().zip(rows).for_each(|(w, x)| *w = x as f32);
    });
}

/// Applies `factors` in turn to each column of `weights`, `cols` weights a row.
pub(super) fn apply_to_columns(factors: &[Factor], weights: &mut Vec<f32>, cols: usize) {
    if factors.is_empty() {
        return;
    }
    let rows = weights.len() / cols;
    let mut turned = transposed(weights, cols);
    apply(factors, &mut turned, rows);
    *weights = transposed(&turned, rows);
}

/// The mean of x·xᵀ [n, n] of features whose readers' weights have gone through `factors`.
pub(crate) fn moved_moments(factors: &[Factor], mut mean: Vec<f32>, n: usize) -> Vec<f32> {
    let factors: Vec<Factor> = factors.iter().map(Factor::of_features).collect();
    apply(&factors, &mut mean, n);
    apply_to_columns(&factors, &mut mean, n);
    // The two halves differ in their last bits.
    for i in 0..n {
        for j in 0..i {
            mean[j * n + i] = mean[i * n + j];
        }
    }
    mean
}

fn transposed(weights: &[f32], cols: usize) -> Vec<f32> {
    const TILE: usize = 16;
    let rows = weights.len() / cols;
    let mut out = vec![0.0; weights.len()];
    out.par_chunks_mut(TILE * rows).enumerate().for_each(|(strip, out)| {
        let first = strip * TILE;
        for row in 0..rows {
            for (column, out) in out.chunks_exact_mut(rows).enumerate() {
                out[row] = weights[row * cols + first + column];
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::RotationKind;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + 11) % 19) as f32 - 9.0).collect()
    }

    /// What readers and features go through keeps the products of the two.
    #[test]
    fn products_stay() {
        let n = 24;
        let factors = [
            Factor::Scale((0..n).map(|i| 0.5 + i as f64 / 8.0).collect()),
            Factor::Rotate(Arc::new(Rotation::new(RotationKind::Hadamard, 12, 1))),
            Factor::Permute((0..n).map(|i| (i * 7 + 3) % n).collect()),
        ];
        let (mut weights, mut x) = (numbers(5 * n), numbers(n));
        let product = |w: &[f32], x: &[f32]| -> Vec<f32> {
            w.chunks_exact(n).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
        };
        let before = product(&weights, &x);
        let outer: Vec<f32> = (0..n * n).map(|i| x[i / n] * x[i % n]).collect();
        apply(&factors, &mut weights, n);
        let moved = moved_moments(&factors, outer, n);
        let features: Vec<Factor> = factors.iter().map(Factor::of_features).collect();
        apply(&features, &mut x, n);
        for (after, before) in product(&weights, &x).iter().zip(before) {
            assert!((after - before).abs() < 1e-3, "{after} {before}");
        }
        for (i, moved) in moved.iter().enumerate() {
            assert!((moved - x[i / n] * x[i % n]).abs() < 1e-3, "{i}");
        }
    }

    #[test]
    fn columns_are_rows_of_the_transpose() {
        let factor = [Factor::Permute([1, 2, 0].into())];
        let mut weights = numbers(3 * 20);
        let rows: Vec<Vec<f32>> = weights.chunks_exact(20).map(<[f32]>::to_vec).collect();
        apply_to_columns(&factor, &mut weights, 20);
        assert_eq!(weights, [&rows[1][..], &rows[2], &rows[0]].concat());
        assert_eq!(transposed(&transposed(&weights, 20), 3), weights);
    }
}
