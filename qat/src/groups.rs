//! How a row is cut into groups, and a panel into rows.

use std::num::NonZeroUsize;

use half::f16;

/// Groups of a row of `cols` weights: runs of `group` weights, the last one shorter where they
/// do not divide the row; one group where `group` is absent.
pub(crate) fn groups_per_row(group: Option<NonZeroUsize>, cols: usize) -> usize {
    group.map_or(1, |group| cols.div_ceil(group.get()))
}

/// Length of the groups of a row of `cols` weights, never zero.
pub(crate) fn group_len(group: Option<NonZeroUsize>, cols: usize) -> usize {
    group.map_or(cols, NonZeroUsize::get).max(1)
}

/// Rows of a panel of `weights` elements.
///
/// # Panics
/// If `weights` is not whole rows, or the coded arrays do not have that many rows.
pub(crate) fn rows(weights: usize, cols: usize, coded: &[(usize, usize)]) -> usize {
    let rows = weights.checked_div(cols).unwrap_or(0);
    assert_eq!(rows * cols, weights, "{weights} weights are not whole rows of {cols}");
    if cols > 0 {
        for &(len, per_row) in coded {
            assert_eq!(len, rows * per_row, "coded array does not hold {rows} rows of {per_row}");
        }
    }
    rows
}

/// Largest |w|.
pub(crate) fn max_abs(w: &[f32]) -> f32 {
    w.iter().fold(0.0, |max, x| max.max(x.abs()))
}

/// The nearest fp16 number, if it is finite.
pub(crate) fn finite_f16(x: f32) -> Option<f16> {
    Some(f16::from_f32(x)).filter(|x| x.is_finite())
}
