//! Blocks as the search sees them: texel positions and importances of up to 32 blocks.

use half::f16;

use super::fit::{FIT_TEXELS, Texels};
use super::pairs::{FREE_ROW, Positions, SEARCH_TEXELS, rounded, row_of};
use super::rank::BATCH;
use crate::Footprint;
use crate::simd::{Level, Simd, dispatch};

/// The part of a matrix that one block covers, and where its texels come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    /// Weights from the block's first on; row r starts at r·stride.
    pub(super) weights: &'a [f32],
    pub(super) stride: usize,
    /// Rows and columns inside the matrix; the rest of the block is padding.
    pub(super) rows: usize,
    pub(super) cols: usize,
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

/// What the row scales of a band make of a weight, for each texel of a block.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// Texel steps a unit of weight, 127.5/a; 0 in a row of scale 0.
    pub(super) stretch: [f32; Footprint::MAX_TEXELS],
    /// Squared weight error of one squared texel step, (a/127.5)²; 0 in padding.
    pub(super) square: [f32; Footprint::MAX_TEXELS],
}

impl Frame {
    /// The frame of rows with these scales.
    pub(super) fn new(footprint: Footprint, scales: &[f16]) -> Self {
        let none = [0.0; Footprint::MAX_TEXELS];
        let mut frame = Self { stretch: none, square: none };
        let width = footprint.width();
        for (row, scale) in scales.iter().enumerate() {
            let scale = scale.to_f32();
            if scale > 0.0 {
                let texels = row * width..(row + 1) * width;
                frame.stretch[texels.clone()].fill(127.5 / scale);
                frame.square[texels].fill((scale / 127.5) * (scale / 127.5));
            }
        }
        frame
    }
}

impl Window<'_> {
    /// Copies the weights and importances to their places in a block of rows of `width` texels.
    #[inline(always)]
    pub(super) fn copy_to(&self, width: usize, weights: &mut [f32], factors: &mut [f32]) {
        for row in 0..self.rows {
            let from = row * self.stride..row * self.stride + self.cols;
            let to = row * width..row * width + self.cols;
            weights[to.clone()].copy_from_slice(&self.weights[from.clone()]);
            match self.importance {
                WindowImportance::Equal => factors[to].fill(1.0),
                WindowImportance::Columns(columns) => factors[to].copy_from_slice(columns),
                WindowImportance::Weights(all) => factors[to].copy_from_slice(&all[from]),
            }
        }
    }
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
    blocks: Vec<Block>,
    len: usize,
    /// Texel as a byte, 255 (in `low`) and 0 (in `high`) where it does not count.
    pub(super) low: Vec<[u8; BATCH]>,
    pub(super) high: Vec<[u8; BATCH]>,
    footprint: Footprint,
    level: Level,
}

/// Importances within this factor of each other are treated as equal by the table search; the
/// exact fit always uses the true ones.
const UNIFORM_WITHIN: f32 = 0.85;

impl Batch {
    pub(super) fn new(footprint: Footprint, level: Level) -> Self {
        let block = Block {
            texels: Texels { position: [127.5; FIT_TEXELS], importance: [0.0; FIT_TEXELS] },
            positions: Positions {
                rows: [FREE_ROW; SEARCH_TEXELS],
                importance: [0; SEARCH_TEXELS],
                uniform: true,
            },
            error_scale: 0.0,
        };
        let texels = footprint.texels();
        Self {
            blocks: vec![block; BATCH],
            len: 0,
            low: vec![[255; BATCH]; texels],
            high: vec![[0; BATCH]; texels],
            footprint,
            level,
        }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks[..self.len]
    }

    /// Adds a block; `clamp` leaves clipping out of its error.
    pub(super) fn push(&mut self, frame: &Frame, window: &Window<'_>, clamp: bool) {
        let slot = self.len;
        self.len += 1;
        let width = self.footprint.width();
        let count = self.footprint.texels();
        let mut weights = [0.0; SEARCH_TEXELS];
        let mut factors = [0.0; SEARCH_TEXELS];
        window.copy_to(width, &mut weights, &mut factors);
        let limit = if clamp { (0.0, 255.0) } else { (f32::MIN, f32::MAX) };
        let block = &mut self.blocks[slot];
        let bytes = prepare(self.level, frame, &weights, &factors, limit, count, block);
        for (texel, (low, high)) in self.low.iter_mut().zip(&mut self.high).enumerate() {
            let free = block.positions.rows[texel] == FREE_ROW;
            low[slot] = if free { 255 } else { bytes[texel] };
            high[slot] = if free { 0 } else { bytes[texel] };
        }
    }
}

dispatch! {
    /// Fills a block and returns its texels as bytes.
    fn prepare = prepare_with(
        frame: &Frame,
        weights: &[f32; SEARCH_TEXELS],
        factors: &[f32; SEARCH_TEXELS],
        limit: (f32, f32),
        count: usize,
        block: &mut Block,
    ) -> [u8; SEARCH_TEXELS]
}

#[inline(always)]
fn prepare_with<S: Simd>(
    _: S,
    frame: &Frame,
    weights: &[f32; SEARCH_TEXELS],
    factors: &[f32; SEARCH_TEXELS],
    limit: (f32, f32),
    count: usize,
    block: &mut Block,
) -> [u8; SEARCH_TEXELS] {
    // Whole vectors, past the last texel too: nothing counts there.
    let count = count.next_multiple_of(8).min(SEARCH_TEXELS);
    let mut bytes = [0; SEARCH_TEXELS];
    let mut largest = [0.0_f32; 8];
    for start in (0..count).step_by(8) {
        for lane in 0..8 {
            let texel = start + lane;
            let position = 127.5 + weights[texel] * frame.stretch[texel];
            let position = position.max(limit.0).min(limit.1);
            let importance = frame.square[texel] * factors[texel];
            block.texels.position[texel] = position;
            block.texels.importance[texel] = importance;
            bytes[texel] = rounded(position.max(0.0).min(255.0)) as u8;
            largest[lane] = largest[lane].max(importance);
        }
    }
    let largest = largest.into_iter().fold(0.0, f32::max);
    block.error_scale = largest;
    let inverse = if largest > 0.0 { 1.0 / largest } else { 0.0 };
    let mut least = [1.0_f32; 8];
    for start in (0..count).step_by(8) {
        for lane in 0..8 {
            let texel = start + lane;
            let importance = block.texels.importance[texel] * inverse;
            block.texels.importance[texel] = importance;
            let counts = importance > 0.0;
            least[lane] = least[lane].min(if counts { importance } else { 1.0 });
            let row = row_of(block.texels.position[texel]);
            block.positions.rows[texel] = if counts { row } else { FREE_ROW };
            block.positions.importance[texel] = rounded(importance * 65535.0) as u16;
        }
    }
    block.positions.uniform = least.into_iter().fold(1.0, f32::min) >= UNIFORM_WITHIN;
    bytes
}
