//! Orthogonal matrices that are applied to rows of features.
//!
//! Arithmetic is f64 in a fixed order without fused operations, so that a rotation gives the same
//! bits on every machine and at any number of threads.

use multiversion::multiversion;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use super::paley;
use crate::recipe::RotationKind;

/// Largest Hadamard block that is multiplied as a dense matrix.
const MAX_BLOCK: usize = 512;

/// Rows that go through a dense matrix together.
const ROWS: usize = 8;

/// Uniform numbers whose sum stands for a normal one.
const UNIFORMS: usize = 12;

/// R with x·R for each row x of `width` features: diag(signs) · (H ⊗ B), H the Hadamard matrix of
/// order `power`, a power of two, in Sylvester's order, and B orthogonal.
#[derive(Debug)]
pub(crate) struct Rotation {
    width: usize,
    power: usize,
    signs: Vec<f64>,
    /// B, row-major [width / power, width / power]; empty for 1.
    block: Vec<f64>,
}

impl Rotation {
    /// A rotation of `width` features from `seed`.
    pub(super) fn new(kind: RotationKind, width: usize, seed: u64) -> Self {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let signs = (0..width).map(|_| if random.next_u64() >> 63 == 0 { 1.0 } else { -1.0 });
        let signs: Vec<f64> = signs.collect();
        if kind == RotationKind::Orthogonal {
            return Self { width, power: 1, signs, block: orthogonal(width, &mut random) };
        }
        let largest = 1 << width.trailing_zeros();
        for power in (0..=width.trailing_zeros()).rev().map(|k| 1 << k) {
            let size = width / power;
            if size == 1 {
                return Self { width, power, signs, block: Vec::new() };
            }
            if size <= MAX_BLOCK
                && let Some(mut block) = paley::hadamard(size)
            {
                block.iter_mut().for_each(|x| *x /= (size as f64).sqrt());
                return Self { width, power, signs, block };
            }
        }
        let block = orthogonal(width / largest, &mut random);
        Self { width, power: largest, signs, block }
    }

    /// Rotates each run of `width` values.
    ///
    /// # Panics
    /// If `values` is not whole rows.
    pub(super) fn apply(&self, values: &mut [f64]) {
        assert!(values.len().is_multiple_of(self.width), "whole rows");
        for row in values.chunks_exact_mut(self.width) {
            row.iter_mut().zip(&self.signs).for_each(|(x, sign)| *x *= sign);
        }
        let size = self.width / self.power;
        if !self.block.is_empty() {
            for rows in values.chunks_mut(ROWS * size) {
                multiply(rows, &self.block, size);
            }
        }
        let scale = 1.0 / (self.power as f64).sqrt();
        for row in values.chunks_exact_mut(self.width).filter(|_| self.power > 1) {
            walsh(row, size);
            row.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

/// The Walsh-Hadamard transform over runs of `size` values, not normalised.
fn walsh(row: &mut [f64], size: usize) {
    let mut half = size;
    while half < row.len() {
        for pair in row.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// rows ← rows · matrix, for up to [`ROWS`] rows.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn multiply(rows: &mut [f64], matrix: &[f64], n: usize) {
    let mut products = vec![0.0; rows.len()];
    for (i, line) in matrix.chunks_exact(n).enumerate() {
        for (row, product) in rows.chunks_exact(n).zip(products.chunks_exact_mut(n)) {
            let x = row[i];
            for (product, y) in product.iter_mut().zip(line) {
                *product += x * y;
            }
        }
    }
    rows.copy_from_slice(&products);
}

/// A random orthogonal matrix of order `n`, row-major: the product of reflections in random
/// directions of ever fewer dimensions (G. W. Stewart, The efficient generation of random
/// orthogonal matrices, 1980).
fn orthogonal(n: usize, random: &mut Pcg64Mcg) -> Vec<f64> {
    let mirrors: Vec<Vec<f64>> = (0..n.saturating_sub(1))
        .map(|first| {
            let mut mirror: Vec<f64> = (first..n).map(|_| normal(random)).collect();
            let length = mirror.iter().map(|x| x * x).sum::<f64>().sqrt();
            mirror.iter_mut().for_each(|x| *x /= length);
            mirror
        })
        .collect();
    let mut matrix = vec![0.0; n * n];
    matrix.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
        row[i] = 1.0;
        for (first, mirror) in mirrors.iter().enumerate() {
            let row = &mut row[first..];
            let along: f64 = row.iter().zip(mirror).map(|(x, m)| x * m).sum();
            row.iter_mut().zip(mirror).for_each(|(x, m)| *x -= 2.0 * along * m);
        }
    });
    matrix
}

/// A nearly normal number: a logarithm would differ between systems in its last bit.
fn normal(random: &mut Pcg64Mcg) -> f64 {
    let uniform = |x: u64| (x >> 11) as f64 / (1_u64 << 53) as f64;
    (0..UNIFORMS).map(|_| uniform(random.next_u64())).sum::<f64>() - UNIFORMS as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rotation: &Rotation) -> Vec<f64> {
        let n = rotation.width;
        let mut identity: Vec<f64> =
            (0..n * n).map(|i| f64::from(u8::from(i % (n + 1) == 0))).collect();
        rotation.apply(&mut identity);
        identity
    }

    #[test]
    fn every_width_gives_an_orthogonal_matrix() {
        for kind in [RotationKind::Hadamard, RotationKind::Orthogonal] {
            for n in [1, 2, 6, 9, 16, 24, 40, 64, 72, 160, 576] {
                let r = matrix(&Rotation::new(kind, n, 5));
                let mut worst = 0.0_f64;
                for (i, a) in r.chunks_exact(n).enumerate() {
                    for (j, b) in r.chunks_exact(n).enumerate() {
                        let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                        worst = worst.max((dot - f64::from(u8::from(i == j))).abs());
                    }
                }
                assert!(worst < 1e-13, "{kind:?} {n}: {worst}");
            }
        }
    }

    #[test]
    fn hadamard_matrices_have_entries_of_one_size() {
        for n in [2, 24, 40, 64, 160, 448, 576, 896, 1536, 2560, 3584, 5120] {
            let rotation = Rotation::new(RotationKind::Hadamard, n, 1);
            let mut row = vec![0.0; n];
            row[n / 3] = 1.0;
            rotation.apply(&mut row);
            let size = 1.0 / (n as f64).sqrt();
            assert!(row.iter().all(|x| (x.abs() / size - 1.0).abs() < 1e-12), "{n}");
        }
    }

    #[test]
    fn the_seed_decides() {
        let of = |seed| matrix(&Rotation::new(RotationKind::Orthogonal, 12, seed));
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
