//! Coding one unit of columns against a quadratic error.

use std::ops::Range;

use crate::ColumnCoder;

/// Where the weights of a unit should go and what missing them costs: row r of the error e costs
/// e·S·eᵀ.
pub(crate) struct Goal<'a> {
    pub(crate) columns: Range<usize>,
    /// [width, rows]
    pub(crate) target: &'a [f32],
    /// S, [width, width]
    pub(crate) cost: &'a [f32],
}

/// Scratch of [`code`], kept between units.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    moved: Vec<f32>,
    proposal: Vec<f32>,
    errors: Vec<f32>,
    proposed: Vec<f32>,
    importance: Vec<f32>,
    tiles: Vec<bool>,
}

/// Steps towards the optimum of the whole cost, after the one that sees its diagonal only.
const STEPS: usize = 2;

/// Codes a unit: a proposal for the diagonal of the cost, then proposals for targets moved against
/// the gradient of the whole cost. A tile keeps the best; with `current`, what its columns decode
/// to so far, only what is better than that. `current` gets the result.
pub(crate) fn code(
    coder: &mut dyn ColumnCoder,
    goal: &Goal<'_>,
    rows: usize,
    current: &mut [f32],
    coded_before: bool,
    scratch: &mut Scratch,
) {
    let width = goal.columns.len();
    let height = coder.height();
    scratch.importance.clear();
    scratch.importance.extend((0..width).map(|i| goal.cost[i * width + i]));
    scratch.proposal.resize(width * rows, 0.0);
    scratch.tiles.resize(rows.div_ceil(height), false);
    scratch.errors.clear();
    if coded_before {
        tile_errors(goal, rows, height, current, &mut scratch.errors);
    } else {
        scratch.errors.resize(rows.div_ceil(height), f32::INFINITY);
    }
    scratch.moved.clear();
    scratch.moved.extend_from_slice(goal.target);
    let steps = if width == 1 { 0 } else { STEPS };
    for step in 0..=steps {
        let Scratch { moved, proposal, importance, .. } = scratch;
        coder.propose(goal.columns.clone(), moved, importance, proposal);
        scratch.proposed.clear();
        tile_errors(goal, rows, height, &scratch.proposal, &mut scratch.proposed);
        for (tile, (new, old)) in
            scratch.tiles.iter_mut().zip(scratch.proposed.iter().zip(&mut scratch.errors))
        {
            *tile = new < old;
            *old = if *tile { *new } else { *old };
        }
        coder.accept(goal.columns.clone(), &scratch.tiles);
        take(rows, height, &scratch.tiles, &scratch.proposal, current);
        if step < steps {
            step_against_gradient(goal, rows, current, &mut scratch.moved);
        }
    }
}

/// Copies the accepted tiles.
fn take(rows: usize, height: usize, tiles: &[bool], from: &[f32], to: &mut [f32]) {
    for (from, to) in from.chunks_exact(rows).zip(to.chunks_exact_mut(rows)) {
        for ((from, to), &tile) in from.chunks(height).zip(to.chunks_mut(height)).zip(tiles) {
            if tile {
                to.copy_from_slice(from);
            }
        }
    }
}

/// The minimum of the cost along each column on its own, given the errors of the others.
fn step_against_gradient(goal: &Goal<'_>, rows: usize, current: &[f32], moved: &mut [f32]) {
    let width = goal.columns.len();
    for (i, moved) in moved.chunks_exact_mut(rows).enumerate() {
        moved.copy_from_slice(&goal.target[i * rows..][..rows]);
        for j in (0..width).filter(|&j| j != i) {
            let ratio = goal.cost[i * width + j] / goal.cost[i * width + i];
            let (now, target) = (&current[j * rows..][..rows], &goal.target[j * rows..][..rows]);
            for ((moved, now), target) in moved.iter_mut().zip(now).zip(target) {
                *moved -= ratio * (now - target);
            }
        }
    }
}

/// Appends Σ e·S·eᵀ over the rows of each tile.
fn tile_errors(goal: &Goal<'_>, rows: usize, height: usize, values: &[f32], errors: &mut Vec<f32>) {
    let width = goal.columns.len();
    for first in (0..rows).step_by(height) {
        let mut sum = 0.0;
        for row in first..rows.min(first + height) {
            for i in 0..width {
                let error = |j: usize| values[j * rows + row] - goal.target[j * rows + row];
                let mixed: f32 = (0..width).map(|j| goal.cost[i * width + j] * error(j)).sum();
                sum += error(i) * mixed;
            }
        }
        errors.push(sum);
    }
}
