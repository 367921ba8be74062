//! How tensors are cut into panels, the unit of work.
//!
//! The cut depends on the shape alone, never on the number of threads: sums over panels are taken
//! in panel order, so every figure in the manifest is the same on any machine.

use std::ops::Range;

use crate::checkpoint::{Checkpoint, Tensor, dtype::AlignedBytes};
use crate::codec::Codec;
use crate::error::Result;

/// Weights that a panel aims at: 1 MB as f32, which fits a core's L2 cache.
pub(super) const PANEL_WEIGHTS: usize = 1 << 18;

/// Bytes that a piece of a kept tensor aims at.
pub(super) const COPY_BYTES: u64 = 1 << 20;

/// A run of rows of one matrix of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panel {
    /// Which matrix of the stack.
    pub(crate) matrix: usize,
    /// Its rows.
    pub(crate) rows: Range<usize>,
}

/// Rows of a panel of a matrix with `cols` columns: a multiple of `row_multiple`, at least one.
pub(super) fn panel_rows(cols: usize, row_multiple: usize) -> usize {
    (PANEL_WEIGHTS / cols.max(1) / row_multiple).max(1) * row_multiple
}

/// The panels of `matrices` matrices of `rows` x `cols`, in storage order.
pub(crate) fn panels(
    (matrices, rows, cols): (usize, usize, usize),
    row_multiple: usize,
) -> impl Iterator<Item = Panel> {
    let step = panel_rows(cols, row_multiple);
    (0..matrices).flat_map(move |matrix| {
        (0..rows)
            .step_by(step)
            .map(move |first| Panel { matrix, rows: first..rows.min(first + step) })
    })
}

/// Byte range of a panel in each of the stored parts.
pub(super) fn part_ranges(
    codec: &dyn Codec,
    (_, rows, cols): (usize, usize, usize),
    panel: &Panel,
) -> Vec<Range<u64>> {
    let matrix = codec.parts(rows, cols);
    let before = codec.parts(panel.rows.start, cols);
    let inside = codec.parts(panel.rows.len(), cols);
    matrix
        .iter()
        .zip(before.iter().zip(&inside))
        .map(|(matrix, (before, inside))| {
            let start = (panel.matrix * matrix.byte_len() + before.byte_len()) as u64;
            start..start + inside.byte_len() as u64
        })
        .collect()
}

/// Reads a panel's weights as f32.
pub(super) fn read_panel(
    checkpoint: &Checkpoint,
    tensor: &Tensor,
    (_, rows, cols): (usize, usize, usize),
    panel: &Panel,
    scratch: &mut AlignedBytes,
    out: &mut Vec<f32>,
) -> Result<()> {
    out.resize(panel.rows.len() * cols, 0.0);
    let first = (panel.matrix * rows + panel.rows.start) as u64 * cols as u64;
    checkpoint.read_weights(tensor, first, scratch, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn panels_tile_the_parts_of_every_codec() {
        for name in codec::names() {
            let codec = codec::build(name, codec::Params::new()).unwrap();
            for shape in [(1, 1, 1), (3, 7, 1), (2, 13, 100_003), (1, 5000, 577), (2, 6, 64)] {
                let parts = codec.parts(shape.1, shape.2);
                let mut positions = vec![0; parts.len()];
                let mut rows = 0;
                for panel in panels(shape, codec.row_multiple()) {
                    assert_eq!(panel.rows.start % codec.row_multiple(), 0);
                    rows += panel.rows.len();
                    for (position, range) in
                        positions.iter_mut().zip(part_ranges(&*codec, shape, &panel))
                    {
                        assert_eq!(*position, range.start, "{name} {shape:?} {panel:?}");
                        *position = range.end;
                    }
                }
                assert_eq!(rows, shape.0 * shape.1);
                for (position, part) in positions.iter().zip(&parts) {
                    assert_eq!(*position, (shape.0 * part.byte_len()) as u64);
                }
            }
        }
    }
}
