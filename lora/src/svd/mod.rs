//! Truncated SVD by block Krylov iteration (Musco and Musco 2015, Algorithm 2; the range finder
//! of Halko, Martinsson and Tropp 2011 is its first step).
//!
//! From a random block Q₀ of width b the iteration collects an orthonormal basis Q of the space
//! that Q₀, WᵀW·Q₀, (WᵀW)²·Q₀ ... span; the best rank-r approximation within it comes from the
//! eigenvectors of the small matrix (W·Q)ᵀ(W·Q). Weight matrices have flat spectra, on which the
//! Krylov space is far better than the last power alone. When the basis can span all rows or all
//! columns, the result is exact up to rounding.
//!
//! Each step reads W once, panel by panel, after one pass that looks for NaN and for the largest
//! weight. Cost: 4·rows·cols·b flops a step; memory: [`working_set_bytes`].
//!
//! Energy captured, Σσ² over the best possible, on the 73 linear weights of all-mpnet-base-v2
//! (768 to 3072 wide; the best 16 directions hold 7 to 20 % of a weight's energy). The 37 of
//! all-MiniLM-L6-v2 lose less in every line:
//!
//! | rank | oversample | depth | worst | median | seconds for all, 2 cores |
//! |---|---|---|---|---|---|
//! | 16 | 8 | 2 | 0.63905 | 0.73380 | |
//! | 16 | 8 | 4 | 0.95358 | 0.98587 | |
//! | 16 | 8 | 6 | 0.99209 | 0.99967 | 1.41 |
//! | 16 | 8 | 7 | 0.99704 | 0.99996 | 1.70 |
//! | 16 | 8 | 8 | 0.99906 | 1.00000 | 1.96 |
//! | 16 | 4 | 8 | 0.99782 | 0.99999 | 1.61 |
//! | 16 | 16 | 6 | 0.99708 | 0.99995 | 2.09 |
//! | 8 | 8 | 8 | 0.99855 | 1.00000 | |
//! | 32 | 8 | 8 | 0.99966 | 1.00000 | |
//!
//! Results do not depend on the number of threads. They may differ in the last bits between
//! kinds of processors, as the matrix products of faer do.

mod jacobi;
mod orthonormal;
mod ritz;
mod sweep;
#[cfg(test)]
mod tests;

use faer::Mat;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use self::orthonormal::{orthonormalise, random_block};
use crate::Error;
use crate::panels::Panels;

/// How to look for the singular directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SvdOptions {
    /// Number of singular triplets wanted.
    pub rank: usize,
    /// Columns of the block beyond `rank`. Default: 8.
    pub oversample: usize,
    /// Blocks in the basis, which is how often W is multiplied; at least 1. Default: 8,
    /// with which every linear weight of all-MiniLM-L6-v2 and all-mpnet-base-v2 comes within
    /// 0.1 % of the best rank-16 energy (`benches/peers/svd`).
    pub depth: usize,
    /// Seed of the random block. Default: 0.
    pub seed: u64,
}

/// What the iteration does for a matrix of some shape.
struct Extent {
    rank: usize,
    block: usize,
    /// Columns of the basis.
    width: usize,
}

impl SvdOptions {
    /// Defaults for `rank`.
    #[must_use]
    pub fn new(rank: usize) -> Self {
        Self { rank, oversample: 8, depth: 8, seed: 0 }
    }

    fn extent(&self, rows: usize, cols: usize) -> Extent {
        let short = rows.min(cols);
        let rank = self.rank.min(short);
        let block = rank.saturating_add(self.oversample).min(cols);
        // Once the images span all rows or columns, one more block holds every direction.
        let enough = short.div_ceil(block.max(1)) + 1;
        let width = (block * self.depth.clamp(1, enough)).min(cols);
        Extent { rank, block, width }
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

impl TruncatedSvd {
    fn zero(rows: usize, cols: usize, rank: usize) -> Self {
        Self {
            u: vec![0.0; rows * rank],
            s: vec![0.0; rank],
            vt: vec![0.0; rank * cols],
            rows,
            cols,
        }
    }
}

/// Most memory that [`truncated_svd`] holds for a matrix of `rows` x `cols`, in bytes, without
/// what reading a panel takes.
#[must_use]
pub fn working_set_bytes(rows: usize, cols: usize, options: &SvdOptions) -> u64 {
    let Extent { rank, block, width } = options.extent(rows, cols);
    let basis = (rows + cols) * width;
    let iteration = 2 * cols * block + sweep::working_set(rows, cols, block);
    // The Gram matrix, its eigenvectors and what finding them takes, in f64.
    let small = 4 * 2 * width * width;
    let result = (rows + cols) * rank;
    4 * (basis + iteration.max(small + result)) as u64
}

/// The leading `options.rank` singular triplets of `w`, fewer if the matrix has fewer rows or
/// columns. Triplets past the numerical rank have a singular value of zero and zero vectors.
///
/// # Errors
/// [`Error::Panel`] if reading fails, [`Error::NonFinite`] for NaN or infinity.
pub fn truncated_svd(w: &impl Panels, options: &SvdOptions) -> Result<TruncatedSvd, Error> {
    let (rows, cols) = (w.rows(), w.cols());
    let Extent { rank, block, width } = options.extent(rows, cols);
    if rank == 0 {
        return Ok(TruncatedSvd::zero(rows, cols, 0));
    }
    let largest = sweep::largest_magnitude(w)?;
    if largest == 0.0 {
        return Ok(TruncatedSvd::zero(rows, cols, rank));
    }
    let scale = power_of_two_below_inverse(largest);
    let mut rng = Pcg64Mcg::seed_from_u64(options.seed);
    let mut basis = Mat::<f32>::zeros(cols, width);
    let mut image = Mat::<f32>::zeros(rows, width);
    let mut next = random_block(cols, block, &mut rng);
    let mut filled = 0;
    while filled < width {
        let columns = filled..width.min(filled + block);
        let mut directions = next.get(.., ..columns.len()).to_owned();
        orthonormalise(&mut directions, basis.get(.., ..filled), &mut rng);
        basis.get_mut(.., columns.clone()).copy_from(&directions);
        let pass = sweep::apply(w, scale, directions.as_ref())?;
        image.get_mut(.., columns.clone()).copy_from(&pass.image);
        next = pass.back;
        filled = columns.end;
    }
    Ok(ritz::rayleigh_ritz(&basis, &image, rank, scale))
}

/// The power of two that brings `magnitude` to [1, 2): squares of very small or large weights
/// would leave the range of f32, and a power of two rounds nothing.
fn power_of_two_below_inverse(magnitude: f32) -> f32 {
    const BIAS: u32 = 127;
    const MANTISSA_BITS: u32 = 23;
    let exponent = magnitude.to_bits() >> MANTISSA_BITS;
    f32::from_bits((2 * BIAS - exponent.clamp(1, 2 * BIAS - 1)) << MANTISSA_BITS)
}
