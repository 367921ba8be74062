//! BC4 (RGTC1) blocks of weights: 64 bits for 4 x 4 weights, decoded by every desktop GPU.
//!
//! A matrix becomes a one-channel texture with a scale for each row, as with ASTC: texel
//! t = 0.5 + w/(2a), a = max|w| of the row rounded up to f16, decoded weight ŵ = a·(2t̂ - 1). A
//! block has eight levels between two 8-bit ends, or six and the fixed levels 0 and 1, which keep a
//! row's outlier without widening the other levels.
//!
//! The encoder minimises the squared error of the weights over the levels that the reader really
//! returns. [`Effort::Best`] finds the optimal pair of ends of every block (`exact`: branch and
//! bound over all pairs), [`Effort::Fast`] one close to it (`fast`). Results do not depend on the
//! instruction set, on earlier calls, or on how a matrix is cut into bands of four rows.

mod block;
mod exact;
mod fast;
mod lanes;

#[cfg(test)]
mod tests;

use half::f16;

pub use self::block::{BLOCK_BYTES, BLOCK_TEXELS, decode_block, palette};
use self::block::{codes, pack};
use self::exact::{ExactSearch, Pair};
use self::lanes::{LANES, Ladder, Texels, higher};
use crate::encode::{Importance, check, check_length};
use crate::row_scale::row_scale;
use crate::simd::{Level, Simd, dispatch};
use crate::{BlockGrid, Error, Footprint};

/// Texels of a block, the same in both directions.
const SIDE: usize = 4;

/// How a reader interpolates between the ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecodeMode {
    /// The quotient of KDF 1.3 section 19.1 and of Direct3D, e.g. (e0·(7 - k) + e1·k)/(7·255),
    /// rounded once to f32. GPUs come close to it.
    Exact,
    /// The quotient cut to a whole number of 1/255, as Mesa's `util/rgtc` and many CPU readers do.
    Unorm8,
    /// What the sampler of Mesa's llvmpipe and lavapipe returns: whole numbers of 1/255 up to 1.6
    /// away from the quotient, e0 + ⌊(e1 - e0)·⌊s·k/64⌋/256⌋ with s = ⌊255·64/7⌋ or ⌊255·64/5⌋. A
    /// reference for tests on those drivers.
    Llvmpipe,
}

impl DecodeMode {
    /// Its name in files and reports: "exact", "unorm8" or "llvmpipe".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Unorm8 => "unorm8",
            Self::Llvmpipe => "llvmpipe",
        }
    }
}

/// How long the encoder searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effort {
    /// A grid of starts, least squares and a walk to neighbouring pairs.
    Fast,
    /// The optimum over all pairs of ends, up to the rounding of f32 sums.
    Best,
}

/// What a [`Coder`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Params {
    /// Texel values of the reader; the encoder optimises for them.
    pub decode: DecodeMode,
    /// How long the encoder searches.
    pub effort: Effort,
}

/// Blocks down and across that hold `rows` x `cols` weights.
#[must_use]
pub const fn blocks(rows: usize, cols: usize) -> (usize, usize) {
    (rows.div_ceil(SIDE), cols.div_ceil(SIDE))
}

/// Bytes of the blocks of `rows` x `cols` weights, row scales not counted.
#[must_use]
pub const fn byte_len(rows: usize, cols: usize) -> usize {
    let (down, across) = blocks(rows, cols);
    down * across * BLOCK_BYTES
}

/// Encodes and decodes panels of matrix rows; one a thread, it keeps scratch memory.
#[derive(Debug)]
pub struct Coder {
    params: Params,
    level: Level,
    exact: ExactSearch,
}

/// The part of a matrix that four rows of texels hold.
#[derive(Clone, Copy)]
struct Band<'a> {
    weights: &'a [f32],
    cols: usize,
    importance: Importance<'a>,
    scales: &'a [f16],
}

impl Coder {
    /// A coder; cheap.
    #[must_use]
    pub fn new(params: Params) -> Self {
        Self::with_level(params, Level::detect())
    }

    fn with_level(params: Params, level: Level) -> Self {
        Self { params, level, exact: ExactSearch::default() }
    }

