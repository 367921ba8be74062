//! Passes over the matrix, panel by panel.
//!
//! Rows are cut into panels and runs of panels (stripes) by the matrix's shape alone; sums over
//! rows are taken panel after panel within a stripe, and the stripes' sums are added in order.
//! That makes results independent of the number of threads, with at most [`STRIPES`] partial
//! sums in memory.

use faer::linalg::matmul::matmul;
use faer::prelude::{Reborrow, ReborrowMut};
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use crate::Error;
use crate::panels::Panels;

/// Weights a panel aims at: 2 MB, what a second-level cache holds.
const PANEL_WEIGHTS: usize = 1 << 19;

/// Most stripes, and so most threads, of a pass.
const STRIPES: usize = 8;

/// What one pass gives.
pub(super) struct Pass {
    /// W·Q, [rows, block].
    pub(super) image: Mat<f32>,
    /// Wᵀ·(W·Q), [cols, block].
    pub(super) back: Mat<f32>,
}

fn panel_rows(cols: usize) -> usize {
    (PANEL_WEIGHTS / cols.max(1)).clamp(8, 512)
}

/// Memory that [`apply`] takes on top of its argument, in numbers of four bytes.
pub(super) fn working_set(rows: usize, cols: usize, block: usize) -> usize {
    let panels = STRIPES * panel_rows(cols) * cols;
    panels + (STRIPES + 1) * cols * block + 2 * rows * block
}

/// The panels of rows `first..last`, as (first row, rows).
fn panels(first: usize, last: usize, cols: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = panel_rows(cols);
    (first..last).step_by(step).map(move |start| (start, step.min(last - start)))
}

/// Runs `work` on every stripe, (first row, past its last row); results in order.
fn for_stripes<T: Send>(
    w: &impl Panels,
    work: impl Fn(usize, usize) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let (rows, step) = (w.rows(), panel_rows(w.cols()));
    let stripe = rows.div_ceil(step).div_ceil(STRIPES) * step;
    let starts: Vec<usize> = (0..rows).step_by(stripe).collect();
    let results: Vec<Result<T, Error>> =
        starts.into_par_iter().map(|first| work(first, rows.min(first + stripe))).collect();
    results.into_iter().collect()
}

/// Largest magnitude in the matrix.
///
/// # Errors
/// [`Error::Panel`], or [`Error::NonFinite`] with the first panel at fault.
pub(super) fn largest_magnitude(w: &impl Panels) -> Result<f32, Error> {
    let cols = w.cols();
    let stripes = for_stripes(w, |first, last| {
        let mut buffer = vec![0.0f32; panel_rows(cols).min(last - first) * cols];
        let mut largest = 0.0f32;
        for (start, count) in panels(first, last, cols) {
            let panel = &mut buffer[..count * cols];
            w.read(start, panel).map_err(Error::Panel)?;
            // Not f32::max, which would lose a NaN.
            let bits = panel.iter().fold(0, |most, x| most.max(x.abs().to_bits()));
            let here = f32::from_bits(bits);
            if !here.is_finite() {
                return Err(Error::NonFinite { first: start, last: start + count - 1 });
            }
            largest = largest.max(here);
        }
        Ok(largest)
    })?;
    Ok(stripes.into_iter().fold(0.0, f32::max))
}

/// W·Q and Wᵀ·W·Q, with `scale`·W in W's place.
///
/// # Errors
/// [`Error::Panel`].
pub(super) fn apply(w: &impl Panels, scale: f32, q: MatRef<'_, f32>) -> Result<Pass, Error> {
    let stripes = for_stripes(w, |first, last| apply_stripe(w, scale, q, first, last))?;
    let mut image = Mat::zeros(w.rows(), q.ncols());
    let mut back = Mat::<f32>::zeros(w.cols(), q.ncols());
    let mut first = 0;
    for stripe in stripes {
        image.get_mut(first..first + stripe.image.nrows(), ..).copy_from(&stripe.image);
        first += stripe.image.nrows();
        back += stripe.back;
    }
    Ok(Pass { image, back })
}

fn apply_stripe(
    w: &impl Panels,
    scale: f32,
    q: MatRef<'_, f32>,
    first: usize,
    last: usize,
) -> Result<Pass, Error> {
    let (cols, block) = (w.cols(), q.ncols());
    let mut image = Mat::zeros(last - first, block);
    let mut back = Mat::zeros(cols, block);
    let mut buffer = vec![0.0; panel_rows(cols).min(last - first) * cols];
    for (start, count) in panels(first, last, cols) {
        let panel = &mut buffer[..count * cols];
        w.read(start, panel).map_err(Error::Panel)?;
        for value in &mut *panel {
            *value *= scale;
        }
        let panel = MatRef::from_row_major_slice(&*panel, count, cols);
        let mut rows = image.get_mut(start - first..start - first + count, ..);
        matmul(rows.rb_mut(), Accum::Replace, panel, q, 1.0, Par::Seq);
        matmul(&mut back, Accum::Add, panel.transpose(), rows.rb(), 1.0, Par::Seq);
    }
    Ok(Pass { image, back })
}
