//! Error feedback: each column is coded with what the columns before it left over.

use crate::factor::Factor;
use crate::panel::add_products;
use crate::unit::{Goal, Scratch, code};
use crate::{ColumnCoder, Panel};

/// Columns whose updates reach the rest of the row in one matrix product.
const BLOCK: usize = 128;

/// Codes every column of `panel`, in the order of `factor`.
///
/// After a unit of columns is coded, its error is divided by the diagonal of U and subtracted,
/// times row i of U, from the columns still to come: the best that they can do about it (GPTQ's
/// equation 3 in the Cholesky form of its section 3.3). Updates past the current block of columns
/// wait for one matrix product.
///
/// # Panics
/// If `factor` is of another width, or was not made for the coder's units.
pub fn round(panel: &mut Panel, factor: &Factor, coder: &mut dyn ColumnCoder) {
    let (rows, n) = (panel.rows(), panel.cols());
    assert_eq!(n, factor.width(), "one factor row for each column");
    if rows == 0 {
        return;
    }
    let order = factor.order();
    let mut left: Vec<f32> = Vec::with_capacity(rows * n);
    for &column in order {
        left.extend_from_slice(&panel.wanted()[column * rows..][..rows]);
    }
    let mut state = State { rows, n, factor, scratch: Scratch::default(), decoded: Vec::new() };
    let mut units = factor.starts().windows(2).peekable();
    while let Some(first) = units.peek().map(|unit| unit[0]) {
        let mut end = first;
        let mut scaled_errors = Vec::with_capacity(BLOCK * rows);
        let mut block_units = Vec::new();
        while let Some(unit) = units.next_if(|unit| unit[1] - first <= BLOCK || unit[0] == first) {
            block_units.push(unit[0]..unit[1]);
            end = unit[1];
        }
        for unit in block_units {
            let columns = order[unit.start]..order[unit.start] + unit.len();
            assert!(
                columns.start.is_multiple_of(coder.width()) && unit.len() <= coder.width(),
                "a factor for the coder's units"
            );
            state.code_unit(coder, unit, columns.clone(), end, &mut left, &mut scaled_errors);
            let decoded = &mut panel.decoded_columns_mut()[columns.start * rows..];
            decoded[..state.decoded.len()].copy_from_slice(&state.decoded);
        }
        let (_, rest) = left.split_at_mut(end * rows);
        add_products(rest, &scaled_errors, rows, &factor.inverse()[first * n..], n, end, -1.0);
    }
}

struct State<'a> {
    rows: usize,
    n: usize,
    factor: &'a Factor,
    scratch: Scratch,
    decoded: Vec<f32>,
}

impl State<'_> {
    /// Codes the positions `unit`, corrects those up to `end`, and appends the errors over the
    /// diagonal of U.
    fn code_unit(
        &mut self,
        coder: &mut dyn ColumnCoder,
        unit: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        end: usize,
        left: &mut [f32],
        scaled_errors: &mut Vec<f32>,
    ) {
        let (rows, n) = (self.rows, self.n);
        let cost = unit_cost(self.factor, unit.clone());
        let target = &left[unit.start * rows..unit.end * rows];
        self.decoded.resize(target.len(), 0.0);
        let goal = Goal { columns, target, cost: &cost };
        code(coder, &goal, rows, &mut self.decoded, false, &mut self.scratch);
        let inverse = self.factor.inverse();
        for position in unit.clone() {
            let (before, after) = left.split_at_mut((position + 1) * rows);
            let (now, decoded) = (
                &before[position * rows..],
                &self.decoded[(position - unit.start) * rows..][..rows],
            );
            let share = 1.0 / inverse[position * n + position];
            let from = scaled_errors.len();
            scaled_errors.extend(now.iter().zip(decoded).map(|(now, coded)| (now - coded) * share));
            let error = &scaled_errors[from..];
            for (later, column) in (position + 1..end).zip(after.chunks_exact_mut(rows)) {
                subtract(column, error, inverse[position * n + later]);
            }
        }
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn subtract(column: &mut [f32], error: &[f32], factor: f32) {
    for (x, e) in column.iter_mut().zip(error) {
        *x -= e * factor;
    }
}

/// What errors in the columns of a unit cost once all later columns have done their best: the
/// Schur complement S = M_unit·M_unitᵀ.
fn unit_cost(factor: &Factor, unit: std::ops::Range<usize>) -> Vec<f32> {
    let (n, root) = (factor.width(), factor.root());
    let entry = |i: usize, j: usize| -> f32 {
        unit.clone().map(|k| root[i * n + k] * root[j * n + k]).sum()
    };
    unit.clone().flat_map(|i| unit.clone().map(move |j| (i, j))).map(|(i, j)| entry(i, j)).collect()
}
