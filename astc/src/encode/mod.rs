//! The native encoder: blocks for one channel of near-Gaussian weights.
//!
//! A block of weights has no gradients to follow, so what counts is how well its texels fall into
//! one to four groups of evenly spaced levels. The search, for each band of block rows:
//!
//! 1. choose row scales by trial (`scales`);
//! 2. rank all partition patterns by the ranges of their subsets, 64 blocks at a time (`rank`);
//! 3. for the best patterns of each configuration sum table rows of errors under every endpoint
//!    pair (`pairs`), which is exhaustive where endpoints are coarse;
//! 4. fit the best candidates in f32 on the values that the decoder returns (`fit`), keep the one
//!    with the least weighted error, and write it (`pack`).
//!
//! Errors are squared errors of weights, not texels: a texel of row r counts a_r² times the
//! importance of its weight. Results do not depend on the instruction set, the number of threads,
//! or how a matrix is cut into bands.

mod block;
mod chunk;
mod coarse;
pub(crate) mod config;
mod effort;
mod fit;
pub(crate) mod pack;
mod pairs;
pub(crate) mod patterns;
mod preset;
mod rank;
mod scales;
mod search;
mod validate;

#[cfg(test)]
mod tests;

use half::f16;

use self::block::{Batch, Frame};
use self::coarse::{CoarseSearch, CoarseTexels};
use self::effort::{Stage, Trial, least_share, stages, trial_stages};
use self::pack::pack;
use self::patterns::Patterns;
pub use self::preset::Preset;
use self::rank::BATCH;
use self::scales::Band;
use self::search::{Choice, Finish, Scratch, Searcher};
pub(crate) use self::validate::{check, check_length, largest_magnitude};
use crate::decode::LuminanceDecoder;
use crate::simd::Level;
use crate::{BlockGrid, DecodeMode, Error, Footprint};

