//! A low-rank adapter, W ≈ B·A, as it is stored.

use half::f16;
use half::slice::HalfFloatSliceExt;
use multiversion::multiversion;

use crate::Error;
use crate::svd::TruncatedSvd;

/// Columns worked on at a time: they and their sums stay in the first-level cache.
const COLUMN_RUN: usize = 1024;

/// The factors of an adapter in fp16, with scale alpha / rank = 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// A, [rank, in_features] row-major.
    pub a: Vec<f16>,
    /// B, [out_features, rank] row-major.
    pub b: Vec<f16>,
    rank: usize,
    a_f32: Vec<f32>,
}

impl Adapter {
    /// The adapter of a truncated SVD: A = √S·Vᵀ, B = U·√S, each rounded to fp16.
    ///
    /// # Errors
    /// [`Error::FactorOverflow`] if a factor is beyond fp16.
    pub fn from_svd(svd: &TruncatedSvd) -> Result<Self, Error> {
        let rank = svd.s.len();
        let roots: Vec<f32> = svd.s.iter().map(|s| s.sqrt()).collect();
        let a = svd.vt.iter().enumerate().map(|(i, v)| v * roots[i / svd.cols]);
        let b = svd.u.iter().enumerate().map(|(i, u)| u * roots[i % rank]);
        Self::from_factors(&a.collect::<Vec<_>>(), &b.collect::<Vec<_>>(), rank)
    }

    /// The adapter of factors `a` [rank, in_features] and `b` [out_features, rank], rounded to fp16.
    ///
    /// # Errors
    /// [`Error::FactorOverflow`] if a factor is beyond fp16.
    ///
    /// # Panics
    /// If the factors are not whole rows of `rank` vectors.
    pub fn from_factors(a: &[f32], b: &[f32], rank: usize) -> Result<Self, Error> {
        let whole = |len: usize| len.is_multiple_of(rank.max(1));
        assert!(whole(a.len()) && whole(b.len()), "factors of rank {rank}");
        let round = |values: &[f32]| {
            let rounded: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
            match rounded.iter().position(|x| !x.is_finite()) {
                None => Ok(rounded),
                Some(i) => Err(Error::FactorOverflow(values[i])),
            }
        };
        Ok(Self::from_f16(round(a)?, round(b)?, rank))
    }

    pub(crate) fn from_f16(a: Vec<f16>, b: Vec<f16>, rank: usize) -> Self {
        let a_f32 = a.to_f32_vec();
        Self { a, b, rank, a_f32 }
    }

    /// The rank.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// in_features, the columns of the weight.
    #[must_use]
    pub fn in_features(&self) -> usize {
        self.a.len() / self.rank.max(1)
    }

    /// out_features, the rows of the weight.
    #[must_use]
    pub fn out_features(&self) -> usize {
        self.b.len() / self.rank.max(1)
    }

    /// Subtracts B·A from `panel`, the weight's rows from `first_row` on.
    ///
    /// # Panics
    /// If the panel is not whole rows of the weight.
    pub fn subtract_from(&self, first_row: usize, panel: &mut [f32]) {
        self.for_each_row(first_row, panel, -1.0);
    }

    /// Adds B·A to `panel`, the weight's rows from `first_row` on.
    ///
    /// # Panics
    /// If the panel is not whole rows of the weight.
    pub fn add_to(&self, first_row: usize, panel: &mut [f32]) {
        self.for_each_row(first_row, panel, 1.0);
    }

    fn for_each_row(&self, first_row: usize, panel: &mut [f32], sign: f32) {
        if self.rank == 0 {
            return;
        }
        let cols = self.in_features();
        assert!(panel.len().is_multiple_of(cols), "whole rows");
        for (i, row) in panel.chunks_exact_mut(cols).enumerate() {
            let b = &self.b[(first_row + i) * self.rank..][..self.rank];
            add_row(&b.to_f32_vec(), &self.a_f32, row, sign);
        }
    }
}

/// row += sign·Σ_k b_k·a_k, the sum taken in order of k without fused operations, so that a
/// weight's value depends on neither the vector width nor the cut into panels.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn add_row(b: &[f32], a: &[f32], row: &mut [f32], sign: f32) {
    let cols = row.len();
    let mut sums = [0.0f32; COLUMN_RUN];
    for (run, row) in row.chunks_mut(COLUMN_RUN).enumerate() {
        let sums = &mut sums[..row.len()];
        sums.fill(0.0);
        for (k, &b) in b.iter().enumerate() {
            let a = &a[k * cols + run * COLUMN_RUN..][..sums.len()];
            for (sum, &a) in sums.iter_mut().zip(a) {
                *sum += b * a;
            }
        }
        for (w, &sum) in row.iter_mut().zip(&*sums) {
            *w += sign * sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter() -> Adapter {
        let a = [1.0, 2.0, -1.0, 0.5, 0.0, 4.0];
        let b = [1.0, 0.0, 0.0, 2.0, -1.0, 1.0, 3.0, 3.0];
        Adapter::from_factors(&a, &b, 2).unwrap()
    }

    #[test]
    fn by_hand() {
        let adapter = adapter();
        assert_eq!((adapter.rank(), adapter.in_features(), adapter.out_features()), (2, 3, 4));
        let mut w = [10.0; 12];
        adapter.subtract_from(0, &mut w);
        let expected = [9.0, 8.0, 11.0, 9.0, 10.0, 2.0, 10.5, 12.0, 5.0, 5.5, 4.0, 1.0];
        assert_eq!(w, expected);
        let mut rows = [0.0; 6];
        adapter.add_to(2, &mut rows);
        assert_eq!(rows, [-0.5, -2.0, 5.0, 4.5, 6.0, 9.0]);
    }

    #[test]
    fn roots_are_shared_and_overflow_is_refused() {
        let svd =
            TruncatedSvd { u: vec![1.0, 0.0], s: vec![4.0], vt: vec![0.5; 3], rows: 2, cols: 3 };
        let adapter = Adapter::from_svd(&svd).unwrap();
        assert_eq!(adapter.a, [f16::ONE; 3]);
        assert_eq!(adapter.b, [f16::from_f32(2.0), f16::ZERO]);
        let huge = TruncatedSvd { s: vec![1e12], ..svd };
        assert!(matches!(Adapter::from_svd(&huge), Err(Error::FactorOverflow(_))));
    }

    proptest::proptest! {
        #[test]
        fn any_cut_into_panels_gives_the_same_bits(
            rows in 1usize..9, cols in 1usize..2100, cut in 0usize..9, seed in 0u32..1000,
        ) {
            let number = |i: usize| ((i as u32 ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7;
            let rank = 3;
            let a: Vec<f32> = (0..rank * cols).map(number).collect();
            let b: Vec<f32> = (0..rows * rank).map(|i| number(i + 7)).collect();
            let adapter = Adapter::from_factors(&a, &b, rank).unwrap();
            let mut whole: Vec<f32> = (0..rows * cols).map(|i| number(i + 99)).collect();
            let mut parts = whole.clone();
            adapter.subtract_from(0, &mut whole);
            let cut = cut.min(rows);
            let (first, second) = parts.split_at_mut(cut * cols);
            adapter.subtract_from(0, first);
            adapter.subtract_from(cut, second);
            proptest::prop_assert_eq!(whole, parts);
        }
    }
}
