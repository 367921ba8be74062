//! Truncated SVD by block Krylov iteration (Musco and Musco 2015, Algorithm 2; the range finder
//! of Halko, Martinsson and Tropp 2011 is its first step).
//!
//! From a random block Q₀ of width b the iteration collects an orthonormal basis of the space
//! that Q₀, WᵀW·Q₀, (WᵀW)²·Q₀ ... span; the best rank-r approximation within it comes from the
//! eigenvectors of the small matrix (W·Q)ᵀ(W·Q). Weight matrices have flat spectra, on which the
//! Krylov space is far better than the last power alone: see `benches/` for measurements.
//!
//! Each step reads W once, panel by panel. Cost: 4·rows·cols·b flops a step; memory: the basis
//! and its image, (rows + cols)·b·steps numbers.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::prelude::{IntoConst, Reborrow, ReborrowMut};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use crate::Error;
use crate::panels::Panels;

/// Weights a panel aims at; rows are cut by shape alone.
const PANEL_WEIGHTS: usize = 1 << 19;

/// Runs of panels that are summed on their own before the sums are added up in order.
const STRIPES: usize = 8;

/// A new direction shorter than this, relative to what it was before it was made orthogonal to
/// the basis, is rounding noise.
const DEPENDENT: f64 = 1e-5;

/// How to look for the singular directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SvdOptions {
    /// Number of singular triplets wanted.
    pub rank: usize,
    /// Columns of the block beyond `rank`. Default: 8.
    pub oversample: usize,
    /// Blocks in the basis, which is how often W is read. Default: 6.
    pub depth: usize,
    /// Seed of the random block. Default: 0.
    pub seed: u64,
}

impl SvdOptions {
    /// Defaults for `rank`.
    #[must_use]
    pub fn new(rank: usize) -> Self {
        Self { rank, oversample: 8, depth: 6, seed: 0 }
    }

    /// Block width for a matrix with `cols` columns.
    fn block(&self, cols: usize) -> usize {
        (self.rank + self.oversample).min(cols)
    }
}

/// Leading singular triplets: W ≈ U·diag(s)·Vᵀ.
#[derive(Debug, Clone)]
pub struct TruncatedSvd {
    /// Left singular vectors, [rows, rank] row-major.
    pub u: Vec<f32>,
    /// Singular values, largest first.
    pub s: Vec<f32>,
    /// Right singular vectors, [rank, cols] row-major.
    pub vt: Vec<f32>,
    /// Rows of W.
    pub rows: usize,
    /// Columns of W.
    pub cols: usize,
}

/// Memory that [`truncated_svd`] takes for a matrix of `rows` x `cols`, in bytes, on as many
/// threads as there are stripes.
#[must_use]
pub fn working_set_bytes(rows: usize, cols: usize, options: &SvdOptions) -> u64 {
    let block = options.block(cols);
    let basis = (rows + cols) * block * options.depth;
    let stripes = STRIPES * (cols * block + panel_rows(cols) * (cols + block));
    let gram = 8 * (block * options.depth).pow(2);
    4 * (basis + stripes + gram) as u64
}

/// The leading `options.rank` singular triplets of `w`, fewer if the matrix has fewer rows or
/// columns. Triplets past the numerical rank have a singular value of zero and zero vectors.
///
/// # Errors
/// [`Error::Panel`] if reading fails, [`Error::NonFinite`] for NaN or infinity,
/// [`Error::NoConvergence`] if the eigenvalue iteration fails.
pub fn truncated_svd(w: &impl Panels, options: &SvdOptions) -> Result<TruncatedSvd, Error> {
    let (rows, cols) = (w.rows(), w.cols());
    let rank = options.rank.min(rows).min(cols);
    let block = options.block(cols);
    if rank == 0 {
        return Ok(TruncatedSvd { u: vec![], s: vec![], vt: vec![], rows, cols });
    }
    // No basis needs more columns than W has.
    let depth = options.depth.clamp(1, cols.div_ceil(block));
    let width = (block * depth).min(cols);
    let mut basis = Mat::<f32>::zeros(cols, width);
    let mut image = Mat::<f32>::zeros(rows, width);
    let mut next = random_block(cols, block, options.seed);
    let mut filled = 0;
    while filled < width {
        let count = block.min(width - filled);
        let mut directions = next.get(.., ..count).to_owned();
        orthonormalise(&mut directions, basis.get(.., ..filled));
        basis.get_mut(.., filled..filled + count).copy_from(&directions);
        let step = apply(w, directions.as_ref())?;
        image.get_mut(.., filled..filled + count).copy_from(&step.image);
        next = step.back;
        filled += count;
    }
    rayleigh_ritz(&basis, &image, rank)
}