/// How much the squared error of each weight counts; numbers are finite and not negative.
#[derive(Debug, Clone, Copy)]
pub enum Importance<'a> {
    /// All weights count the same.
    Equal,
    /// One number a column, such as the diagonal of a Hessian.
    Columns(&'a [f32]),
    /// One number a weight, laid out as the weights.
    Weights(&'a [f32]),
}

/// Encodes weights into blocks; one a thread, it keeps tables and scratch memory.
#[derive(Debug)]
pub struct NativeEncoder {
    footprint: Footprint,
    mode: DecodeMode,
    level: Level,
    patterns: Patterns,
    stages: Vec<Stage>,
    trial_stages: Vec<Stage>,
    trial: Trial,
    finish: Finish,
    /// In place of the stages, for footprints of more than 64 texels.
    coarse: Option<CoarseSearch>,
    decoder: Option<LuminanceDecoder>,
    batch: Batch,
    scratch: Scratch,
}

impl NativeEncoder {
    /// An encoder for one footprint, optimising for readers of one decode mode.
    pub fn new(footprint: Footprint, mode: DecodeMode, preset: Preset) -> Self {
        Self::with_level(footprint, mode, preset, Level::detect())
    }

    fn with_level(footprint: Footprint, mode: DecodeMode, preset: Preset, level: Level) -> Self {
        let stages = stages(footprint, mode, preset);
        let trial_stages = trial_stages(footprint, mode);
        let mut wanted = [false; 4];
        for stage in stages.iter().chain(&trial_stages) {
            wanted[stage.config.partitions - 1] = true;
        }
        Self {
            footprint,
            mode,
            level,
            patterns: Patterns::new(footprint, wanted, least_share(preset)),
            stages,
            trial_stages,
            trial: Trial::new(footprint, preset),
            coarse: CoarseSearch::new(footprint, preset, level),
            decoder: None,
            batch: Batch::new(footprint, level),
            finish: if preset == Preset::Fast { Finish::Quick } else { Finish::Exact },
            scratch: Scratch::default(),
        }
    }

    /// Encodes `rows` x `cols` finite weights, row-major, into blocks in raster order and one
    /// scale a row.
    ///
    /// Texel t = 0.5 + w/(2a), clamped; the scale a of a row may be below its largest magnitude
    /// where clipping lowers the error, but a row with a weight past ten standard deviations is
    /// never clipped. A row below the smallest positive f16 (2^-24) gets scale 0. `rows` must be a
    /// multiple of the footprint's height unless these are the last rows of the matrix.
    ///
    /// # Errors
    /// [`Error::Length`] if `w` or a per-weight importance is not rows·cols long, a per-column
    /// importance not `cols`, `blocks` not [`BlockGrid::byte_len`] or `scales` not `rows`;
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
        let grid = BlockGrid::new(rows, cols, self.footprint);
        check(&grid, w, importance, scales.len(), self.level)?;
        check_length("blocks", blocks.len(), grid.byte_len(), &grid)?;
        self.choose_checked(&grid, w, importance, scales);
        self.encode_checked(&grid, w, importance, scales, blocks);
        Ok(())
    }

    /// The row scales that [`encode_rows`](Self::encode_rows) would use.
    ///
    /// # Errors
    /// As for [`encode_rows`](Self::encode_rows).
    pub fn choose_scales(
        &mut self,
        w: &[f32],
        rows: usize,
        cols: usize,
        importance: Importance<'_>,
        scales: &mut [f16],
    ) -> Result<(), Error> {
        let grid = BlockGrid::new(rows, cols, self.footprint);
        check(&grid, w, importance, scales.len(), self.level)?;
        self.choose_checked(&grid, w, importance, scales);
        Ok(())
    }

    fn choose_checked(
        &mut self,
        grid: &BlockGrid,
        w: &[f32],
        importance: Importance<'_>,
        scales: &mut [f16],
    ) {
        if grid.block_count() == 0 {
            scales.fill(f16::ZERO);
            return;
        }
        for (number, scales) in scales.chunks_mut(self.footprint.height()).enumerate() {
            self.band_scales(&band(grid, number, w, importance), scales);
        }
    }

    /// Encodes with given row scales.
    ///
    /// # Errors
    /// As for [`encode_rows`](Self::encode_rows).
    pub fn encode_scaled(
        &mut self,
        w: &[f32],
        rows: usize,
        cols: usize,
        importance: Importance<'_>,
        scales: &[f16],
        blocks: &mut [u8],
    ) -> Result<(), Error> {
        let grid = BlockGrid::new(rows, cols, self.footprint);
        check(&grid, w, importance, scales.len(), self.level)?;
        check_length("blocks", blocks.len(), grid.byte_len(), &grid)?;
        self.encode_checked(&grid, w, importance, scales, blocks);
        Ok(())
    }

    /// [`encode_scaled`](Self::encode_scaled) for arguments that have been checked.
    pub(crate) fn encode_checked(
        &mut self,
        grid: &BlockGrid,
        w: &[f32],
        importance: Importance<'_>,
        scales: &[f16],
        blocks: &mut [u8],
    ) {
        let (out, _) = blocks.as_chunks_mut();
        for (batch, out) in out.chunks_mut(BATCH).enumerate() {
            self.encode_batch(grid, batch * BATCH, w, importance, scales, out);
        }
    }

    /// Encodes one block column against a target that the caller changes between columns, as
    /// error feedback does: `target` is `rows` x `width` weights with `width` at most the
    /// footprint's, `importance` is laid out like it, and `decoded` gets what a reader of the
    /// blocks sees.
    ///
    /// `scales` come from [`choose_scales`](Self::choose_scales) on the whole matrix; `blocks` are
    /// those of this column, from the top.
    ///
    /// # Errors
    /// As for [`encode_rows`](Self::encode_rows), with `width` for the columns.
    #[expect(clippy::too_many_arguments, reason = "a matrix and its four companions")]
    pub fn encode_column(
        &mut self,
        target: &[f32],
        rows: usize,
        width: usize,
        importance: Importance<'_>,
        scales: &[f16],
        blocks: &mut [u8],
        decoded: &mut [f32],
    ) -> Result<(), Error> {
        let grid = BlockGrid::new(rows, width, self.footprint);
        check_length("decoded", decoded.len(), rows * width, &grid)?;
        self.encode_scaled(target, rows, width, importance, scales, blocks)?;
        if width == 0 {
            return Ok(());
        }
        let (footprint, mode) = (self.footprint, self.mode);
        let decoder = self.decoder.get_or_insert_with(|| LuminanceDecoder::new(footprint, mode));
        let strip_bytes = grid.blocks_across() * BlockGrid::BLOCK_BYTES;
        for ((out, scales), blocks) in decoded
            .chunks_mut(footprint.height() * width)
            .zip(scales.chunks(footprint.height()))
            .zip(blocks.chunks_exact(strip_bytes))
        {
            decoder.decode_strip(blocks, scales, width, out);
        }
        Ok(())
    }

    /// Encodes the blocks from number `first` of the grid on.
    fn encode_batch(
        &mut self,
        grid: &BlockGrid,
        first: usize,
        w: &[f32],
        importance: Importance<'_>,
        scales: &[f16],
        out: &mut [[u8; BlockGrid::BLOCK_BYTES]],
    ) {
        let (height, width) = (self.footprint.height(), self.footprint.width());
        let across = grid.blocks_across();
        let mut frames: Option<(usize, Frame)> = None;
        self.batch.clear();
        for slot in 0..out.len() {
            let (number, column) = ((first + slot) / across, (first + slot) % across);
            let band = band(grid, number, w, importance);
            let window = band.window(column, width);
            let frame = match &frames {
                Some((at, frame)) if *at == number => frame,
                _ => {
                    let scales = &scales[number * height..][..band.rows];
                    &frames.insert((number, Frame::new(self.footprint, scales))).1
                }
            };
            match &mut self.coarse {
                Some(coarse) => coarse.push(CoarseTexels::new(self.footprint, frame, &window)),
                None => self.batch.push(frame, &window, false),
            }
        }
        if let Some(coarse) = &mut self.coarse {
            coarse.encode(out);
            return;
        }
        let searcher = Searcher {
            level: self.level,
            mode: self.mode,
            patterns: &self.patterns,
            stages: &self.stages,
            finish: self.finish,
            texels: self.footprint.texels(),
        };
        let choices = searcher.choose(&self.batch, &mut self.scratch);
        for (choice, out) in choices.iter().zip(out) {
            *out = self.block_of(choice);
        }
    }

    fn block_of(&self, choice: &Choice) -> [u8; BlockGrid::BLOCK_BYTES] {
        let config = &self.stages[choice.stage].config;
        let pattern = &self.patterns.by_count[config.partitions - 1][choice.pattern];
        pack(config, pattern, self.footprint.texels(), &choice.fit).to_le_bytes()
    }
}

fn band<'a>(grid: &BlockGrid, number: usize, w: &'a [f32], importance: Importance<'a>) -> Band<'a> {
    let height = grid.footprint.height();
    let rows = height.min(grid.rows - number * height);
    let range = number * height * grid.cols..(number * height + rows) * grid.cols;
    let importance = match importance {
        Importance::Weights(factors) => Importance::Weights(&factors[range.clone()]),
        other => other,
    };
    Band { weights: &w[range], rows, cols: grid.cols, importance }
}