    /// Encodes `rows` x `cols` finite weights, row-major, into blocks in raster order and one
    /// scale a row, a = max|w| rounded up to f16.
    ///
    /// A row below the smallest positive f16 (2^-24) gets scale 0 and decodes to zeros. Texels
    /// past the edge of the matrix mean nothing. `rows` must be a multiple of 4 unless these are
    /// the last rows of the matrix.
    ///
    /// # Errors
    /// [`Error::Length`] if `w` or a per-weight importance is not rows·cols long, a per-column
    /// importance not `cols`, `blocks` not [`byte_len`] or `scales` not `rows`;
    /// [`Error::NotFinite`]; [`Error::ScaleOverflow`] for weights past 65504.
    pub fn encode_rows(
        &mut self,
        w: &[f32],
        rows: usize,
        cols: usize,
        importance: Importance<'_>,
        blocks: &mut [u8],
        scales: &mut [f16],
    ) -> Result<(), Error> {
        let grid = grid(rows, cols);
        check(&grid, w, importance, scales.len(), self.level)?;
        check_length("blocks", blocks.len(), byte_len(rows, cols), &grid)?;
        if blocks.is_empty() {
            scales.fill(f16::ZERO);
            return Ok(());
        }
        for (row, (scale, weights)) in scales.iter_mut().zip(w.chunks_exact(cols)).enumerate() {
            *scale = row_scale(row, weights)?;
        }
        let band_bytes = grid.blocks_across() * BLOCK_BYTES;
        for (number, (weights, out)) in
            w.chunks(SIDE * cols).zip(blocks.chunks_exact_mut(band_bytes)).enumerate()
        {
            let rows = weights.len() / cols;
            let importance = match importance {
                Importance::Weights(all) => {
                    Importance::Weights(&all[number * SIDE * cols..][..weights.len()])
                }
                shared => shared,
            };
            let scales = &scales[number * SIDE..][..rows];
            self.encode_band(&Band { weights, cols, importance, scales }, out);
        }
        Ok(())
    }

    fn encode_band(&mut self, band: &Band<'_>, out: &mut [u8]) {
        let mut texels = Texels::new();
        for (batch, out) in out.chunks_mut(LANES * BLOCK_BYTES).enumerate() {
            band.load(batch * LANES, &mut texels);
            let mut packed = [[0; BLOCK_BYTES]; LANES];
            self.encode_batch(&texels, out.len() / BLOCK_BYTES, &mut packed);
            out.copy_from_slice(&packed.as_flattened()[..out.len()]);
        }
    }

    /// Encodes the first `count` lanes.
    fn encode_batch(
        &mut self,
        texels: &Texels,
        count: usize,
        packed: &mut [[u8; BLOCK_BYTES]; LANES],
    ) {
        let [seven, five] =
            [Ladder::Seven, Ladder::Five].map(|ladder| fast::search(self.level, texels, ladder));
        for (lane, packed) in packed.iter_mut().enumerate().take(count) {
            let pair = |pairs: &fast::Pairs| Pair {
                low: pairs.low[lane] as u8,
                high: pairs.high[lane] as u8,
                error: pairs.error[lane],
            };
            let (mut ladder, mut best) = if five.error[lane] < seven.error[lane] {
                (Ladder::Five, pair(&five))
            } else {
                (Ladder::Seven, pair(&seven))
            };
            if self.params.effort == Effort::Best {
                (ladder, best) = self.optimum(texels, lane, ladder, best);
            }
            let (e0, e1) = match ladder {
                Ladder::Seven => (best.high, best.low),
                Ladder::Five => (best.low, best.high),
            };
            let positions = texels.position.map(|lanes| lanes[lane]);
            let palette = palette(self.params.decode, e0, e1).map(|t| 255.0 * t);
            *packed = pack(e0, e1, &nearest(self.level, &palette, &positions));
        }
    }

    /// The best pair of one lane over both ladders.
    fn optimum(
        &mut self,
        texels: &Texels,
        lane: usize,
        ladder: Ladder,
        known: Pair,
    ) -> (Ladder, Pair) {
        let mut block = Texels::new();
        for texel in 0..BLOCK_TEXELS {
            block.position[texel] = [texels.position[texel][lane]; LANES];
            block.importance[texel] = [texels.importance[texel][lane]; LANES];
            block.to_fixed[texel] = [texels.to_fixed[texel][lane]; LANES];
        }
        let (mut best_ladder, mut best) = (ladder, known);
        let mode = self.params.decode;
        if mode != DecodeMode::Exact {
            // What the fast search knows is the error over exact levels.
            best.error = exact::error_over_integers(self.level, mode, ladder, &block, known);
        }
        for ladder in [Ladder::Seven, Ladder::Five] {
            let found = self.exact.improve(self.level, mode, ladder, &block, best);
            if found.error < best.error {
                (best_ladder, best) = (ladder, found);
            }
        }
        (best_ladder, best)
    }

