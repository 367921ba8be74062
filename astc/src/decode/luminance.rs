//! Strips of luminance blocks to weights, as fast as one core writes them.
//!
//! What a weight encoder writes has colour endpoint mode 0 (luminance, direct) in every partition
//! and one plane of weights. With one weight a texel, such a block has few distinct texel values,
//! partitions times weight levels: they are computed once into a palette, and a texel is a palette
//! lookup by the sum of its stored weight and its partition's offset. A coarser weight grid is
//! interpolated texel by texel. Every other block takes the reference path.

use half::f16;

use super::luminance_tables::{
    LuminanceMode, LuminanceTables, PALETTE_SIZE, PALETTE_STRIDE, WeightGroups,
};
use super::{Profile, decode_fp16, decode_unorm8};
use crate::tables::{Infill, colour_values, read_ise, weight_values};
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

/// One decoded block: signed texel values in -1..=1, either listed or as palette indices.
struct Texels {
    palette: [f32; PALETTE_SIZE],
    /// Room for the last group of weights to run past the block.
    indices: [u8; Footprint::MAX_TEXELS + 8],
    values: [f32; Footprint::MAX_TEXELS],
}

/// Which part of [`Texels`] holds a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Indices,
    Values,
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
        let mut texels = Texels {
            palette: [0.0; PALETTE_SIZE],
            indices: [0; Footprint::MAX_TEXELS + 8],
            values: [0.0; Footprint::MAX_TEXELS],
        };
        let blocks = blocks.chunks_exact(BlockGrid::BLOCK_BYTES);
        for (index, block) in blocks.enumerate() {
            let block: [u8; 16] = block.try_into().expect("invariant: chunks of 16 bytes");
            let form = self.decode_luminance(block, &mut texels).unwrap_or_else(|| {
                self.decode_reference(block, &mut texels.values);
                Form::Values
            });
            let first = index * self.footprint.width();
            texels.write(form, self.footprint.width(), row_scales, first, cols, out);
        }
        for (row, _) in row_scales.iter().enumerate().filter(|(_, scale)| **scale == 0.0) {
            // 0 times a negative texel is -0.
            out[row * cols..][..cols].fill(0.0);
        }
    }

    /// Decodes a one-plane luminance block, `None` if it needs the reference decoder.
    fn decode_luminance(&self, block: [u8; 16], texels: &mut Texels) -> Option<Form> {
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

        let mut codes = [0; 8];
        let codes = &mut codes[..2 * partitions];
        read_ise(bits, start, quant, codes);
        let values = colour_values(quant);
        let mut lines = [Line::default(); 4];
        for (pair, line) in codes.chunks_exact(2).zip(&mut lines) {
            *line = Line::new(values[usize::from(pair[0])], values[usize::from(pair[1])]);
        }

        unpack_weights(bits, mode, &mut texels.indices);
        let offsets = self.tables.offsets(partitions, (low >> 13 & 0x3FF) as usize);
        if let Some(infill) = mode.infill {
            let grid =
                unquantised(&texels.indices[..mode.weight_count], weight_values(mode.weights));
            let infill = self.tables.infill(infill);
            self.interpolate_texels(infill, &grid, &lines, offsets, &mut texels.values);
            return Some(Form::Values);
        }
        let palettes = texels.palette.chunks_exact_mut(PALETTE_STRIDE);
        for (line, palette) in lines[..partitions].iter().zip(palettes) {
            self.fill_palette(*line, weight_values(mode.weights), palette);
        }
        if partitions > 1 {
            for (index, &offset) in texels.indices.iter_mut().zip(offsets) {
                *index += offset;
            }
        }
        Some(Form::Indices)
    }

    fn fill_palette(&self, line: Line, weights: &[u8], palette: &mut [f32]) {
        match self.decode {
            DecodeMode::Unorm8 => {
                for (entry, &weight) in palette.iter_mut().zip(weights) {
                    *entry = self.signed_unorm8(line.at(weight));
                }
            }
            DecodeMode::Fp16 => {
                for (entry, &weight) in palette.iter_mut().zip(weights) {
                    *entry = signed(unorm16_through_fp16(line.at(weight)));
                }
            }
        }
    }

    fn interpolate_texels(
        &self,
        infill: &Infill,
        grid: &[u8; Infill::PADDED_WEIGHTS],
        lines: &[Line; 4],
        offsets: &[u8],
        values: &mut [f32],
    ) {
        let points = infill.points().iter().zip(offsets).map(|(&point, &offset)| {
            lines[usize::from(offset) / PALETTE_STRIDE % 4].at(infill.weight(point, grid))
        });
        match self.decode {
            DecodeMode::Unorm8 => {
                for (value, unorm16) in values.iter_mut().zip(points) {
                    *value = self.signed_unorm8(unorm16);
                }
            }
            DecodeMode::Fp16 => {
                for (value, unorm16) in values.iter_mut().zip(points) {
                    *value = signed(unorm16_through_fp16(unorm16));
                }
            }
        }
    }

    fn signed_unorm8(&self, unorm16: u32) -> f32 {
        self.unorm8[unorm16 as usize >> 8 & 0xFF]
    }

    /// Any block by way of the reference decoder.
    fn decode_reference(&mut self, block: [u8; 16], values: &mut [f32]) {
        // An error leaves the error colour, which is what a texture unit returns: red is 1.
        let _: Result<(), super::BlockError> = match self.decode {
            DecodeMode::Unorm8 => {
                let texels = &mut self.reference_unorm8;
                let result = decode_unorm8(block, self.footprint, texels);
                for (value, texel) in values.iter_mut().zip(texels) {
                    *value = self.unorm8[usize::from(texel[0])];
                }
                result
            }
            DecodeMode::Fp16 => {
                let texels = &mut self.reference_fp16;
                let result = decode_fp16(block, self.footprint, Profile::Ldr, texels);
                for (value, texel) in values.iter_mut().zip(texels) {
                    *value = signed(texel[0].to_f32());
                }
                result
            }
        };
    }
}

