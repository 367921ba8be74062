//! Coordinate descent: every unit again, given what all the others became.

use std::ops::Range;

use crate::norm::difference;
use crate::panel::add_products;
use crate::unit::{Goal, Scratch, code};
use crate::{ColumnCoder, Hessian, Panel};

/// Columns whose updates reach the later columns in one matrix product.
const BLOCK: usize = 128;

/// Runs `passes` over the columns of `panel`, which [`crate::round`] has coded.
///
/// A pass refits the scales of each row and segment and codes each unit of columns anew, both to
/// the minimum of the error in the norm of H with everything else fixed. What does not lower the
/// error is left as it was, except for the rounding of scales.
///
/// # Panics
/// If `hessian` is of another width.
pub fn descend(panel: &mut Panel, hessian: &Hessian, coder: &mut dyn ColumnCoder, passes: usize) {
    assert_eq!(panel.cols(), hessian.width(), "one row of H for each column");
    if panel.rows() == 0 || passes == 0 {
        return;
    }
    // W·H, for whole rows whose scale changes.
    let whole = coder.segment().is_some_and(|segment| segment >= panel.cols());
    let wanted = whole.then(|| product(panel.wanted(), panel.rows(), hessian));
    let mut pass =
        Pass { hessian, rows: panel.rows(), gradient: Vec::new(), scratch: Scratch::default() };
    for _ in 0..passes {
        pass.begin(panel);
        if let Some(wanted) = &wanted {
            pass.rescale_rows(panel, coder, wanted);
        }
        for block in blocks(panel.cols(), coder) {
            pass.block(panel, coder, block);
        }
    }
}

/// Runs of whole units and whole segments.
fn blocks(cols: usize, coder: &dyn ColumnCoder) -> Vec<Range<usize>> {
    let step = match coder.segment() {
        Some(segment) if segment < cols => segment * (BLOCK / segment).max(1),
        _ => coder.width() * (BLOCK / coder.width()).max(1),
    };
    (0..cols).step_by(step).map(|first| first..cols.min(first + step)).collect()
}

/// Columns · H, [cols, rows].
fn product(columns: &[f32], rows: usize, hessian: &Hessian) -> Vec<f32> {
    let mut out = vec![0.0; columns.len()];
    add_products(&mut out, columns, rows, hessian.values(), hessian.width(), 0, 1.0);
    out
}

struct Pass<'a> {
    hessian: &'a Hessian,
    rows: usize,
    /// (Ŵ - W)·H, [cols, rows]; half the gradient of the error.
    gradient: Vec<f32>,
    scratch: Scratch,
}

