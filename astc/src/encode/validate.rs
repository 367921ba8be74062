//! Checks of an encoder's arguments.

use half::f16;

use super::Importance;
use crate::simd::{Level, Simd, dispatch};
use crate::{BlockGrid, Error};

/// Lengths, finite weights, and weights within the range of a row scale.
pub(crate) fn check(
    grid: &BlockGrid,
    w: &[f32],
    importance: Importance<'_>,
    scales: usize,
    level: Level,
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
        largest_magnitude(level, row, weights)?;
    }
    Ok(())
}

/// max|w| of row number `row`, which must be finite and within the range of a row scale.
pub(crate) fn largest_magnitude(level: Level, row: usize, weights: &[f32]) -> Result<f32, Error> {
    // Magnitudes compare like their bits; infinities and NaN are the largest.
    let largest = f32::from_bits(largest_bits(level, weights));
    if !largest.is_finite()
        && let Some(col) = weights.iter().position(|weight| !weight.is_finite())
    {
        return Err(Error::NotFinite { row, col, value: weights[col] });
    }
    if largest > f16::MAX.to_f32() {
        return Err(Error::ScaleOverflow { row, max_abs: largest });
    }
    Ok(largest)
}

pub(crate) fn check_length(
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

dispatch! {
    /// The largest of the magnitudes' bits.
    fn largest_bits = largest_bits_with(weights: &[f32]) -> u32
}

#[inline(always)]
fn largest_bits_with<S: Simd>(_: S, weights: &[f32]) -> u32 {
    weights.iter().fold(0, |most, weight| most.max(weight.abs().to_bits()))
}
