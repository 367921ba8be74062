//! The published system's form of ASTC weights: HDR luminance and an fp16 offset a block.
//!
//! ŵ = t + offset, where t ≥ 0 is the red channel of an HDR texel with fp16 results (endpoint
//! modes 2 and 3). No row scale: the logarithmic endpoints reach every magnitude. A block costs
//! 128 + 16 bits, 4.0 a weight at 6x6. Needs a reader with the HDR profile.
//!
//! HDR levels are spaced by powers of two, finest near zero. With an offset of the block's minimum
//! ([`HdrOffset::Minimum`]) the smallest weights get most of the levels. A free offset
//! ([`HdrOffset::Fitted`]) moves the block up the scale until it lies within one or two powers of
//! two, where levels are nearly even, and is fitted together with the endpoints.

mod block;
mod coarse;
mod decode;
mod encode;
mod lanes;
mod levels;
mod rank;
mod search;

pub use decode::HdrDecoder;
pub use encode::{HdrEncoder, HdrOffset};

use crate::encode::check_length;
use crate::{BlockGrid, Error};

/// Upper left texel of a block in the matrix.
#[derive(Debug, Clone, Copy)]
struct Place {
    row: usize,
    col: usize,
}

/// The places of all blocks, in raster order.
fn gridded(grid: &BlockGrid) -> impl Iterator<Item = Place> + use<> {
    let BlockGrid { rows, cols, footprint } = *grid;
    (0..rows).step_by(footprint.height()).flat_map(move |row| {
        (0..cols).step_by(footprint.width()).map(move |col| Place { row, col })
    })
}

/// Lengths of the coded parts.
fn check_offsets(grid: &BlockGrid, blocks: usize, offsets: usize) -> Result<(), Error> {
    check_length("blocks", blocks, grid.byte_len(), grid)?;
    check_length("offsets", offsets, grid.block_count(), grid)
}