/// Standard normal numbers, filled row by row.
fn random_block(rows: usize, cols: usize, seed: u64) -> Mat<f32> {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
    let mut block = Mat::zeros(rows, cols);
    for row in 0..rows {
        for col in 0..cols {
            block[(row, col)] = rng.sample(rand_distr::StandardNormal);
        }
    }
    block
}

/// Makes the columns of `block` orthonormal and orthogonal to `basis`; columns that depend on
/// the others become zero. Everything twice: once is not enough in floating point.
fn orthonormalise(block: &mut Mat<f32>, basis: MatRef<'_, f32>) {
    for _ in 0..2 {
        let before: Vec<f64> = (0..block.ncols()).map(|j| norm(block.col_as_slice(j))).collect();
        if basis.ncols() > 0 {
            let mut shadow = Mat::<f32>::zeros(basis.ncols(), block.ncols());
            matmul(&mut shadow, Accum::Replace, basis.transpose(), &*block, 1.0, Par::Seq);
            matmul(&mut *block, Accum::Add, basis, &shadow, -1.0, Par::Seq);
        }
        for (j, before) in before.iter().enumerate() {
            for i in 0..j {
                let (done, rest) = block.as_mut().split_at_col_mut(j);
                let done = done.into_const();
                let column = as_slice(done, i);
                let target = as_slice_mut(rest, 0);
                let along = dot(column, target);
                for (t, c) in target.iter_mut().zip(column) {
                    *t = (f64::from(*t) - along * f64::from(*c)) as f32;
                }
            }
            let length = norm(block.col_as_slice(j));
            let scale = if length > DEPENDENT * before { 1.0 / length } else { 0.0 };
            for value in block.col_as_slice_mut(j) {
                *value = (f64::from(*value) * scale) as f32;
            }
        }
    }
}

fn as_slice(block: MatRef<'_, f32>, column: usize) -> &[f32] {
    block.col(column).try_as_col_major().expect("invariant: columns are contiguous").as_slice()
}

fn as_slice_mut(block: MatMut<'_, f32>, column: usize) -> &mut [f32] {
    block
        .col_mut(column)
        .try_as_col_major_mut()
        .expect("invariant: columns are contiguous")
        .as_slice_mut()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// What one pass over W, or over some of its rows, gives.
struct Step {
    /// W·Q, [rows, block].
    image: Mat<f32>,
    /// Wᵀ·(W·Q), [cols, block].
    back: Mat<f32>,
}

fn panel_rows(cols: usize) -> usize {
    (PANEL_WEIGHTS / cols.max(1)).clamp(8, 512)
}

fn apply(w: &impl Panels, q: MatRef<'_, f32>) -> Result<Step, Error> {
    let (rows, cols, block) = (w.rows(), w.cols(), q.ncols());
    let step = panel_rows(cols);
    let stripe = rows.div_ceil(step).div_ceil(STRIPES) * step;
    let stripes: Vec<Result<Step, Error>> = (0..rows)
        .step_by(stripe)
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|first| apply_stripe(w, q, first, rows.min(first + stripe), step))
        .collect();
    let mut image = Mat::zeros(rows, block);
    let mut back = Mat::<f32>::zeros(cols, block);
    let mut first = 0;
    for stripe in stripes {
        let part = stripe?;
        image.get_mut(first..first + part.image.nrows(), ..).copy_from(&part.image);
        first += part.image.nrows();
        back += part.back;
    }
    Ok(Step { image, back })
}

fn apply_stripe(
    w: &impl Panels,
    q: MatRef<'_, f32>,
    first: usize,
    last: usize,
    step: usize,
) -> Result<Step, Error> {
    let (cols, block) = (w.cols(), q.ncols());
    let mut image = Mat::zeros(last - first, block);
    let mut back = Mat::zeros(cols, block);
    let mut panel = vec![0.0; step.min(last - first) * cols];
    for start in (first..last).step_by(step) {
        let count = step.min(last - start);
        let panel = &mut panel[..count * cols];
        w.read(start, panel).map_err(Error::Panel)?;
        if !panel.iter().fold(true, |ok, x| ok & x.is_finite()) {
            return Err(Error::NonFinite { first: start, last: start + count - 1 });
        }
        let panel = MatRef::from_row_major_slice(&*panel, count, cols);
        let mut rows = image.get_mut(start - first..start - first + count, ..);
        matmul(rows.rb_mut(), Accum::Replace, panel, q, 1.0, Par::Seq);
        matmul(&mut back, Accum::Add, panel.transpose(), rows.rb(), 1.0, Par::Seq);
    }
    Ok(Step { image, back })
}

