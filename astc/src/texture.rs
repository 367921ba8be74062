//! How the blocks of a matrix become the layers of a 2D array texture.
//!
//! An adapter limits the width and height of a texture. A larger matrix is cut into tiles of
//! whole blocks, one array layer each. All layers have one size, the matrix is cut as evenly as
//! blocks allow, and the last tiles of a row or column may fill their layer only partly. A tile is
//! uploaded straight from the blocks in raster order: its block rows lie one
//! [`Tile::bytes_per_row`] apart.

use std::ops::Range;

use crate::BlockGrid;

/// The layers of one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextureLayout {
    grid: BlockGrid,
    /// Blocks across and down in a layer.
    layer_blocks: [usize; 2],
    /// Tiles across and down.
    tiles: [usize; 2],
}

/// The part of a matrix that one layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Array layer.
    pub layer: usize,
    /// First block row in the matrix.
    pub first_block_row: usize,
    /// First block column in the matrix.
    pub first_block_col: usize,
    /// Blocks across.
    pub blocks_across: usize,
    /// Blocks down.
    pub blocks_down: usize,
    /// Where its first block starts in the matrix's blocks.
    pub byte_offset: usize,
    /// Bytes from one of its block rows to the next.
    pub bytes_per_row: usize,
}

/// Where a texel lies in the texture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TexelPosition {
    /// Array layer.
    pub layer: usize,
    /// Column in the layer.
    pub x: usize,
    /// Row in the layer.
    pub y: usize,
}

impl TextureLayout {
    /// Cuts `grid` for an adapter whose textures have at most `max_dimension` texels across and
    /// down; `None` if that is less than one block.
    ///
    /// A matrix without weights has no layers.
    pub fn new(grid: BlockGrid, max_dimension: u32) -> Option<Self> {
        let most = |texels: usize| max_dimension as usize / texels;
        Self::of_blocks(grid, most(grid.footprint.width()), most(grid.footprint.height()))
    }

    /// Cuts `grid` into layers of at most so many blocks across and down; `None` if a side has none.
    pub fn of_blocks(grid: BlockGrid, most_across: usize, most_down: usize) -> Option<Self> {
        if most_across == 0 || most_down == 0 {
            return None;
        }
        let cut = |blocks: usize, most: usize| {
            let tiles = blocks.div_ceil(most);
            (blocks.div_ceil(tiles.max(1)), tiles)
        };
        let (across, tiles_across) = cut(grid.blocks_across(), most_across);
        let (down, tiles_down) = cut(grid.blocks_down(), most_down);
        Some(Self { grid, layer_blocks: [across, down], tiles: [tiles_across, tiles_down] })
    }

    /// The matrix.
    pub const fn grid(&self) -> &BlockGrid {
        &self.grid
    }

    /// Texels across in every layer, a multiple of the footprint's width.
    pub const fn layer_width(&self) -> usize {
        self.layer_blocks[0] * self.grid.footprint.width()
    }

    /// Texels down in every layer, a multiple of the footprint's height.
    pub const fn layer_height(&self) -> usize {
        self.layer_blocks[1] * self.grid.footprint.height()
    }

    /// Blocks across and down in every layer.
    pub const fn layer_blocks(&self) -> [usize; 2] {
        self.layer_blocks
    }

    /// Tiles down.
    pub const fn tiles_down(&self) -> usize {
        self.tiles[1]
    }

    /// Tiles across; layer = tile row · tiles across + tile column.
    pub const fn tiles_across(&self) -> usize {
        self.tiles[0]
    }

