//! How a coded matrix becomes the layers of a texture.
//!
//! A texture of E matrices has one layer a matrix, unless a matrix is larger than the limit of a
//! texture's sides: then it is cut into equal tiles of whole blocks, and its layers are the tiles
//! in raster order. Tiles past the edge of the matrix are filled up with copies of its last
//! blocks, whose texels mean nothing.

use compress_model_astc::{BlockGrid, TextureLayout};
use serde::Serialize;

/// Equal matrices of blocks, and how each is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    matrices: usize,
    layout: TextureLayout,
}

/// The layers of one tensor's texture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tiling {
    /// Texels across a layer.
    pub width: usize,
    /// Texels down a layer.
    pub height: usize,
    /// Layers: matrices x tiles down x tiles across, the last running fastest.
    pub layers: usize,
    /// Tiles across a matrix.
    pub tiles_across: usize,
    /// Tiles down a matrix.
    pub tiles_down: usize,
}

/// A run of blocks of one layer: `blocks` that are stored one after the other from block `from`
/// of the tensor on, then copies of the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) from: usize,
    pub(super) blocks: usize,
    pub(super) copies: usize,
}

impl Source {
    /// Cuts matrices for textures of at most `limit` texels along a side; `None` where not even one
    /// block fits, or there are no weights.
    ///
    /// A side that fits the limit stays whole, its last block may reach past it.
    pub(super) fn new(matrices: usize, grid: BlockGrid, limit: u32) -> Option<Self> {
        let limit = limit as usize;
        let most = |texels: usize, blocks: usize, block: usize| {
            if limit >= block && texels <= limit { blocks } else { limit / block }
        };
        let across = most(grid.cols, grid.blocks_across(), grid.footprint.width());
        let down = most(grid.rows, grid.blocks_down(), grid.footprint.height());
        let layout = TextureLayout::of_blocks(grid, across, down)?;
        (matrices * layout.layers() > 0).then_some(Self { matrices, layout })
    }

    /// The layers. A side of one tile has the matrix's own length.
    pub(super) fn tiling(&self) -> Tiling {
        let (grid, layout) = (self.layout.grid(), &self.layout);
        let (tiles_across, tiles_down) = (layout.tiles_across(), layout.tiles_down());
        Tiling {
            width: if tiles_across == 1 { grid.cols } else { layout.layer_width() },
            height: if tiles_down == 1 { grid.rows } else { layout.layer_height() },
            layers: self.matrices * layout.layers(),
            tiles_across,
            tiles_down,
        }
    }

    /// The blocks of all layers in order, a run for each block row of each layer.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> + use<> {
        let Self { matrices, layout } = *self;
        let grid = *layout.grid();
        let [layer_across, layer_down] = layout.layer_blocks();
        let (across, down) = (grid.blocks_across(), grid.blocks_down());
        (0..matrices).flat_map(move |matrix| {
            layout.tiles().flat_map(move |tile| {
                (0..layer_down).map(move |row| {
                    let row = (tile.first_block_row + row).min(down - 1);
                    let from = (matrix * down + row) * across + tile.first_block_col;
                    let blocks = tile.blocks_across;
                    Run { from, blocks, copies: layer_across - blocks }
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_matrices_are_one_layer_and_large_ones_tiles() {
        let cut = |rows, cols, limit| {
            Source::new(1, BlockGrid::new(rows, cols, "6x6".parse().unwrap()), limit)
        };
        let source = |rows, cols, limit| cut(rows, cols, limit).unwrap();
        let whole = source(576, 1536, 16384).tiling();
        assert_eq!((whole.width, whole.height, whole.layers), (1536, 576, 1));
        // 49152 x 576 at 16384: 8192 block rows, at most 2730 a tile.
        let long = source(49152, 576, 16384).tiling();
        assert_eq!((long.width, long.height, long.tiles_down, long.layers), (576, 12288, 4, 4));
        assert!(cut(8, 8, 5).is_none());
        assert!(cut(0, 8, 100).is_none());
        // Nothing but the limit forces tiles: 100 texels fit 100.
        assert_eq!(source(100, 100, 100).tiling().layers, 1);
        // 17 blocks in tiles of at most 16 blocks: 9 and 8.
        let two = source(6, 101, 100).tiling();
        assert_eq!((two.width, two.tiles_across), (54, 2));
        let runs: Vec<Run> = source(6, 101, 100).runs().collect();
        assert_eq!(runs[0], Run { from: 0, blocks: 9, copies: 0 });
        assert_eq!(runs[1], Run { from: 9, blocks: 8, copies: 1 });
    }

    proptest! {
        #[test]
        fn every_block_is_in_its_place(
            matrices in 1_usize..3,
            rows in 1_usize..90,
            cols in 1_usize..90,
            limit in 6_usize..40,
        ) {
            let grid = BlockGrid::new(rows, cols, "6x5".parse().unwrap());
            let source = Source::new(matrices, grid, limit as u32).unwrap();
            let (across, down) = (grid.blocks_across(), grid.blocks_down());
            let tiling = source.tiling();
            prop_assert!(tiling.width <= limit.max(cols.min(limit)) && tiling.height <= limit);
            let tile = (tiling.width.div_ceil(6), tiling.height.div_ceil(5));
            let mut stored = Vec::new();
            for run in source.runs() {
                stored.extend(run.from..run.from + run.blocks);
                stored.extend(std::iter::repeat_n(run.from + run.blocks - 1, run.copies));
            }
            prop_assert_eq!(stored.len(), tiling.layers * tile.0 * tile.1);
            for matrix in 0..matrices {
                for row in 0..down {
                    for col in 0..across {
                        let tile_number = row / tile.1 * tiling.tiles_across + col / tile.0;
                        let layer = matrix * tiling.tiles_across * tiling.tiles_down + tile_number;
                        let at = (layer * tile.1 + row % tile.1) * tile.0 + col % tile.0;
                        prop_assert_eq!(stored[at], (matrix * down + row) * across + col);
                    }
                }
            }
        }
    }
}
