//! A run of rows on its way from weights to codes.

use faer::MatRef;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, Par};

/// Rows of a weight matrix and what their codes decode to, in column-major order so that one
/// vector holds the same column of several rows.
#[derive(Debug, Clone)]
pub struct Panel {
    rows: usize,
    cols: usize,
    wanted: Vec<f32>,
    decoded: Vec<f32>,
}

impl Panel {
    /// Takes `weights`, row-major with `cols` columns; nothing is coded yet.
    ///
    /// # Panics
    /// If `weights` is not whole rows.
    #[must_use]
    pub fn new(weights: &[f32], cols: usize) -> Self {
        let rows = weights.len().checked_div(cols).unwrap_or(0);
        assert_eq!(rows * cols, weights.len(), "whole rows");
        let mut wanted = vec![0.0; weights.len()];
        transpose(weights, cols, &mut wanted);
        Self { rows, cols, decoded: wanted.clone(), wanted }
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// What the codes decode to, row-major.
    #[must_use]
    pub fn decoded(&self) -> Vec<f32> {
        let mut decoded = vec![0.0; self.decoded.len()];
        transpose(&self.decoded, self.rows, &mut decoded);
        decoded
    }

    /// The weights [cols, rows].
    pub(crate) fn wanted(&self) -> &[f32] {
        &self.wanted
    }

    /// What the codes decode to [cols, rows].
    pub(crate) fn decoded_columns(&self) -> &[f32] {
        &self.decoded
    }

    pub(crate) fn decoded_columns_mut(&mut self) -> &mut [f32] {
        &mut self.decoded
    }
}

/// Turns `from`, row-major with `cols` columns, into column-major order.
fn transpose(from: &[f32], cols: usize, to: &mut [f32]) {
    let rows = from.len().checked_div(cols).unwrap_or(0);
    const TILE: usize = 16;
    for first_row in (0..rows).step_by(TILE) {
        for first_col in (0..cols).step_by(TILE) {
            for row in first_row..rows.min(first_row + TILE) {
                for col in first_col..cols.min(first_col + TILE) {
                    to[col * rows + row] = from[row * cols + col];
                }
            }
        }
    }
}

/// out += scale · Σ_k h[k, first..first + out columns] · columns[k]: `columns` and `out` are
/// column-major panels of `rows` rows, and row k of `h`, [k, stride] row-major, belongs to column
/// k of `columns`.
pub(crate) fn add_products(
    out: &mut [f32],
    columns: &[f32],
    rows: usize,
    h: &[f32],
    stride: usize,
    first: usize,
    scale: f32,
) {
    if out.is_empty() || columns.is_empty() {
        return;
    }
    let (count, inner) = (out.len() / rows, columns.len() / rows);
    let h = MatRef::from_row_major_slice(&h[..inner * stride], inner, stride);
    matmul(
        MatMut::from_column_major_slice_mut(out, rows, count),
        Accum::Add,
        MatRef::from_column_major_slice(columns, rows, inner),
        h.subcols(first, count),
        scale,
        Par::Seq,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let weights: Vec<f32> = (0..37 * 53).map(|i| i as f32).collect();
        let panel = Panel::new(&weights, 53);
        assert_eq!((panel.rows(), panel.cols()), (37, 53));
        assert_eq!(panel.wanted()[..3], [0.0, 53.0, 106.0]);
        assert_eq!(panel.decoded(), weights);
    }
}
