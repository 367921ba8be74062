//! Matrices that are read a run of rows at a time.

/// Why reading failed; whatever the source of the matrix says.
pub type PanelError = Box<dyn std::error::Error + Send + Sync>;

/// A matrix, row-major, that never has to be in memory as a whole. It is read from several
/// threads, each part several times.
pub trait Panels: Sync {
    /// Number of rows.
    fn rows(&self) -> usize;

    /// Number of columns.
    fn cols(&self) -> usize;

    /// Fills `out`, a whole number of rows, with the rows from `first_row` on.
    ///
    /// # Errors
    /// Whatever keeps the source from being read.
    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<(), PanelError>;
}

/// A matrix in memory.
#[derive(Debug, Clone, Copy)]
pub struct DenseMatrix<'a> {
    values: &'a [f32],
    cols: usize,
}

impl<'a> DenseMatrix<'a> {
    /// `values`, row-major with `cols` columns.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows.
    #[must_use]
    pub fn new(values: &'a [f32], cols: usize) -> Self {
        assert!(cols > 0 && values.len().is_multiple_of(cols), "whole rows");
        Self { values, cols }
    }
}

impl Panels for DenseMatrix<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.cols
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<(), PanelError> {
        out.copy_from_slice(&self.values[first_row * self.cols..][..out.len()]);
        Ok(())
    }
}
