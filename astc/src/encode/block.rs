//! Blocks as the search sees them: texel positions and importances of up to 64 blocks.

use half::f16;

use super::fit::{FIT_TEXELS, Texels};
use super::pairs::{FREE_ROW, Positions, SEARCH_TEXELS, rounded, row_of};
use super::rank::{BATCH, ByteLanes};
use crate::Footprint;
use crate::simd::{Aligned, Level, Simd, dispatch};

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
    /// The importances of a whole block where all weights count the same; `None` if a row of the
    /// footprint is missing or has scale 0.
    whole: Option<Importances>,
}

/// Importances of the texels of a block in the forms that the search uses.
#[derive(Debug, Clone)]
struct Importances {
    /// Relative to the largest.
    relative: [f32; FIT_TEXELS],
    /// Those times 32767.
    words: [u16; SEARCH_TEXELS],
    uniform: bool,
    largest: f32,
}

impl Importances {
    #[inline(always)]
    fn new(importance: &[f32]) -> Self {
        let largest = importance.iter().copied().fold(0.0, f32::max);
        // The inverse of a smaller number is past f32.
        let inverse = if largest >= f32::MIN_POSITIVE { 1.0 / largest } else { 0.0 };
        let mut all =
            Self { relative: [0.0; FIT_TEXELS], words: [0; SEARCH_TEXELS], uniform: true, largest };
        for (texel, importance) in importance.iter().enumerate() {
            let relative = importance * inverse;
            all.relative[texel] = relative;
            all.words[texel] = rounded(relative * 32767.0) as u16;
            all.uniform &= relative == 0.0 || relative >= UNIFORM_WITHIN;
        }
        all
    }
}

impl Frame {
    /// The frame of rows with these scales.
    pub(super) fn new(footprint: Footprint, scales: &[f16]) -> Self {
        let none = [0.0; Footprint::MAX_TEXELS];
        let mut frame = Self { stretch: none, square: none, whole: None };
        let width = footprint.width();
        for (row, scale) in scales.iter().enumerate() {
            let scale = scale.to_f32();
            if scale > 0.0 {
                let texels = row * width..(row + 1) * width;
                frame.stretch[texels.clone()].fill(127.5 / scale);
                frame.square[texels].fill((scale / 127.5) * (scale / 127.5));
            }
        }
        let square = &frame.square[..footprint.texels()];
        if square.len() <= SEARCH_TEXELS && square.iter().all(|&square| square > 0.0) {
            frame.whole = Some(Importances::new(square));
        }
        frame
    }
}

impl Window<'_> {
    /// Copies the weights and importances to their places in a block of rows of `width` texels. Gives
    /// the power of two that the importances were divided by: 1, unless they are so small or so large
    /// that they, times what a texel step is worth in weights, would leave the range of f32.
    #[inline(always)]
    pub(super) fn copy_to(&self, width: usize, weights: &mut [f32], factors: &mut [f32]) -> f32 {
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
        let unit = unit_of(factors);
        if unit != 1.0 {
            factors.iter_mut().for_each(|factor| *factor /= unit);
        }
        unit
    }
}

/// Importances whose products with the squares of row scales, 2^-62 to 2^19, are normal numbers.
const USUAL_IMPORTANCE: std::ops::Range<f32> = 1.0 / (1u64 << 40) as f32..(1u64 << 40) as f32;

/// What `importances` should be divided by before they are worked with: 1 for usual ones, or else a
/// power of two near the largest.
pub(super) fn unit_of(importances: &[f32]) -> f32 {
    let largest = importances.iter().copied().fold(0.0, f32::max);
    if largest == 0.0 || USUAL_IMPORTANCE.contains(&largest) {
        return 1.0;
    }
    f32::from_bits(largest.max(f32::MIN_POSITIVE).to_bits() & 0x7f80_0000)
}

/// One prepared block.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) texels: Texels,
    pub(super) positions: Positions,
    /// Squared weight error of one squared texel step at importance 1.
    pub(super) error_scale: f64,
}

