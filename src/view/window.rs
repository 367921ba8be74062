//! The part of a matrix that a page shows.

use compress_model_astc::Footprint;
use serde::Serialize;

/// Weights that a window aims at.
const WINDOW_WEIGHTS: usize = 1 << 20;

/// Most weights along a side: the size of texture that every WebGPU adapter takes, less a block.
const MAX_SIDE: usize = 8192 - 12;

/// Rows and columns of a matrix that are shown, counted from its first; whole blocks, except at the
/// edge of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Rows shown.
    pub rows: usize,
    /// Columns shown.
    pub cols: usize,
    /// Whether that is the whole matrix.
    pub whole: bool,
}

impl Window {
    /// The window of a matrix of `rows` x `cols`: all of it up to a million weights, else a square,
    /// or as much of a narrow matrix as gives a million weights.
    #[must_use]
    pub fn of(rows: usize, cols: usize, footprint: Footprint) -> Self {
        let side = WINDOW_WEIGHTS.isqrt();
        let wide = |other: usize| (WINDOW_WEIGHTS / other.max(1)).clamp(side, MAX_SIDE);
        let fits = rows * cols <= WINDOW_WEIGHTS && rows.max(cols) <= MAX_SIDE;
        let (most_rows, most_cols) = if fits { (rows, cols) } else { (wide(cols), wide(rows)) };
        let shown_rows = whole_blocks(rows, most_rows, footprint.height());
        let shown_cols = whole_blocks(cols, most_cols, footprint.width());
        Self { rows: shown_rows, cols: shown_cols, whole: (shown_rows, shown_cols) == (rows, cols) }
    }

    /// Weights in it.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.rows * self.cols
    }
}

/// All of `size` if at most `most`, else the whole blocks in `most`.
fn whole_blocks(size: usize, most: usize, block: usize) -> usize {
    if size <= most { size } else { most / block * block }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_matrices_whole_and_large_ones_in_blocks() {
        let window = |rows, cols| {
            let window = Window::of(rows, cols, Footprint::new(6, 6).expect("a footprint"));
            (window.rows, window.cols, window.whole)
        };
        assert_eq!(window(13, 7), (13, 7, true));
        assert_eq!(window(1536, 576), (1536, 576, true));
        assert_eq!(window(4096, 4096), (1020, 1020, false));
        assert_eq!(window(128, 100_000), (128, 8178, false));
        assert_eq!(window(1, 9000), (1, 8178, false));
        assert_eq!(window(20_000, 576), (1818, 576, false));
    }
}
