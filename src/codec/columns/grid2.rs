//! Columns of the balanced 2-bit grid.

use std::ops::Range;

use compress_model_feedback::ColumnCoder;
use compress_model_qat::{newton, pack};
use half::f16;

use super::{PanelCoder, rescaled, take};

/// Codes of a panel in column-major order, scales group by group.
pub(in crate::codec) struct Grid2Columns {
    rows: usize,
    cols: usize,
    group: usize,
    /// [groups, rows]
    scales: Vec<f16>,
    /// [cols, rows]
    codes: Vec<u8>,
    proposal: Vec<u8>,
}

impl Grid2Columns {
    /// Fits the scales of `panel`, row-major with `cols` columns, to its weights, each counting as
    /// `importance` says. The error is a row and its largest weight where a scale is past fp16.
    pub(in crate::codec) fn new(
        panel: &[f32],
        cols: usize,
        group: usize,
        importance: &[f32],
    ) -> Result<Self, usize> {
        let rows = panel.len() / cols;
        let groups = cols.div_ceil(group);
        let mut scales = vec![f16::ZERO; groups * rows];
        for (row, weights) in panel.chunks_exact(cols).enumerate() {
            let parts = weights.chunks(group).zip(importance.chunks(group)).enumerate();
            for (number, (weights, importance)) in parts {
                let scale = f16::from_f32(newton::fit_scale_weighted(weights, importance));
                if !scale.is_finite() {
                    return Err(row);
                }
                scales[number * rows + row] = scale;
            }
        }
        Ok(Self { rows, cols, group, scales, codes: vec![2; rows * cols], proposal: vec![0; rows] })
    }
}

impl ColumnCoder for Grid2Columns {
    fn width(&self) -> usize {
        1
    }

    fn height(&self) -> usize {
        1
    }

    fn segment(&self) -> Option<usize> {
        Some(self.group)
    }

    fn propose(&mut self, columns: Range<usize>, target: &[f32], _: &[f32], decoded: &mut [f32]) {
        let scales = &self.scales[columns.start / self.group * self.rows..][..self.rows];
        let codes = self.proposal.iter_mut().zip(decoded);
        for ((code, decoded), (&w, scale)) in codes.zip(target.iter().zip(scales)) {
            let scale = scale.to_f32();
            *code = u8::from(w >= -scale) + u8::from(w >= 0.0) + u8::from(w > scale);
            if scale == 0.0 {
                *code = 2;
            }
            *decoded = scale * (f32::from(*code) - 1.5);
        }
    }

    fn accept(&mut self, columns: Range<usize>, tiles: &[bool]) {
        take(&self.proposal, &mut self.codes[columns.start * self.rows..][..self.rows], tiles);
    }

    fn rescale(&mut self, segment: usize, factors: &mut [f32]) {
        let scales = &mut self.scales[segment * self.rows..][..self.rows];
        for (scale, factor) in scales.iter_mut().zip(factors) {
            (*scale, *factor) = rescaled(*scale, *factor);
        }
    }
}

impl PanelCoder for Grid2Columns {
    fn write(&self, parts: &mut [Vec<u8>]) {
        let [codes, scales] = parts else { unreachable!("invariant: codes and scales") };
        let row_bytes = pack::packed2_len(self.cols);
        let mut row_codes = vec![0; self.cols];
        for (row, out) in codes.chunks_exact_mut(row_bytes).enumerate() {
            for (code, column) in row_codes.iter_mut().zip(self.codes.chunks_exact(self.rows)) {
                *code = column[row];
            }
            pack::pack2(&row_codes, out);
        }
        write_groups(&self.scales, self.rows, scales);
    }
}

/// Writes [groups, rows] numbers as [rows, groups] bytes.
pub(super) fn write_groups(values: &[f16], rows: usize, out: &mut [u8]) {
    let groups = values.len() / rows;
    for (i, out) in out.chunks_exact_mut(2).enumerate() {
        out.copy_from_slice(&values[i % groups * rows + i / groups].to_le_bytes());
    }
}