/// The texel values between two luminance endpoints, on the 16-bit scale.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    /// 64 times the first endpoint, and a half of the last place for rounding.
    start: i32,
    /// Difference of the endpoints.
    step: i32,
}

impl Line {
    fn new(low: u8, high: u8) -> Self {
        let (low, high) = (i32::from(low) * 257, i32::from(high) * 257);
        Self { start: low * 64 + 32, step: high - low }
    }

    /// The value at a weight of 0..=64.
    fn at(self, weight: u8) -> u32 {
        ((self.start + self.step * i32::from(weight)) >> 6) as u32
    }
}

/// The signed value 2t - 1 of a texel t.
fn signed(texel: f32) -> f32 {
    2.0 * texel - 1.0
}

/// value / 65536 with 11 significant bits, 1 for 65535: the fp16 result without its detour.
fn unorm16_through_fp16(value: u32) -> f32 {
    // f32 has 13 fraction bits more than fp16; dropping them rounds towards zero.
    let truncated = f32::from_bits((value as f32).to_bits() & !0x1FFF);
    if value == 0xFFFF { 1.0 } else { truncated / 65536.0 }
}

/// The stored weights of a block, one byte each; up to 7 bytes past them are overwritten.
pub(crate) fn unpack_weights(bits: u128, mode: &LuminanceMode, codes: &mut [u8]) {
    let sequence = bits.reverse_bits() & ((1 << mode.weight_bits) - 1);
    let Some(groups) = WeightGroups::of(mode.weights) else {
        return read_ise(sequence, 0, mode.weights, &mut codes[..mode.weight_count]);
    };
    let (mut low, mut high) = (sequence as u64, (sequence >> 64) as u64);
    for start in (0..mode.weight_count).step_by(groups.weights) {
        codes[start..start + 8].copy_from_slice(&groups.codes(low).to_le_bytes());
        low = low >> groups.bits | high << (64 - groups.bits);
        high >>= groups.bits;
    }
}

pub(crate) fn unquantised(codes: &[u8], values: &[u8]) -> [u8; Infill::PADDED_WEIGHTS] {
    let mut grid = [0; Infill::PADDED_WEIGHTS];
    for (weight, &code) in grid.iter_mut().zip(codes) {
        *weight = values[usize::from(code)];
    }
    grid
}

impl Texels {
    /// Scales and writes a block of `width` columns whose left one is `first`, cut at the right
    /// edge and at `scales.len()` rows.
    fn write(
        &self,
        form: Form,
        width: usize,
        scales: &[f32],
        first: usize,
        cols: usize,
        out: &mut [f32],
    ) {
        let visible = width.min(cols - first);
        for (row, &scale) in scales.iter().enumerate() {
            let out = &mut out[row * cols + first..][..visible];
            match form {
                Form::Indices => {
                    let indices = &self.indices[row * width..][..width];
                    for (out, &index) in out.iter_mut().zip(indices) {
                        *out = scale * self.palette[usize::from(index) % PALETTE_SIZE];
                    }
                }
                Form::Values => {
                    let values = &self.values[row * width..][..width];
                    for (out, &value) in out.iter_mut().zip(values) {
                        *out = scale * value;
                    }
                }
            }
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