    /// Decodes blocks and row scales into `rows` x `cols` weights, ŵ = a·(2t̂ - 1) in f32.
    ///
    /// # Errors
    /// [`Error::Length`] as for [`encode_rows`](Self::encode_rows).
    pub fn decode_rows(
        &self,
        blocks: &[u8],
        scales: &[f16],
        rows: usize,
        cols: usize,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let grid = grid(rows, cols);
        check_length("weights", out.len(), rows * cols, &grid)?;
        check_length("blocks", blocks.len(), byte_len(rows, cols), &grid)?;
        check_length("scales", scales.len(), rows, &grid)?;
        if blocks.is_empty() {
            return Ok(());
        }
        let (blocks, _) = blocks.as_chunks::<BLOCK_BYTES>();
        for ((out, scales), blocks) in out
            .chunks_mut(SIDE * cols)
            .zip(scales.chunks(SIDE))
            .zip(blocks.chunks_exact(grid.blocks_across()))
        {
            self.decode_band(blocks, scales, cols, out);
        }
        Ok(())
    }

    fn decode_band(
        &self,
        blocks: &[[u8; BLOCK_BYTES]],
        scales: &[f16],
        cols: usize,
        out: &mut [f32],
    ) {
        for (across, &block) in blocks.iter().enumerate() {
            let signed = palette(self.params.decode, block[0], block[1]).map(|t| 2.0 * t - 1.0);
            let codes = codes(block);
            let first = across * SIDE;
            let width = SIDE.min(cols - first);
            for (row, scale) in scales.iter().enumerate() {
                let scale = scale.to_f32();
                let out = &mut out[row * cols + first..][..width];
                for (out, code) in out.iter_mut().zip(&codes[row * SIDE..]) {
                    // 0 times a negative texel is -0.
                    *out = if scale == 0.0 { 0.0 } else { scale * signed[usize::from(*code)] };
                }
            }
        }
    }
}

impl Band<'_> {
    /// Loads the blocks from block column `first` on; lanes past the edge have no importance.
    fn load(&self, first: usize, texels: &mut Texels) {
        texels.position = [[127.5; LANES]; BLOCK_TEXELS];
        texels.importance = [[0.0; LANES]; BLOCK_TEXELS];
        let start = (first * SIDE).min(self.cols);
        let end = (start + LANES * SIDE).min(self.cols);
        let widest = self.scales.iter().fold(0.0_f32, |widest, scale| widest.max(scale.to_f32()));
        for (row, scale) in self.scales.iter().enumerate() {
            let scale = scale.to_f32();
            if scale == 0.0 {
                continue;
            }
            let weights = &self.weights[row * self.cols..][start..end];
            let stretch = 127.5 / scale;
            let square = (scale / widest) * (scale / widest);
            for (col, &weight) in weights.iter().enumerate() {
                let factor = match self.importance {
                    Importance::Equal => 1.0,
                    Importance::Columns(columns) => columns[start + col],
                    Importance::Weights(all) => all[row * self.cols + start + col],
                };
                let (lane, texel) = (col / SIDE, row * SIDE + col % SIDE);
                texels.position[texel][lane] = 127.5 + weight * stretch;
                texels.importance[texel][lane] = factor * square;
            }
        }
        let mut most = [f32::MIN_POSITIVE; LANES];
        for lanes in &texels.importance {
            for lane in 0..LANES {
                most[lane] = higher(most[lane], lanes[lane]);
            }
        }
        for lanes in &mut texels.importance {
            for lane in 0..LANES {
                lanes[lane] /= most[lane];
            }
        }
        texels.measure_fixed();
    }
}

/// The texels of a block, 4x4.
#[must_use]
pub fn footprint() -> Footprint {
    Footprint::new(SIDE, SIDE).expect("invariant: 4x4 is a footprint")
}

fn grid(rows: usize, cols: usize) -> BlockGrid {
    BlockGrid::new(rows, cols, footprint())
}

dispatch! {
    /// The code of the palette entry nearest to each texel, the lower of equals.
    fn nearest = nearest_with(
        palette: &[f32; 8],
        positions: &[f32; BLOCK_TEXELS],
    ) -> [u8; BLOCK_TEXELS]
}

#[inline(always)]
fn nearest_with<S: Simd>(
    _: S,
    palette: &[f32; 8],
    positions: &[f32; BLOCK_TEXELS],
) -> [u8; BLOCK_TEXELS] {
    let mut least = [f32::INFINITY; BLOCK_TEXELS];
    let mut chosen = [0_i32; BLOCK_TEXELS];
    for (code, &value) in palette.iter().enumerate() {
        for texel in 0..BLOCK_TEXELS {
            let distance = (positions[texel] - value).abs();
            let better = distance < least[texel];
            chosen[texel] = if better { code as i32 } else { chosen[texel] };
            least[texel] = if better { distance } else { least[texel] };
        }
    }
    chosen.map(|code| code as u8)
}