/// The best rank-`rank` approximation of W within the basis Q, given the image W·Q.
fn rayleigh_ritz(basis: &Mat<f32>, image: &Mat<f32>, rank: usize) -> Result<TruncatedSvd, Error> {
    let width = basis.ncols();
    let (values, vectors) = eigen(&gram(image))?;
    // Eigenvalues come in ascending order.
    let leading = vectors.get(.., width - rank..).to_owned();
    let leading = Mat::from_fn(width, rank, |i, k| leading[(i, rank - 1 - k)] as f32);
    let s: Vec<f32> = (0..rank).map(|k| values[width - 1 - k].max(0.0).sqrt() as f32).collect();
    let (rows, cols) = (image.nrows(), basis.nrows());
    let mut u = vec![0.0; rows * rank];
    let u_view = MatMut::from_row_major_slice_mut(&mut u, rows, rank);
    matmul(u_view, Accum::Replace, image, &leading, 1.0, Par::Seq);
    let floor = s[0] * f32::EPSILON * width as f32;
    for row in u.chunks_exact_mut(rank) {
        for (value, &s) in row.iter_mut().zip(&s) {
            *value = if s > floor { *value / s } else { 0.0 };
        }
    }
    let mut vt = vec![0.0; rank * cols];
    let vt_view = MatMut::from_row_major_slice_mut(&mut vt, rank, cols);
    matmul(vt_view, Accum::Replace, leading.transpose(), basis.transpose(), 1.0, Par::Seq);
    let s = s.into_iter().map(|s| if s > floor { s } else { 0.0 }).collect();
    Ok(TruncatedSvd { u, s, vt, rows, cols })
}

/// BᵀB in f64, summed over runs of rows in order.
fn gram(image: &Mat<f32>) -> Mat<f64> {
    const RUN: usize = 512;
    let width = image.ncols();
    let mut gram = Mat::<f64>::zeros(width, width);
    for first in (0..image.nrows()).step_by(RUN) {
        let count = RUN.min(image.nrows() - first);
        let rows = Mat::<f64>::from_fn(count, width, |i, j| f64::from(image[(first + i, j)]));
        matmul(&mut gram, Accum::Add, rows.transpose(), &rows, 1.0, Par::Seq);
    }
    gram
}