/// Up to [`BATCH`] blocks, and their texels as bytes for the ranking.
#[derive(Debug)]
pub(super) struct Batch {
    blocks: Vec<Block>,
    len: usize,
    /// Texel as a byte, 255 (in `low`) and 0 (in `high`) where it does not count.
    low: Vec<ByteLanes>,
    high: Vec<ByteLanes>,
    /// Whether every texel counts, so that `low` serves for both and `high` is stale.
    whole: bool,
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
            low: vec![Aligned([255; BATCH]); texels],
            high: vec![Aligned([0; BATCH]); texels],
            whole: true,
            footprint,
            level,
        }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.whole = true;
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks[..self.len]
    }

    /// The bytes that minima are taken of, and those that maxima are taken of.
    pub(super) fn bytes(&self) -> (&[ByteLanes], &[ByteLanes]) {
        (&self.low, if self.whole { &self.low } else { &self.high })
    }

    /// Adds a block; `clamp` leaves clipping out of its error.
    pub(super) fn push(&mut self, frame: &Frame, window: &Window<'_>, clamp: bool) {
        let slot = self.len;
        self.len += 1;
        let (width, count) = (self.footprint.width(), self.footprint.texels());
        let limit = if clamp { (0.0, 255.0) } else { (f32::MIN, f32::MAX) };
        let block = &mut self.blocks[slot];
        let mut bytes = [0; SEARCH_TEXELS];
        let equal = matches!(window.importance, WindowImportance::Equal);
        let whole = equal && window.cols == width && window.rows * width == count;
        if let (Some(importances), true) = (&frame.whole, whole) {
            block.set_importances(importances);
            match width {
                4 => place_whole::<4>(self.level, frame, window, limit, count, block, &mut bytes),
                5 => place_whole::<5>(self.level, frame, window, limit, count, block, &mut bytes),
                6 => place_whole::<6>(self.level, frame, window, limit, count, block, &mut bytes),
                8 => place_whole::<8>(self.level, frame, window, limit, count, block, &mut bytes),
                _ => place_whole::<10>(self.level, frame, window, limit, count, block, &mut bytes),
            }
            for (low, &byte) in self.low.iter_mut().zip(&bytes) {
                low.0[slot] = byte;
            }
            if !self.whole {
                for (high, &byte) in self.high.iter_mut().zip(&bytes) {
                    high.0[slot] = byte;
                }
            }
            return;
        }
        let mut weights = [0.0; SEARCH_TEXELS];
        let mut importance = [0.0; SEARCH_TEXELS];
        let unit = window.copy_to(width, &mut weights, &mut importance);
        for (importance, square) in importance.iter_mut().zip(&frame.square) {
            *importance *= square;
        }
        block.set_importances(&Importances::new(&importance));
        block.error_scale *= f64::from(unit);
        place(self.level, frame, &weights, limit, count, block, &mut bytes);
        self.mark_free(slot, &bytes);
    }

    /// Takes texels without importance out of the last block.
    fn mark_free(&mut self, slot: usize, bytes: &[u8; SEARCH_TEXELS]) {
        if self.whole {
            // From here on minima and maxima differ.
            self.whole = false;
            self.high.copy_from_slice(&self.low);
        }
        let block = &mut self.blocks[slot];
        for (texel, (low, high)) in self.low.iter_mut().zip(&mut self.high).enumerate() {
            let free = block.texels.importance[texel] == 0.0;
            if free {
                block.positions.rows[texel] = FREE_ROW;
            }
            low.0[slot] = if free { 255 } else { bytes[texel] };
            high.0[slot] = if free { 0 } else { bytes[texel] };
        }
    }
}

impl Block {
    #[inline(always)]
    fn set_importances(&mut self, importances: &Importances) {
        self.texels.importance = importances.relative;
        self.positions.importance = importances.words;
        self.positions.uniform = importances.uniform;
        self.error_scale = importances.largest.into();
    }
}

/// [`place`] for a block of `WIDTH` columns that lies inside the matrix.
fn place_whole<const WIDTH: usize>(
    level: Level,
    frame: &Frame,
    window: &Window<'_>,
    limit: (f32, f32),
    count: usize,
    block: &mut Block,
    bytes: &mut [u8; SEARCH_TEXELS],
) {
    let mut weights = [0.0; SEARCH_TEXELS];
    let (rows, _) = weights.as_chunks_mut::<WIDTH>();
    for (row, out) in rows.iter_mut().enumerate().take(window.rows) {
        let from: &[f32; WIDTH] = window.weights[row * window.stride..]
            .first_chunk()
            .expect("invariant: the window lies inside the matrix");
        *out = *from;
    }
    place(level, frame, &weights, limit, count, block, bytes);
}

dispatch! {
    /// Fills a block's positions and its texels as bytes.
    fn place = place_with(
        frame: &Frame,
        weights: &[f32; SEARCH_TEXELS],
        limit: (f32, f32),
        count: usize,
        block: &mut Block,
        bytes: &mut [u8; SEARCH_TEXELS],
    )
}

#[inline(always)]
fn place_with<S: Simd>(
    _: S,
    frame: &Frame,
    weights: &[f32; SEARCH_TEXELS],
    limit: (f32, f32),
    count: usize,
    block: &mut Block,
    bytes: &mut [u8; SEARCH_TEXELS],
) {
    // Whole vectors, past the last texel too: nothing counts there.
    for start in (0..count).step_by(8) {
        for texel in start..start + 8 {
            let position = 127.5 + weights[texel] * frame.stretch[texel];
            let position = position.max(limit.0).min(limit.1);
            block.texels.position[texel] = position;
            block.positions.rows[texel] = row_of(position);
            bytes[texel] = rounded(position.clamp(0.0, 255.0)) as u8;
        }
    }
}