    /// Array layers.
    pub const fn layers(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// The tiles in order of their layers.
    pub fn tiles(&self) -> impl Iterator<Item = Tile> + use<> {
        let layout = *self;
        (0..layout.layers()).map(move |layer| layout.tile(layer))
    }

    fn tile(&self, layer: usize) -> Tile {
        let [across, down] = self.layer_blocks;
        let first_block_col = layer % self.tiles[0] * across;
        let first_block_row = layer / self.tiles[0] * down;
        let matrix_across = self.grid.blocks_across();
        let first_block = first_block_row * matrix_across + first_block_col;
        Tile {
            layer,
            first_block_row,
            first_block_col,
            blocks_across: across.min(matrix_across - first_block_col),
            blocks_down: down.min(self.grid.blocks_down() - first_block_row),
            byte_offset: first_block * BlockGrid::BLOCK_BYTES,
            bytes_per_row: matrix_across * BlockGrid::BLOCK_BYTES,
        }
    }

    /// Where the weight in `row`, `col` of the matrix lies.
    ///
    /// # Panics
    /// If the matrix has no such weight.
    pub fn position(&self, row: usize, col: usize) -> TexelPosition {
        assert!(row < self.grid.rows && col < self.grid.cols, "no weight at {row}, {col}");
        let (width, height) = (self.layer_width(), self.layer_height());
        let layer = row / height * self.tiles[0] + col / width;
        TexelPosition { layer, x: col % width, y: row % height }
    }

    /// Row and column of the weight at `position`, `None` where the texture has only padding.
    pub fn weight_at(&self, position: TexelPosition) -> Option<(usize, usize)> {
        let TexelPosition { layer, x, y } = position;
        let (width, height) = (self.layer_width(), self.layer_height());
        if layer >= self.layers() || x >= width || y >= height {
            return None;
        }
        let (row, col) = (layer / self.tiles[0] * height + y, layer % self.tiles[0] * width + x);
        (row < self.grid.rows && col < self.grid.cols).then_some((row, col))
    }
}

impl Tile {
    /// The bytes of the matrix's blocks from this tile's first block to its last.
    pub const fn byte_range(&self) -> Range<usize> {
        let last_row = (self.blocks_down - 1) * self.bytes_per_row;
        let length = last_row + self.blocks_across * BlockGrid::BLOCK_BYTES;
        self.byte_offset..self.byte_offset + length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Footprint;

    fn layout(rows: usize, cols: usize, footprint: &str, limit: u32) -> TextureLayout {
        let grid = BlockGrid::new(rows, cols, footprint.parse().unwrap());
        TextureLayout::new(grid, limit).unwrap()
    }

    #[test]
    fn a_matrix_within_the_limit_is_one_layer() {
        // 8192 / 6 = 1365 blocks.
        let layout = layout(8190, 8190, "6x6", 8192);
        assert_eq!((layout.layers(), layout.layer_width(), layout.layer_height()), (1, 8190, 8190));
        let whole = Tile {
            layer: 0,
            first_block_row: 0,
            first_block_col: 0,
            blocks_across: 1365,
            blocks_down: 1365,
            byte_offset: 0,
            bytes_per_row: 1365 * 16,
        };
        assert_eq!(layout.tiles().collect::<Vec<_>>(), [whole]);
        assert_eq!(whole.byte_range(), 0..1365 * 1365 * 16);
    }

    #[test]
    fn a_larger_matrix_is_cut_evenly() {
        // 8191 columns are 1366 blocks: two tiles of 683.
        let wide = layout(6, 8191, "6x6", 8192);
        assert_eq!((wide.layers(), wide.layer_width(), wide.layer_height()), (2, 683 * 6, 6));
        let second = wide.tiles().nth(1).unwrap();
        assert_eq!((second.first_block_col, second.byte_offset), (683, 683 * 16));
        assert_eq!(wide.position(5, 683 * 6), TexelPosition { layer: 1, x: 0, y: 5 });

        // A vocabulary of 151,936 rows at 16,384: 12x10 blocks, 15,194 rows of them, 1638 a layer.
        let tall = layout(151_936, 8192, "12x10", 16_384);
        assert_eq!((tall.tiles_across(), tall.layers()), (1, 10));
        assert_eq!(tall.layer_height(), 15_194_usize.div_ceil(10) * 10);
        let last = tall.tiles().last().unwrap();
        assert_eq!((last.first_block_row, last.blocks_down), (9 * 1520, 15_194 - 9 * 1520));
        assert_eq!(last.byte_range().end, tall.grid().byte_len());
    }

    #[test]
    fn one_row_one_column_and_none() {
        let row = layout(1, 20_000, "4x4", 8192);
        assert_eq!((row.layers(), row.layer_height()), (3, 4));
        let column = layout(20_000, 1, "5x4", 16_384);
        assert_eq!((column.layers(), column.layer_width()), (2, 5));
        assert_eq!(column.position(19_999, 0).layer, 1);
        for (rows, cols) in [(0, 7), (7, 0), (0, 0)] {
            assert_eq!(layout(rows, cols, "6x6", 8192).tiles().count(), 0);
        }
        let grid = BlockGrid::new(1, 1, "6x6".parse().unwrap());
        assert_eq!(TextureLayout::new(grid, 5), None);
    }

    proptest! {
        #[test]
        fn tiles_hold_every_block_once_and_positions_invert(
            rows in 1_usize..200,
            cols in 1_usize..200,
            footprint in 0_usize..14,
            limit in 12_u32..64,
        ) {
            let footprint = Footprint::ALL[footprint];
            let grid = BlockGrid::new(rows, cols, footprint);
            let layout = TextureLayout::new(grid, limit).unwrap();
            prop_assert!(layout.layer_width() <= limit as usize);
            prop_assert!(layout.layer_height() <= limit as usize);
            let mut owner = vec![None; grid.block_count()];
            for tile in layout.tiles() {
                prop_assert!(tile.byte_range().end <= grid.byte_len());
                for down in 0..tile.blocks_down {
                    for across in 0..tile.blocks_across {
                        let byte = tile.byte_offset
                            + down * tile.bytes_per_row
                            + across * BlockGrid::BLOCK_BYTES;
                        prop_assert_eq!(owner[byte / 16].replace((tile, across, down)), None);
                    }
                }
            }
            for row in 0..rows {
                for col in 0..cols {
                    let position = layout.position(row, col);
                    prop_assert_eq!(layout.weight_at(position), Some((row, col)));
                    let (width, height) = (footprint.width(), footprint.height());
                    let block = row / height * grid.blocks_across() + col / width;
                    let (tile, across, down) = owner[block].unwrap();
                    prop_assert_eq!(
                        (position.layer, position.x / width, position.y / height),
                        (tile.layer, across, down)
                    );
                }
            }
        }
    }
}
