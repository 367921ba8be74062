//! Strips of luminance blocks to weights, as fast as one core writes them.
//!
//! What a weight encoder writes has colour endpoint mode 0 (luminance, direct) in every partition
//! and one weight a texel. Such a block has few distinct texel values, partitions times weight
//! levels: they are computed once into a palette, and a texel is a palette lookup by the sum of
//! its stored weight and its partition's offset. Every other block takes the reference path.

use half::f16;

use super::luminance_tables::{
    FullGridMode, LuminanceTables, PALETTE_SIZE, PALETTE_STRIDE, WeightGroups,
};
use super::{Profile, decode_fp16, decode_unorm8};
use crate::tables::{colour_values, read_ise, weight_values};
use crate::{BlockGrid, DecodeMode, Footprint};

/// Decodes blocks of one footprint and precision.
#[derive(Debug)]
pub(crate) struct LuminanceDecoder {
    footprint: Footprint,
    decode: DecodeMode,
    tables: &'static LuminanceTables,
    /// Signed value 2v/255 - 1 of a unorm8 texel v.
    unorm8: Box<[f32; 256]>,
    reference_unorm8: Vec<[u8; 4]>,
    reference_fp16: Vec<[f16; 4]>,
}

/// Texels of a block as indices into a palette of signed values in -1..=1.
struct Indexed {
    palette: [f32; PALETTE_SIZE],
    /// Room for the last group of weights to run past the block.
    texels: [u8; Footprint::MAX_TEXELS + 8],
}

impl LuminanceDecoder {
    pub(crate) fn new(footprint: Footprint, decode: DecodeMode) -> Self {
        Self {
            footprint,
            decode,
            tables: LuminanceTables::of(footprint),
            unorm8: Box::new(std::array::from_fn(|v| signed(v as f32 / 255.0))),
            reference_unorm8: vec![[0; 4]; footprint.texels()],
            reference_fp16: vec![[f16::ZERO; 4]; footprint.texels()],
        }
    }

    /// Decodes one row of blocks into `scales.len()` rows (at most the footprint's height) of
    /// `cols` weights.
    pub(crate) fn decode_strip(
        &mut self,
        blocks: &[u8],
        scales: &[f16],
        cols: usize,
        out: &mut [f32],
    ) {
        let mut row_scales = [0.0; 12];
        for (row_scale, scale) in row_scales.iter_mut().zip(scales) {
            *row_scale = scale.to_f32();
        }
        let row_scales = &row_scales[..scales.len()];
        let mut indexed =
            Indexed { palette: [0.0; PALETTE_SIZE], texels: [0; Footprint::MAX_TEXELS + 8] };
        let blocks = blocks.chunks_exact(BlockGrid::BLOCK_BYTES);
        for (index, block) in blocks.enumerate() {
            let block: [u8; 16] = block.try_into().expect("invariant: chunks of 16 bytes");
            let first = index * self.footprint.width();
            if self.index_texels(block, &mut indexed).is_some() {
                write_indexed(&indexed, self.footprint, row_scales, first, cols, out);
            } else {
                self.write_reference(block, row_scales, first, cols, out);
            }
        }
        for (row, _) in row_scales.iter().enumerate().filter(|(_, scale)| **scale == 0.0) {
            // 0 times a negative texel is -0.
            out[row * cols..][..cols].fill(0.0);
        }
    }

    /// The palette and indices of a block, `None` if it needs the reference decoder.
    fn index_texels(&self, block: [u8; 16], indexed: &mut Indexed) -> Option<()> {
        let bits = u128::from_le_bytes(block);
        let low = bits as u64;
        let mode = self.tables.mode(low)?;
        let partitions = (low >> 11 & 3) as usize + 1;
        let (format, start) =
            if partitions == 1 { (low >> 13 & 0xF, 17) } else { (low >> 23 & 0x3F, 29) };
        if format != 0 {
            return None;
        }
        let quant = mode.endpoints[partitions - 1]?;

        let mut endpoints = [0; 8];
        let endpoints = &mut endpoints[..2 * partitions];
        read_ise(bits, start, quant, endpoints);
        let values = colour_values(quant);
        for (pair, palette) in
            endpoints.chunks_exact(2).zip(indexed.palette.chunks_exact_mut(PALETTE_STRIDE))
        {
            let [low, high] = [pair[0], pair[1]].map(|code| u32::from(values[usize::from(code)]));
            self.fill_palette(low * 257, high * 257, weight_values(mode.weights), palette);
        }

        unpack_weights(bits, mode, &mut indexed.texels, self.footprint.texels());
        if partitions > 1 {
            let offsets = self.tables.offsets(partitions, (low >> 13 & 0x3FF) as usize);
            for (texel, &offset) in indexed.texels.iter_mut().zip(offsets) {
                *texel += offset;
            }
        }
        Some(())
    }