fn eigen(a: &Mat<f64>) -> Result<(Vec<f64>, Mat<f64>), Error> {
    let n = a.nrows();
    let mut values = Diag::<f64>::zeros(n);
    let mut vectors = Mat::<f64>::zeros(n, n);
    let params = Default::default();
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, params);
    let mut buffer = MemBuffer::new(scratch);
    self_adjoint_evd(
        a.as_ref(),
        values.as_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut buffer),
        params,
    )
    .map_err(|_| Error::NoConvergence)?;
    let values = (0..n).map(|i| values.column_vector()[i]).collect();
    Ok((values, vectors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::DenseMatrix;

    /// rows x cols with singular values `spectrum(k)`, by way of random orthonormal factors.
    fn with_spectrum(rows: usize, cols: usize, spectrum: impl Fn(usize) -> f32) -> Vec<f32> {
        let k = rows.min(cols);
        let mut u = random_block(rows, k, 1);
        let mut v = random_block(cols, k, 2);
        orthonormalise(&mut u, Mat::zeros(rows, 0).as_ref());
        orthonormalise(&mut v, Mat::zeros(cols, 0).as_ref());
        for j in 0..k {
            for value in u.col_as_slice_mut(j) {
                *value *= spectrum(j);
            }
        }
        let mut w = vec![0.0; rows * cols];
        let view = MatMut::from_row_major_slice_mut(&mut w, rows, cols);
        matmul(view, Accum::Replace, &u, v.transpose(), 1.0, Par::Seq);
        w
    }

    fn product(svd: &TruncatedSvd) -> Vec<f32> {
        let rank = svd.s.len();
        let mut w = vec![0.0; svd.rows * svd.cols];
        for (row, u) in w.chunks_exact_mut(svd.cols).zip(svd.u.chunks_exact(rank)) {
            for k in 0..rank {
                for (w, v) in row.iter_mut().zip(&svd.vt[k * svd.cols..][..svd.cols]) {
                    *w += u[k] * svd.s[k] * v;
                }
            }
        }
        w
    }

    #[test]
    fn known_singular_values_come_back() {
        for (rows, cols) in [(300, 200), (90, 410)] {
            let w = with_spectrum(rows, cols, |k| 10.0 * 0.9f32.powi(k as i32));
            let matrix = DenseMatrix::new(&w, cols);
            let svd = truncated_svd(&matrix, &SvdOptions::new(8)).unwrap();
            for (k, s) in svd.s.iter().enumerate() {
                let expected = 10.0 * 0.9f32.powi(k as i32);
                assert!((s / expected - 1.0).abs() < 1e-4, "{k}: {s} {expected}");
            }
        }
    }

    #[test]
    fn a_flat_spectrum_is_caught_to_half_a_percent() {
        // Slower than any real weight: σ falls by 1/250 of itself a step.
        let w = with_spectrum(320, 500, |k| 1.0 - k as f32 / 400.0);
        let svd = truncated_svd(&DenseMatrix::new(&w, 500), &SvdOptions::new(16)).unwrap();
        let energy = |s: f32| f64::from(s).powi(2);
        let found: f64 = svd.s.iter().map(|&s| energy(s)).sum();
        let best: f64 = (0..16).map(|k| energy(1.0 - k as f32 / 400.0)).sum();
        assert!(found / best > 0.98, "{}", found / best);
    }

    #[test]
    fn small_thin_and_deficient_matrices_are_exact() {
        for (rows, cols) in [(1, 1), (1, 17), (17, 1), (5, 7), (23, 19), (64, 3)] {
            let w: Vec<f32> = random_block(rows, cols, 3)
                .as_ref()
                .transpose()
                .col_iter()
                .flat_map(|c| c.iter().copied().collect::<Vec<_>>())
                .collect();
            let matrix = DenseMatrix::new(&w, cols);
            let svd = truncated_svd(&matrix, &SvdOptions::new(64)).unwrap();
            assert_eq!(svd.s.len(), rows.min(cols));
            for (a, b) in product(&svd).iter().zip(&w) {
                assert!((a - b).abs() < 1e-4, "{rows}x{cols}: {a} {b}");
            }
        }
        let zeros = vec![0.0; 40 * 30];
        let svd = truncated_svd(&DenseMatrix::new(&zeros, 30), &SvdOptions::new(4)).unwrap();
        assert_eq!(svd.s, [0.0; 4]);
        assert!(svd.u.iter().all(|&x| x == 0.0));
        let rank_one: Vec<f32> = (0..1200).map(|i| (i / 30) as f32 * (i % 30) as f32).collect();
        let svd = truncated_svd(&DenseMatrix::new(&rank_one, 30), &SvdOptions::new(4)).unwrap();
        assert!(svd.s[1] < svd.s[0] * 1e-4);
        for (a, b) in product(&svd).iter().zip(&rank_one) {
            assert!((a - b).abs() < 0.01, "{a} {b}");
        }
        let none = truncated_svd(&DenseMatrix::new(&zeros, 30), &SvdOptions::new(0)).unwrap();
        assert!(none.s.is_empty());
    }

    #[test]
    fn the_same_on_any_number_of_threads() {
        let w = with_spectrum(700, 300, |k| 1.0 / (1.0 + k as f32));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                truncated_svd(&DenseMatrix::new(&w, 300), &SvdOptions::new(16)).unwrap()
            })
        };
        let one = run(1);
        for threads in [2, 5] {
            let other = run(threads);
            assert!(one.u == other.u && one.s == other.s && one.vt == other.vt, "{threads}");
        }
    }

    #[test]
    fn bad_input_is_named() {
        let mut w = vec![1.0; 2000 * 30];
        w[1500 * 30] = f32::NAN;
        let error = truncated_svd(&DenseMatrix::new(&w, 30), &SvdOptions::new(4)).unwrap_err();
        assert!(
            matches!(error, Error::NonFinite { first, last } if (first..=last).contains(&1500))
        );
    }
}
