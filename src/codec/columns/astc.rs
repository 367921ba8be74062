//! Block columns of ASTC textures.

use std::ops::Range;

use compress_model_astc::encode::{Importance, NativeEncoder};
use compress_model_astc::{BlockGrid, Error, Footprint, RowScale, full_range_scales};
use compress_model_feedback::ColumnCoder;
use half::f16;

use super::{PanelCoder, rescaled};

/// Blocks of a panel, block column by block column.
pub(in crate::codec) struct AstcColumns<'w> {
    footprint: Footprint,
    encoder: &'w mut NativeEncoder,
    rows: usize,
    scales: Vec<f16>,
    /// [block columns, blocks down, 16]
    blocks: Vec<u8>,
    proposal: Vec<u8>,
    /// The target and what it became, row-major.
    target: Vec<f32>,
    decoded: Vec<f32>,
}

impl<'w> AstcColumns<'w> {
    /// Chooses the row scales of `panel`, row-major with `cols` columns.
    pub(in crate::codec) fn new(
        panel: &[f32],
        cols: usize,
        importance: &[f32],
        footprint: Footprint,
        encoder: &'w mut NativeEncoder,
        row_scale: RowScale,
    ) -> Result<Self, Error> {
        let rows = panel.len() / cols;
        let mut scales = vec![f16::ZERO; rows];
        match row_scale {
            RowScale::FullRange => full_range_scales(panel, cols, &mut scales)?,
            RowScale::Searched => {
                let importance = Importance::Columns(importance);
                encoder.choose_scales(panel, rows, cols, importance, &mut scales)?;
            }
        }
        let grid = BlockGrid::new(rows, cols, footprint);
        let column_bytes = grid.blocks_down() * BlockGrid::BLOCK_BYTES;
        Ok(Self {
            footprint,
            encoder,
            rows,
            scales,
            blocks: vec![0; grid.byte_len()],
            proposal: vec![0; column_bytes],
            target: Vec::new(),
            decoded: Vec::new(),
        })
    }
}

impl ColumnCoder for AstcColumns<'_> {
    fn width(&self) -> usize {
        self.footprint.width()
    }

    fn height(&self) -> usize {
        self.footprint.height()
    }

    fn segment(&self) -> Option<usize> {
        Some(usize::MAX)
    }

    fn propose(
        &mut self,
        columns: Range<usize>,
        target: &[f32],
        importance: &[f32],
        decoded: &mut [f32],
    ) {
        let (rows, width) = (self.rows, columns.len());
        self.target.resize(rows * width, 0.0);
        self.decoded.resize(rows * width, 0.0);
        for (row, out) in self.target.chunks_exact_mut(width).enumerate() {
            for (column, out) in out.iter_mut().enumerate() {
                // No texel reaches further: there is nothing to gain past the largest scale.
                *out = target[column * rows + row].max(f16::MIN.to_f32()).min(f16::MAX.to_f32());
            }
        }
        self.encoder
            .encode_column(
                &self.target,
                rows,
                width,
                Importance::Columns(importance),
                &self.scales,
                &mut self.proposal,
                &mut self.decoded,
            )
            .expect("invariant: finite weights of the size of the panel");
        for (column, out) in decoded.chunks_exact_mut(rows).enumerate() {
            for (row, out) in out.iter_mut().enumerate() {
                *out = self.decoded[row * width + column];
            }
        }
    }

    fn accept(&mut self, columns: Range<usize>, tiles: &[bool]) {
        let column = columns.start / self.footprint.width();
        let blocks = &mut self.blocks[column * self.proposal.len()..][..self.proposal.len()];
        let (from, _) = self.proposal.as_chunks::<{ BlockGrid::BLOCK_BYTES }>();
        let (to, _) = blocks.as_chunks_mut::<{ BlockGrid::BLOCK_BYTES }>();
        super::take(from, to, tiles);
    }

    fn rescale(&mut self, _: usize, factors: &mut [f32]) {
        for (scale, factor) in self.scales.iter_mut().zip(factors) {
            (*scale, *factor) = rescaled(*scale, *factor);
        }
    }
}

impl PanelCoder for AstcColumns<'_> {
    fn write(&self, parts: &mut [Vec<u8>]) {
        let [blocks, scales] = parts else { unreachable!("invariant: blocks and scales") };
        let down = self.proposal.len() / BlockGrid::BLOCK_BYTES;
        let across = blocks.len() / self.proposal.len().max(1);
        for (i, out) in blocks.chunks_exact_mut(BlockGrid::BLOCK_BYTES).enumerate() {
            let from = (i % across * down + i / across) * BlockGrid::BLOCK_BYTES;
            out.copy_from_slice(&self.blocks[from..from + BlockGrid::BLOCK_BYTES]);
        }
        scales.copy_from_slice(bytemuck::cast_slice(&self.scales));
    }
}
