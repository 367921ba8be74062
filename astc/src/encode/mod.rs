//! The native encoder: blocks for one channel of near-Gaussian weights.
//!
//! A block of weights has no gradients to follow, so what counts is how well its texels fall into
//! one to four groups of evenly spaced levels. The search, for each band of block rows:
//!
//! 1. choose row scales by trial (`scales`);
//! 2. rank all partition patterns by the ranges of their subsets, 32 blocks at a time (`rank`);
//! 3. for the best patterns of each configuration sum table rows of errors under every endpoint
//!    pair (`pairs`), which is exhaustive where endpoints are coarse;
//! 4. fit the best candidates in f32 on the values that the decoder returns (`fit`), keep the one
//!    with the least weighted error, and write it (`pack`).
//!
//! Errors are squared errors of weights, not texels: a texel of row r counts a_r² times the
//! importance of its weight. Results do not depend on the instruction set, the number of threads,
//! or how a matrix is cut into bands.

mod block;
mod config;
mod effort;
mod fit;
mod pack;
mod pairs;
mod patterns;
mod rank;
mod scales;
mod search;

use half::f16;

use self::block::{Batch, Frame};
pub use self::effort::Preset;
use self::effort::{Stage, stages, trial_stages};
use self::pack::pack;
use self::patterns::Patterns;
use self::rank::BATCH;
use self::scales::Band;
use self::search::{Choice, Finish, Scratch, Searcher};
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
    finish: Finish,
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
            patterns: Patterns::new(footprint, wanted),
            stages,
            trial_stages,
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
        self.choose_scales(w, rows, cols, importance, scales)?;
        self.encode_scaled(w, rows, cols, importance, scales, blocks)
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
        check(&grid, w, importance, scales.len())?;
        if grid.block_count() == 0 {
            scales.fill(f16::ZERO);
            return Ok(());
        }
        let height = self.footprint.height();
        for (number, scales) in scales.chunks_mut(height).enumerate() {
            self.band_scales(&band(&grid, number, w, importance), scales);
        }
        Ok(())
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
        check(&grid, w, importance, scales.len())?;
        check_length("blocks", blocks.len(), grid.byte_len(), &grid)?;
        let (height, width) = (self.footprint.height(), self.footprint.width());
        let row_bytes = grid.blocks_across() * BlockGrid::BLOCK_BYTES;
        if row_bytes == 0 {
            return Ok(());
        }
        for (number, blocks) in blocks.chunks_exact_mut(row_bytes).enumerate() {
            let band = band(&grid, number, w, importance);
            let scales: Vec<f32> =
                scales[number * height..][..band.rows].iter().map(|scale| scale.to_f32()).collect();
            let frame = Frame::new(self.footprint, &scales);
            for (batch, out) in blocks.chunks_mut(BATCH * BlockGrid::BLOCK_BYTES).enumerate() {
                let (out, _) = out.as_chunks_mut();
                self.batch.clear();
                for slot in 0..out.len() {
                    self.batch.push(&frame, &band.window(batch * BATCH + slot, width), false);
                }
                self.encode_batch(out);
            }
        }
        Ok(())
    }

    fn encode_batch(&mut self, out: &mut [[u8; BlockGrid::BLOCK_BYTES]]) {
        let searcher = Searcher {
            level: self.level,
            mode: self.mode,
            patterns: &self.patterns,
            stages: &self.stages,
            finish: self.finish,
        };
        let choices = searcher.choose(&self.batch, &mut self.scratch);
        for (choice, out) in choices.iter().zip(out) {
            *out = self.block_of(choice);
        }
    }

    fn block_of(&self, choice: &Choice) -> [u8; BlockGrid::BLOCK_BYTES] {
        let config = &self.stages[choice.stage].config;
        let pattern = &self.patterns.by_count[config.partitions - 1][choice.pattern];
        pack(config, pattern, &choice.fit).to_le_bytes()
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

fn check(
    grid: &BlockGrid,
    w: &[f32],
    importance: Importance<'_>,
    scales: usize,
) -> Result<(), Error> {
    check_length("weights", w.len(), grid.rows * grid.cols, grid)?;
    check_length("scales", scales, grid.rows, grid)?;
    match importance {
        Importance::Equal => {}
        Importance::Columns(columns) => check_length("importance", columns.len(), grid.cols, grid)?,
        Importance::Weights(factors) => {
            check_length("importance", factors.len(), grid.rows * grid.cols, grid)?;
        }
    }
    for (row, weights) in w.chunks_exact(grid.cols.max(1)).enumerate() {
        let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
        if let Some(col) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(Error::NotFinite { row, col, value: weights[col] });
        }
        if largest > f16::MAX.to_f32() {
            return Err(Error::ScaleOverflow { row, max_abs: largest });
        }
    }
    Ok(())
}

fn check_length(
    what: &'static str,
    found: usize,
    expected: usize,
    grid: &BlockGrid,
) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    let BlockGrid { rows, cols, footprint } = *grid;
    Err(Error::Length { what, found, expected, rows, cols, footprint })
}