    fn fill_palette(&self, low: u32, high: u32, weights: &[u8], palette: &mut [f32]) {
        let interpolate =
            |weight: u8| (low * (64 - u32::from(weight)) + high * u32::from(weight) + 32) >> 6;
        match self.decode {
            DecodeMode::Unorm8 => {
                for (entry, &weight) in palette.iter_mut().zip(weights) {
                    *entry = self.unorm8[interpolate(weight) as usize >> 8 & 0xFF];
                }
            }
            DecodeMode::Fp16 => {
                for (entry, &weight) in palette.iter_mut().zip(weights) {
                    *entry = signed(unorm16_through_fp16(interpolate(weight)));
                }
            }
        }
    }

    /// Any block by way of the reference decoder; illegal ones are magenta, red = 1.
    fn write_reference(
        &mut self,
        block: [u8; 16],
        scales: &[f32],
        first: usize,
        cols: usize,
        out: &mut [f32],
    ) {
        let (unorm8, fp16) = (&mut self.reference_unorm8, &mut self.reference_fp16);
        // The error colour is what a texture unit returns, so it stands for the block here too.
        let _: Result<(), super::BlockError> = match self.decode {
            DecodeMode::Unorm8 => decode_unorm8(block, self.footprint, unorm8),
            DecodeMode::Fp16 => decode_fp16(block, self.footprint, Profile::Ldr, fp16),
        };
        let width = self.footprint.width();
        for (row, &scale) in scales.iter().enumerate() {
            let end = (first + width).min(cols);
            for (x, out) in out[row * cols + first..row * cols + end].iter_mut().enumerate() {
                let texel = row * width + x;
                let value = match self.decode {
                    DecodeMode::Unorm8 => self.unorm8[usize::from(unorm8[texel][0])],
                    DecodeMode::Fp16 => signed(fp16[texel][0].to_f32()),
                };
                *out = scale * value;
            }
        }
    }
}

/// The signed value 2t - 1 of a texel t.
fn signed(texel: f32) -> f32 {
    2.0 * texel - 1.0
}

/// value / 65536 with 11 significant bits, 1 for 65535: the fp16 result without its detour.
fn unorm16_through_fp16(value: u32) -> f32 {
    if value == 0xFFFF {
        return 1.0;
    }
    let below = (0xFFFF >> (value.leading_zeros() - 16)) >> 11;
    (value & !below) as f32 / 65536.0
}

/// The stored weights of a block, one byte a texel; up to 7 bytes past them are overwritten.
fn unpack_weights(bits: u128, mode: FullGridMode, texels: &mut [u8], count: usize) {
    let sequence = bits.reverse_bits() & ((1 << mode.weight_bits) - 1);
    let Some(groups) = WeightGroups::of(mode.weights) else {
        return read_ise(sequence, 0, mode.weights, &mut texels[..count]);
    };
    let (mut low, mut high) = (sequence as u64, (sequence >> 64) as u64);
    for start in (0..count).step_by(groups.weights) {
        texels[start..start + 8].copy_from_slice(&groups.codes(low).to_le_bytes());
        low = low >> groups.bits | high << (64 - groups.bits);
        high >>= groups.bits;
    }
}

/// Writes the block whose left column is `first`, cut at the right edge.
fn write_indexed(
    indexed: &Indexed,
    footprint: Footprint,
    scales: &[f32],
    first: usize,
    cols: usize,
    out: &mut [f32],
) {
    let width = footprint.width();
    let visible = width.min(cols - first);
    for ((row, &scale), texels) in scales.iter().enumerate().zip(indexed.texels.chunks_exact(width))
    {
        let out = &mut out[row * cols + first..][..visible];
        for (out, &texel) in out.iter_mut().zip(texels) {
            *out = scale * indexed.palette[usize::from(texel) % PALETTE_SIZE];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::texels::unorm16_to_fp16;

    #[test]
    fn fp16_shortcut_is_exact() {
        for value in 0..=u16::MAX {
            let want = unorm16_to_fp16(value).to_f32();
            assert_eq!(unorm16_through_fp16(value.into()).to_bits(), want.to_bits(), "{value}");
        }
    }
}
