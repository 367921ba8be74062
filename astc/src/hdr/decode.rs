//! The decoder: ŵ = t + offset, with t the red channel of the HDR texel.

use half::f16;

use super::levels::{interpolated, texel};
use super::{check_offsets, gridded};
use crate::decode::hdr::luminance;
use crate::decode::luminance::{unpack_weights, unquantised};
use crate::decode::luminance_tables::{LuminanceTables, PALETTE_SIZE, PALETTE_STRIDE};
use crate::decode::{Profile, decode_fp16};
use crate::encode::check_length;
use crate::tables::{colour_values, read_ise, weight_values};
use crate::{BlockGrid, Error, Footprint};

/// Decodes HDR blocks of one footprint; one a thread, it keeps scratch memory.
///
/// Exactly [`decode_fp16`] with [`Profile::Hdr`], red channel, plus the block's offset, both
/// widened to f32 before the addition. What breaks the standard has NaN texels and so decodes to
/// NaN; nothing panics on any bytes.
#[derive(Debug)]
pub struct HdrDecoder {
    footprint: Footprint,
    tables: &'static LuminanceTables,
    reference: Vec<[f16; 4]>,
    palette: [f32; PALETTE_SIZE],
    /// Room for the last group of weights to run past the block.
    indices: [u8; Footprint::MAX_TEXELS + 8],
    texels: [f32; Footprint::MAX_TEXELS],
}

impl HdrDecoder {
    /// A decoder for blocks of `footprint`.
    pub fn new(footprint: Footprint) -> Self {
        Self {
            footprint,
            tables: LuminanceTables::of(footprint),
            reference: vec![[f16::ZERO; 4]; footprint.texels()],
            palette: [0.0; PALETTE_SIZE],
            indices: [0; Footprint::MAX_TEXELS + 8],
            texels: [0.0; Footprint::MAX_TEXELS],
        }
    }

    /// Decodes blocks in raster order and one offset a block into `rows` x `cols` weights,
    /// row-major.
    ///
    /// # Errors
    /// [`Error::Length`] if `out` is not rows·cols long, `blocks` not [`BlockGrid::byte_len`] or
    /// `offsets` not [`BlockGrid::block_count`].
    pub fn decode_rows(
        &mut self,
        blocks: &[u8],
        offsets: &[f16],
        rows: usize,
        cols: usize,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let grid = BlockGrid::new(rows, cols, self.footprint);
        check_length("weights", out.len(), rows * cols, &grid)?;
        check_offsets(&grid, blocks.len(), offsets.len())?;
        let (width, height) = (self.footprint.width(), self.footprint.height());
        let (blocks, _) = blocks.as_chunks::<{ BlockGrid::BLOCK_BYTES }>();
        for (place, (&block, offset)) in gridded(&grid).zip(blocks.iter().zip(offsets)) {
            self.decode_block(block);
            let offset = offset.to_f32();
            let visible = width.min(cols - place.col);
            for row in 0..height.min(rows - place.row) {
                let out = &mut out[(place.row + row) * cols + place.col..][..visible];
                for (out, texel) in out.iter_mut().zip(&self.texels[row * width..]) {
                    *out = texel + offset;
                }
            }
        }
        Ok(())
    }

    /// Decodes into `texels`.
    fn decode_block(&mut self, block: [u8; 16]) {
        if self.decode_luminance(block).is_some() {
            return;
        }
        // An error leaves NaN, which is what a texture unit returns.
        let _: Result<(), crate::decode::BlockError> =
            decode_fp16(block, self.footprint, Profile::Hdr, &mut self.reference);
        for (texel, rgba) in self.texels.iter_mut().zip(&self.reference) {
            *texel = rgba[0].to_f32();
        }
    }

    /// Decodes a one-plane block of endpoint mode 2 or 3, `None` for any other.
    fn decode_luminance(&mut self, block: [u8; 16]) -> Option<()> {
        let bits = u128::from_le_bytes(block);
        let low = bits as u64;
        let mode = self.tables.mode(low)?;
        let partitions = (low >> 11 & 3) as usize + 1;
        let (format, start) = match partitions {
            1 => (low >> 13 & 0xF, 17),
            // All partitions share an endpoint mode where the two lowest bits are zero.
            _ if low >> 23 & 3 == 0 => (low >> 25 & 0xF, 29),
            _ => return None,
        };
        if !matches!(format, 2 | 3) {
            return None;
        }
        let quant = mode.endpoints[partitions - 1]?;

        let mut codes = [0; 8];
        let codes = &mut codes[..2 * partitions];
        read_ise(bits, start, quant, codes);
        let values = colour_values(quant);
        let mut ends = [(0, 0); 4];
        for (pair, ends) in codes.chunks_exact(2).zip(&mut ends) {
            let [first, second] = [pair[0], pair[1]].map(|code| values[usize::from(code)]);
            *ends = luminance(format as u8, first, second);
        }

        unpack_weights(bits, mode, &mut self.indices);
        let weights = weight_values(mode.weights);
        let offsets = self.tables.offsets(partitions, (low >> 13 & 0x3FF) as usize);
        if let Some(infill) = mode.infill {
            let grid = unquantised(&self.indices[..mode.weight_count], weights);
            let infill = self.tables.infill(infill);
            for ((out, &point), &offset) in self.texels.iter_mut().zip(infill.points()).zip(offsets)
            {
                let ends = ends[usize::from(offset) / PALETTE_STRIDE % 4];
                *out = texel(interpolated(ends, infill.weight(point, &grid)));
            }
            return Some(());
        }
        let palettes = self.palette.chunks_exact_mut(PALETTE_STRIDE);
        for (&ends, palette) in ends[..partitions].iter().zip(palettes) {
            for (entry, &weight) in palette.iter_mut().zip(weights) {
                *entry = texel(interpolated(ends, weight));
            }
        }
        for ((out, &index), &offset) in self.texels.iter_mut().zip(&self.indices).zip(offsets) {
            *out = self.palette[usize::from(index + offset) % PALETTE_SIZE];
        }
        Some(())
    }
}
