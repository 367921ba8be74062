//! Columns of 4-bit groups.

use std::ops::Range;

use compress_model_feedback::ColumnCoder;
use compress_model_qat::{Error, Int4, pack};
use half::f16;

use super::grid2::write_groups;
use super::{PanelCoder, take};

/// Codes of a panel in column-major order, scales and minima group by group.
pub(in crate::codec) struct Int4Columns {
    rows: usize,
    cols: usize,
    group: usize,
    /// [groups, rows]
    scales: Vec<f16>,
    /// [groups, rows]
    mins: Vec<f16>,
    /// [cols, rows]
    codes: Vec<u8>,
    proposal: Vec<u8>,
}

impl Int4Columns {
    /// Fits scales and minima of `panel`, row-major with `cols` columns, to its weights.
    pub(in crate::codec) fn new(panel: &[f32], cols: usize, int4: Int4) -> Result<Self, Error> {
        let rows = panel.len() / cols;
        let groups = int4.scales_per_row(cols);
        let mut codes = vec![0; rows * int4.code_bytes_per_row(cols)];
        let (mut scales, mut mins) =
            (vec![f16::ZERO; rows * groups], vec![f16::ZERO; rows * groups]);
        int4.encode_rows(panel, cols, &mut codes, &mut scales, &mut mins)?;
        let by_group = |values: &[f16]| -> Vec<f16> {
            (0..groups * rows).map(|i| values[i % rows * groups + i / rows]).collect()
        };
        let (scales, mins) = (by_group(&scales), by_group(&mins));
        let (codes, proposal) = (vec![0; rows * cols], vec![0; rows]);
        let group = int4.group().get();
        Ok(Self { rows, cols, group, scales, mins, codes, proposal })
    }
}

impl ColumnCoder for Int4Columns {
    fn width(&self) -> usize {
        1
    }

    fn height(&self) -> usize {
        1
    }

    fn segment(&self) -> Option<usize> {
        None
    }

    fn propose(&mut self, columns: Range<usize>, target: &[f32], _: &[f32], decoded: &mut [f32]) {
        let first = columns.start / self.group * self.rows;
        let (scales, mins) = (&self.scales[first..][..self.rows], &self.mins[first..][..self.rows]);
        for (row, (code, decoded)) in self.proposal.iter_mut().zip(decoded).enumerate() {
            let (scale, min) = (scales[row].to_f32(), mins[row].to_f32());
            let level = if scale == 0.0 { 0.0 } else { ((target[row] - min) / scale).round() };
            *code = level.clamp(0.0, 15.0) as u8;
            *decoded = scale * f32::from(*code) + min;
        }
    }

    fn accept(&mut self, columns: Range<usize>, tiles: &[bool]) {
        take(&self.proposal, &mut self.codes[columns.start * self.rows..][..self.rows], tiles);
    }

    fn rescale(&mut self, _: usize, factors: &mut [f32]) {
        factors.fill(1.0);
    }
}

impl PanelCoder for Int4Columns {
    fn write(&self, parts: &mut [Vec<u8>]) {
        let [codes, scales, mins] = parts else { unreachable!("invariant: codes, scales, mins") };
        let row_bytes = pack::packed4_len(self.cols);
        let mut row_codes = vec![0; self.cols];
        for (row, out) in codes.chunks_exact_mut(row_bytes).enumerate() {
            for (code, column) in row_codes.iter_mut().zip(self.codes.chunks_exact(self.rows)) {
                *code = column[row];
            }
            pack::pack4(&row_codes, out);
        }
        write_groups(&self.scales, self.rows, scales);
        write_groups(&self.mins, self.rows, mins);
    }
}
