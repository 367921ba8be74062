//! What a format has to offer to be coded column by column.

use std::ops::Range;

/// Codes the columns of one panel of rows.
///
/// Columns come and go as f32 in column-major order: `rows` weights of a column, then the next.
/// The coder keeps the codes; [`Self::propose`] makes some, [`Self::accept`] keeps them.
pub trait ColumnCoder {
    /// Columns that are coded together: units start at multiples of it.
    fn width(&self) -> usize;

    /// Rows that are accepted or left together: tiles start at multiples of it.
    fn height(&self) -> usize;

    /// Columns that share the scales of [`Self::rescale`]: segments start at multiples of it.
    /// None where scales cannot be changed on their own.
    fn segment(&self) -> Option<usize>;

    /// Codes `columns`, one unit, for the weights `target`, and writes what the codes decode to,
    /// both [columns, rows]. The error of column i counts `importance[i]` times.
    fn propose(
        &mut self,
        columns: Range<usize>,
        target: &[f32],
        importance: &[f32],
        decoded: &mut [f32],
    );

    /// Keeps the codes of the last proposal for those tiles of `columns` that `tiles` marks, from
    /// the top.
    fn accept(&mut self, columns: Range<usize>, tiles: &[bool]);

    /// Multiplies the scale of each row in segment `segment` by its factor, as far as the format
    /// can, and replaces each factor by the one that was reached.
    fn rescale(&mut self, segment: usize, factors: &mut [f32]);
}