impl Pass<'_> {
    fn begin(&mut self, panel: &Panel) {
        let error = difference(panel.decoded_columns(), panel.wanted());
        self.gradient = product(&error, self.rows, self.hessian);
    }

    /// Refits one scale a row: `wanted` is W·H.
    fn rescale_rows(&mut self, panel: &mut Panel, coder: &mut dyn ColumnCoder, wanted: &[f32]) {
        let rows = self.rows;
        let decoded = panel.decoded_columns_mut();
        let mut sums = vec![(0.0f64, 0.0f64); rows];
        let columns = decoded.chunks_exact(rows).zip(self.gradient.chunks_exact(rows));
        for ((d, g), w) in columns.zip(wanted.chunks_exact(rows)) {
            for (row, (slope, curve)) in sums.iter_mut().enumerate() {
                *slope += f64::from(d[row]) * f64::from(g[row]);
                *curve += f64::from(d[row]) * f64::from(g[row] + w[row]);
            }
        }
        let mut factors: Vec<f32> = sums.iter().map(|&(s, c)| factor(s, c)).collect();
        coder.rescale(0, &mut factors);
        let columns = decoded.chunks_exact_mut(rows).zip(self.gradient.chunks_exact_mut(rows));
        for ((d, g), w) in columns.zip(wanted.chunks_exact(rows)) {
            for (row, factor) in factors.iter().enumerate() {
                d[row] *= factor;
                g[row] += (factor - 1.0) * (g[row] + w[row]);
            }
        }
    }

    /// Works on the columns of `block` and corrects the gradient of those after it.
    fn block(&mut self, panel: &mut Panel, coder: &mut dyn ColumnCoder, block: Range<usize>) {
        let (rows, n) = (self.rows, panel.cols());
        let before = panel.decoded_columns()[block.start * rows..block.end * rows].to_vec();
        let segment = coder.segment().filter(|&segment| segment < n);
        for first in block.clone().step_by(segment.unwrap_or(block.len())) {
            let columns = first..block.end.min(first + segment.unwrap_or(block.len()));
            for start in columns.clone().step_by(coder.width()) {
                let unit = start..columns.end.min(start + coder.width());
                self.unit(panel, coder, unit, &block);
            }
            if let Some(segment) = segment {
                self.rescale_segment(panel, coder, first / segment, columns, &block);
            }
        }
        let now = &panel.decoded_columns()[block.start * rows..block.end * rows];
        let change = difference(now, &before);
        let later = &mut self.gradient[block.end * rows..];
        let h = &self.hessian.values()[block.start * n..];
        add_products(later, &change, rows, h, n, block.end, 1.0);
    }

    /// Codes one unit anew.
    fn unit(
        &mut self,
        panel: &mut Panel,
        coder: &mut dyn ColumnCoder,
        unit: Range<usize>,
        block: &Range<usize>,
    ) {
        let (rows, n, h) = (self.rows, self.hessian.width(), self.hessian.values());
        let range = unit.start * rows..unit.end * rows;
        let before = panel.decoded_columns()[range.clone()].to_vec();
        let width = unit.len();
        let cost: Vec<f32> =
            unit.clone().flat_map(|i| unit.clone().map(move |j| h[i * n + j])).collect();
        // The minimum with all other columns fixed: ŵ - gradient·H_unit⁻¹.
        let mut target = self.gradient[range.clone()].to_vec();
        solve(&cost, width, &mut target, rows);
        for (target, before) in target.iter_mut().zip(&before) {
            *target = before - *target;
        }
        let goal = Goal { columns: unit.clone(), target: &target, cost: &cost };
        let decoded = &mut panel.decoded_columns_mut()[range.clone()];
        code(coder, &goal, rows, decoded, true, &mut self.scratch);
        let change = difference(decoded, &before);
        self.follow(&change, unit, block);
    }

    /// Corrects the gradient inside `block` for a `change` of `columns`.
    fn follow(&mut self, change: &[f32], columns: Range<usize>, block: &Range<usize>) {
        let (rows, n, h) = (self.rows, self.hessian.width(), self.hessian.values());
        let inside = &mut self.gradient[block.start * rows..block.end * rows];
        for (column, change) in columns.zip(change.chunks_exact(rows)) {
            if change.iter().all(|&x| x == 0.0) {
                continue;
            }
            for (j, gradient) in block.clone().zip(inside.chunks_exact_mut(rows)) {
                add(gradient, change, h[column * n + j]);
            }
        }
    }

    /// Refits the scales of one segment.
    fn rescale_segment(
        &mut self,
        panel: &mut Panel,
        coder: &mut dyn ColumnCoder,
        segment: usize,
        columns: Range<usize>,
        block: &Range<usize>,
    ) {
        let (rows, n) = (self.rows, self.hessian.width());
        let range = columns.start * rows..columns.end * rows;
        let before = panel.decoded_columns()[range.clone()].to_vec();
        let mut bent = vec![0.0; before.len()];
        let h = &self.hessian.values()[columns.start * n..];
        add_products(&mut bent, &before, rows, h, n, columns.start, 1.0);
        let mut sums = vec![(0.0f64, 0.0f64); rows];
        let gradients = self.gradient[range.clone()].chunks_exact(rows);
        for ((d, b), g) in before.chunks_exact(rows).zip(bent.chunks_exact(rows)).zip(gradients) {
            for (row, (slope, curve)) in sums.iter_mut().enumerate() {
                *slope += f64::from(d[row]) * f64::from(g[row]);
                *curve += f64::from(d[row]) * f64::from(b[row]);
            }
        }
        let mut factors: Vec<f32> = sums.iter().map(|&(s, c)| factor(s, c)).collect();
        coder.rescale(segment, &mut factors);
        let decoded = &mut panel.decoded_columns_mut()[range];
        for column in decoded.chunks_exact_mut(rows) {
            for (d, factor) in column.iter_mut().zip(&factors) {
                *d *= factor;
            }
        }
        let change = difference(decoded, &before);
        self.follow(&change, columns, block);
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn add(gradient: &mut [f32], change: &[f32], factor: f32) {
    for (g, c) in gradient.iter_mut().zip(change) {
        *g += c * factor;
    }
}

/// The factor that minimises a quadratic with this slope and curvature at 1.
fn factor(slope: f64, curve: f64) -> f32 {
    if curve > 0.0 { (1.0 - slope / curve) as f32 } else { 1.0 }
}

/// Replaces each row of `x` [width, rows] by the row times the inverse of `cost`, a positive
/// definite matrix [width, width].
fn solve(cost: &[f32], width: usize, x: &mut [f32], rows: usize) {
    if width == 1 {
        let share = 1.0 / cost[0];
        x.iter_mut().for_each(|x| *x *= share);
        return;
    }
    // Cholesky in f64: units are a few columns wide.
    let mut lower = vec![0.0f64; width * width];
    for i in 0..width {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| lower[i * width + k] * lower[j * width + k]).sum();
            let rest = f64::from(cost[i * width + j]) - dot;
            lower[i * width + j] = if i == j {
                rest.max(f64::MIN_POSITIVE).sqrt()
            } else {
                rest / lower[j * width + j]
            };
        }
    }
    for row in 0..rows {
        let mut y = [0.0f64; 16];
        for i in 0..width {
            let dot: f64 = (0..i).map(|k| lower[i * width + k] * y[k]).sum();
            y[i] = (f64::from(x[i * rows + row]) - dot) / lower[i * width + i];
        }
        for i in (0..width).rev() {
            let dot: f64 = (i + 1..width).map(|k| lower[k * width + i] * y[k]).sum();
            y[i] = (y[i] - dot) / lower[i * width + i];
            x[i * rows + row] = y[i] as f32;
        }
    }
}
