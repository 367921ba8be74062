//! Blocks as the search sees them: texel positions and importances of up to 32 blocks.

use super::fit::{FIT_TEXELS, Texels};
use super::pairs::{FREE_ROW, Positions, SEARCH_TEXELS};
use super::rank::BATCH;
use crate::Footprint;

/// The part of a matrix that one block covers, and where its texels come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    /// Weights from the block's first on; row r starts at r·stride.
    pub(super) weights: &'a [f32],
    pub(super) stride: usize,
    /// Rows and columns inside the matrix; the rest of the block is padding.
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Scale of each row.
    pub(super) scales: &'a [f32],
    pub(super) importance: WindowImportance<'a>,
}

/// Importance of the weights of a [`Window`].
#[derive(Debug, Clone, Copy)]
pub(super) enum WindowImportance<'a> {
    /// All weights count the same.
    Equal,
    /// One number a column of the block.
    Columns(&'a [f32]),
    /// One number a weight, laid out as the weights.
    Weights(&'a [f32]),
}

/// One prepared block.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) texels: Texels,
    pub(super) positions: Positions,
    /// Squared weight error of one squared texel step at importance 1.
    pub(super) error_scale: f32,
}

/// Up to [`BATCH`] blocks, and their texels as bytes for the ranking.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) blocks: Vec<Block>,
    /// Texel as a byte, 255 (in `low`) and 0 (in `high`) where it does not count.
    pub(super) low: Vec<[u8; BATCH]>,
    pub(super) high: Vec<[u8; BATCH]>,
    footprint: Footprint,
}

/// Importances within this factor of each other are treated as equal by the table search; the
/// exact fit always uses the true ones.
const UNIFORM_WITHIN: f32 = 0.85;

impl Batch {
    pub(super) fn new(footprint: Footprint) -> Self {
        let texels = footprint.texels();
        Self {
            blocks: Vec::with_capacity(BATCH),
            low: vec![[255; BATCH]; texels],
            high: vec![[0; BATCH]; texels],
            footprint,
        }
    }

    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.low.fill([255; BATCH]);
        self.high.fill([0; BATCH]);
    }

    /// Adds a block; `clamp` leaves clipping out of its error.
    pub(super) fn push(&mut self, window: &Window<'_>, clamp: bool) {
        let slot = self.blocks.len();
        let width = self.footprint.width();
        let mut texels = Texels { position: [127.5; FIT_TEXELS], importance: [0.0; FIT_TEXELS] };
        for row in 0..window.rows {
            let scale = window.scales[row];
            if scale == 0.0 {
                continue;
            }
            let (stretch, square) = (127.5 / scale, (scale / 127.5) * (scale / 127.5));
            let start = row * window.stride;
            let weights = &window.weights[start..start + window.cols];
            let out = row * width..row * width + window.cols;
            for (position, weight) in texels.position[out.clone()].iter_mut().zip(weights) {
                *position = 127.5 + weight * stretch;
                if clamp {
                    *position = position.clamp(0.0, 255.0);
                }
            }
            let importance = &mut texels.importance[out];
            match window.importance {
                WindowImportance::Equal => importance.fill(square),
                WindowImportance::Columns(columns) => {
                    for (out, factor) in importance.iter_mut().zip(columns) {
                        *out = square * factor;
                    }
                }
                WindowImportance::Weights(factors) => {
                    let factors = &factors[start..start + window.cols];
                    for (out, factor) in importance.iter_mut().zip(factors) {
                        *out = square * factor;
                    }
                }
            }
        }
        let largest = texels.importance.iter().copied().fold(0.0, f32::max);
        let mut positions = Positions {
            rows: [FREE_ROW; SEARCH_TEXELS],
            importance: [0; SEARCH_TEXELS],
            uniform: true,
        };
        if largest > 0.0 {
            self.fill_positions(slot, largest, &mut texels, &mut positions);
        }
        self.blocks.push(Block { texels, positions, error_scale: largest });
    }

    fn fill_positions(
        &mut self,
        slot: usize,
        largest: f32,
        texels: &mut Texels,
        positions: &mut Positions,
    ) {
        for texel in 0..self.footprint.texels() {
            let importance = texels.importance[texel] / largest;
            texels.importance[texel] = importance;
            if importance == 0.0 {
                continue;
            }
            let byte = (texels.position[texel] + 0.5) as u8;
            positions.rows[texel] = byte.into();
            positions.importance[texel] = (importance * 65535.0) as u16;
            positions.uniform &= importance >= UNIFORM_WITHIN;
            self.low[texel][slot] = byte;
            self.high[texel][slot] = byte;
        }
    }
}
