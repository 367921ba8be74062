//! Second moments of inputs, H = XᵀX and its like, added up over any number of tokens.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Tokens whose products are summed in f32 before they go into the f64 sums.
const CHUNK_TOKENS: usize = 1024;

/// Rows of H that a task computes.
const STRIP: usize = 96;

/// Sums of x·xᵀ over tokens: f64, so that millions of tokens lose nothing. Only the lower half is
/// computed, in strips of rows whose cut depends on the width alone.
#[derive(Debug, Clone)]
pub struct Gram {
    n: usize,
    tokens: u64,
    lower: Vec<f64>,
}

impl Gram {
    /// Nothing yet, for inputs of width `n`.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { n, tokens: 0, lower: vec![0.0; n * n] }
    }

    /// Bytes that inputs of width `n` take.
    #[must_use]
    pub fn bytes(n: usize) -> u64 {
        (n * n * size_of::<f64>()) as u64
    }

    /// The width.
    #[must_use]
    pub fn width(&self) -> usize {
        self.n
    }

    /// Tokens so far.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Adds `x`, [tokens, n] row-major. The same rows in the same calls give the same bits at any
    /// number of threads.
    ///
    /// # Panics
    /// If `x` is not whole rows.
    pub fn add(&mut self, x: &[f32]) {
        let n = self.n;
        if n == 0 {
            return;
        }
        assert!(x.len().is_multiple_of(n), "whole rows");
        self.tokens += (x.len() / n) as u64;
        add_strips(&mut self.lower, x, x, n, Half::Lower);
    }

    /// Adds the sums of `other`.
    ///
    /// # Panics
    /// If it is of another width.
    pub fn absorb(&mut self, other: &Self) {
        assert_eq!(self.n, other.n, "sums of one width");
        self.tokens += other.tokens;
        self.lower.iter_mut().zip(&other.lower).for_each(|(sum, other)| *sum += other);
    }

    /// The mean of x·xᵀ: f32 [n, n], symmetric; zeros before the first token.
    #[must_use]
    pub fn mean(&self) -> Vec<f32> {
        let n = self.n;
        let share = 1.0 / self.tokens.max(1) as f64;
        let mut mean = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let value = (self.lower[i * n + j] * share) as f32;
                mean[i * n + j] = value;
                mean[j * n + i] = value;
            }
        }
        mean
    }
}

/// Sums of d·xᵀ over tokens, [m, n] in f64, for two kinds of rows d and x of the same tokens.
#[derive(Debug, Clone)]
pub struct CrossGram {
    n: usize,
    tokens: u64,
    sums: Vec<f64>,
}

impl CrossGram {
    /// Nothing yet, for rows d of width `m` and x of width `n`.
    #[must_use]
    pub fn new(m: usize, n: usize) -> Self {
        Self { n, tokens: 0, sums: vec![0.0; m * n] }
    }

    /// Adds rows `d` [tokens, m] and `x` [tokens, n], row-major.
    ///
    /// # Panics
    /// If the two do not hold whole rows of the same number of tokens.
    pub fn add(&mut self, d: &[f32], x: &[f32]) {
        let n = self.n;
        if n == 0 || self.sums.is_empty() {
            return;
        }
        let m = self.sums.len() / n;
        let tokens = x.len() / n;
        assert!(tokens * n == x.len() && tokens * m == d.len(), "whole rows of the same tokens");
        self.tokens += tokens as u64;
        add_strips(&mut self.sums, d, x, n, Half::Both);
    }

    /// The mean of d·xᵀ: f32 [m, n]; zeros before the first token.
    #[must_use]
    pub fn mean(&self) -> Vec<f32> {
        let share = 1.0 / self.tokens.max(1) as f64;
        self.sums.iter().map(|sum| (sum * share) as f32).collect()
    }
}

/// Which columns of the sums a strip of rows needs.
#[derive(Clone, Copy, PartialEq)]
enum Half {
    /// Those up to the diagonal.
    Lower,
    /// All.
    Both,
}

/// Adds Σ d·xᵀ over the tokens of `d` [tokens, m] and `x` [tokens, n] to `sums` [m, n]. Strips of
/// rows run side by side, each through all tokens, and one that has the most columns to compute
/// starts first: no thread waits for others before the end.
fn add_strips(sums: &mut [f64], d: &[f32], x: &[f32], n: usize, half: Half) {
    let m = sums.len() / n;
    let mut strips: Vec<(usize, &mut [f64])> = sums.chunks_mut(STRIP * n).enumerate().collect();
    strips.reverse();
    strips.into_par_iter().with_max_len(1).for_each(|(strip, sums)| {
        let (first, rows) = (strip * STRIP, sums.len() / n);
        let cols = if half == Half::Lower { first + rows } else { n };
        let mut product = vec![0.0f32; rows * cols];
        for (d, x) in d.chunks(CHUNK_TOKENS * m).zip(x.chunks(CHUNK_TOKENS * n)) {
            let d = MatRef::from_row_major_slice(d, d.len() / m, m);
            let x = MatRef::from_row_major_slice(x, x.len() / n, n);
            matmul(
                MatMut::from_row_major_slice_mut(&mut product, rows, cols),
                Accum::Replace,
                d.subcols(first, rows).transpose(),
                x.subcols(0, cols),
                1.0,
                Par::Seq,
            );
            for (sums, product) in sums.chunks_exact_mut(n).zip(product.chunks_exact(cols)) {
                for (sum, product) in sums.iter_mut().zip(product) {
                    *sum += f64::from(*product);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let mut gram = Gram::new(2);
        gram.add(&[1.0, 2.0, 3.0, -1.0]);
        gram.add(&[0.0, 1.0]);
        assert_eq!(gram.tokens(), 3);
        let third = |x: f64| (x / 3.0) as f32;
        assert_eq!(gram.mean(), [third(10.0), third(-1.0), third(-1.0), third(6.0)]);
    }

    #[test]
    fn millions_of_tokens_lose_nothing() {
        let mut gram = Gram::new(1);
        let x = vec![1.0 + 1.0 / 4096.0; 1 << 20];
        for _ in 0..4 {
            gram.add(&x);
        }
        let square = (1.0 + 1.0 / 4096.0f64).powi(2);
        assert!((f64::from(gram.mean()[0]) / square - 1.0).abs() < 1e-7, "{}", gram.mean()[0]);
    }

    #[test]
    fn cross_moments_of_a_matrix_with_itself_are_its_gram() {
        let n = 130;
        let x: Vec<f32> = (0..50 * n).map(|i| ((i * 31) % 17) as f32 - 8.0).collect();
        let mut gram = Gram::new(n);
        gram.add(&x);
        let mut cross = CrossGram::new(n, n);
        cross.add(&x, &x);
        assert_eq!(cross.mean(), gram.mean());
        let mut two = CrossGram::new(1, 2);
        two.add(&[2.0, -1.0], &[1.0, 3.0, 5.0, 7.0]);
        assert_eq!(two.mean(), [-1.5, -0.5]);
    }
}
