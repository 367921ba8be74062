//! How a coded matrix becomes the layers of a texture.
//!
//! A texture of E matrices has one layer a matrix, unless a matrix is larger than the limit of a
//! texture's sides: then it is cut into equal tiles of whole blocks, and its layers are the tiles
//! in raster order. Tiles past the edge of the matrix are filled up with copies of its last
//! blocks, whose texels mean nothing.

use serde::Serialize;

/// Matrices as blocks, and the limit of a texture's sides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// Matrices, rows, columns.
    pub(super) shape: (usize, usize, usize),
    /// Texels of a block, across and down.
    pub(super) block: (usize, usize),
    /// Most texels along a side.
    pub(super) limit: usize,
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
    /// Blocks across and down a matrix.
    fn blocks(&self) -> (usize, usize) {
        let (_, rows, cols) = self.shape;
        (cols.div_ceil(self.block.0), rows.div_ceil(self.block.1))
    }

    /// The layers; `None` where not even one block fits the limit, or there are no weights.
    pub(super) fn tiling(&self) -> Option<Tiling> {
        let (matrices, rows, cols) = self.shape;
        let (width, tiles_across) = side(cols, self.block.0, self.limit)?;
        let (height, tiles_down) = side(rows, self.block.1, self.limit)?;
        let layers = matrices * tiles_across * tiles_down;
        (layers > 0).then_some(Tiling { width, height, layers, tiles_across, tiles_down })
    }

    /// The blocks of all layers in order, a run for each block row of each layer.
    pub(super) fn runs(&self, tiling: &Tiling) -> impl Iterator<Item = Run> + use<> {
        let (across, down) = self.blocks();
        let tile = (tiling.width.div_ceil(self.block.0), tiling.height.div_ceil(self.block.1));
        let tiles = (tiling.tiles_across, tiling.tiles_down);
        (0..tiling.layers).flat_map(move |layer| {
            let matrix = layer / (tiles.0 * tiles.1);
            let (tile_row, tile_col) = (layer / tiles.0 % tiles.1, layer % tiles.0);
            let first = tile_col * tile.0;
            let blocks = tile.0.min(across - first);
            (0..tile.1).map(move |row| {
                let row = (tile_row * tile.1 + row).min(down - 1);
                let from = (matrix * down + row) * across + first;
                Run { from, blocks, copies: tile.0 - blocks }
            })
        })
    }
}

/// Texels of a tile along one side, and how many tiles: the whole side if it fits, else as few
/// tiles as can be, as equal as blocks allow.
fn side(texels: usize, block: usize, limit: usize) -> Option<(usize, usize)> {
    if texels == 0 || limit < block {
        return None;
    }
    if texels <= limit {
        return Some((texels, 1));
    }
    let blocks = texels.div_ceil(block);
    let tile = blocks.div_ceil(blocks.div_ceil(limit / block));
    Some((tile * block, blocks.div_ceil(tile)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_matrices_are_one_layer_and_large_ones_tiles() {
        let source = |rows, cols, limit| Source { shape: (1, rows, cols), block: (6, 6), limit };
        let whole = source(576, 1536, 16384).tiling().unwrap();
        assert_eq!((whole.width, whole.height, whole.layers), (1536, 576, 1));
        // 49152 x 576 at 16384: 8192 block rows, at most 2730 a tile.
        let long = source(49152, 576, 16384).tiling().unwrap();
        assert_eq!((long.width, long.height, long.tiles_down, long.layers), (576, 12288, 4, 4));
        assert_eq!(source(8, 8, 5).tiling(), None);
        assert_eq!(source(0, 8, 100).tiling(), None);
        // Nothing but the limit forces tiles: 100 texels fit 100.
        assert_eq!(source(100, 100, 100).tiling().unwrap().layers, 1);
        // 17 blocks in tiles of at most 16 blocks: 9 and 8.
        let cut = source(6, 101, 100).tiling().unwrap();
        assert_eq!((cut.width, cut.tiles_across), (54, 2));
        let runs: Vec<Run> = source(6, 101, 100).runs(&cut).collect();
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
            let source = Source { shape: (matrices, rows, cols), block: (6, 5), limit };
            let (across, down) = source.blocks();
            let tiling = source.tiling().unwrap();
            prop_assert!(tiling.width <= limit.max(cols.min(limit)) && tiling.height <= limit);
            let tile = (tiling.width.div_ceil(6), tiling.height.div_ceil(5));
            let mut stored = Vec::new();
            for run in source.runs(&tiling) {
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
