//! How a matrix is cut into blocks.

use crate::Footprint;

/// The blocks of a matrix: raster order, 16 bytes each, edge blocks padded to the footprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockGrid {
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub cols: usize,
    /// Footprint of every block.
    pub footprint: Footprint,
}

impl BlockGrid {
    /// Bytes a block.
    pub const BLOCK_BYTES: usize = 16;

    /// The grid of a `rows` by `cols` matrix.
    pub const fn new(rows: usize, cols: usize, footprint: Footprint) -> Self {
        Self { rows, cols, footprint }
    }

    /// Block rows.
    pub const fn blocks_down(&self) -> usize {
        self.rows.div_ceil(self.footprint.height())
    }

    /// Block columns.
    pub const fn blocks_across(&self) -> usize {
        self.cols.div_ceil(self.footprint.width())
    }

    /// Blocks of the whole matrix.
    pub const fn block_count(&self) -> usize {
        self.blocks_down() * self.blocks_across()
    }

    /// Bytes of the whole matrix, row scales not counted.
    pub const fn byte_len(&self) -> usize {
        self.block_count() * Self::BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_blocks_are_counted_whole() {
        let grid = BlockGrid::new(13, 7, Footprint::new(6, 5).unwrap());
        assert_eq!((grid.blocks_down(), grid.blocks_across()), (3, 2));
        assert_eq!((grid.block_count(), grid.byte_len()), (6, 96));
        assert_eq!(BlockGrid::new(0, 7, grid.footprint).byte_len(), 0);
    }
}
