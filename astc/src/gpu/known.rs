//! The blocks with which an adapter is tested.
//!
//! ASTC: in each footprint every block mode, hence every weight range, weight grid and plane count,
//! with 1 to 4 partitions, random and extreme endpoints; and constant blocks. HDR: the same with both
//! luminance endpoint modes. BC4: every pair of endpoints, hence both orders, with all eight codes in
//! every block; and random codes.

use half::f16;

use crate::tables::{BlockMode, Quant, colour_values, write_ise};
use crate::{BlockGrid, Error, Footprint, TexelMode, TextureCodec, bc4};

/// Endpoint mode of LDR luminance.
const LDR: &[u8] = &[0];
/// Endpoint modes of HDR luminance: large and small range.
const HDR: &[u8] = &[2, 3];

/// The blocks of one codec and footprint, in rows of [`KnownBlocks::ACROSS`].
pub(super) struct KnownBlocks {
    codec: TextureCodec,
    pub(super) grid: BlockGrid,
    pub(super) bytes: Vec<u8>,
}

impl KnownBlocks {
    const ACROSS: usize = 64;

    /// Those of every footprint that `codec` has.
    pub(super) fn all(codec: TextureCodec) -> impl Iterator<Item = Self> {
        codec.footprints().into_iter().map(move |footprint| match codec {
            TextureCodec::Astc => {
                let constants = [0, 1, 0x00FF, 0x0100, 0x7FFF, 0x8000, 0xFEFF, 0xFFFE, 0xFFFF];
                Self::astc(codec, footprint, LDR, constants.map(constant))
            }
            TextureCodec::AstcHdr => {
                // 0, the smallest normal number, 1 and the largest; as fp16, which bit 9 says.
                let constants = [0, 0x0400, 0x3C00, 0x7BFF].map(|half| constant(half) | 1 << 9);
                Self::astc(codec, footprint, HDR, constants)
            }
            TextureCodec::Bc4 => Self::bc4(),
        })
    }

    /// Blocks of BC4; rows of 256, one for each first endpoint, then eight of noise.
    fn bc4() -> Self {
        let mut noise = Noise(4);
        let mut bytes = Vec::with_capacity(264 * 256 * bc4::BLOCK_BYTES);
        for (e0, e1) in (0..=255_u64).flat_map(|e0| (0..=255).map(move |e1| (e0, e1))) {
            // 5 is odd: the sixteen texels take each code twice, every texel each in turn.
            let code = |texel: u64| (5 * texel + e0 + 3 * e1) & 7;
            let codes = (0..16).fold(0, |codes, texel| codes | code(texel) << (3 * texel));
            bytes.extend((codes << 16 | e1 << 8 | e0).to_le_bytes());
        }
        bytes.extend((0..8 * 256).flat_map(|_| noise.next().to_le_bytes()));
        let rows = bytes.len() / bc4::BLOCK_BYTES / 256 * 4;
        let grid = BlockGrid::new(rows, 256 * 4, bc4::footprint());
        Self { codec: TextureCodec::Bc4, grid, bytes }
    }

    /// Blocks of these luminance endpoint modes, and constant ones.
    fn astc<const N: usize>(
        codec: TextureCodec,
        footprint: Footprint,
        formats: &[u8],
        constants: [u128; N],
    ) -> Self {
        let mut noise = Noise(footprint.texels() as u64);
        let mut blocks = constants.to_vec();
        let mut seen = Vec::new();
        for bits in 0..1 << 11 {
            let Some(mode) = BlockMode::decode(bits).filter(|mode| mode.fits(footprint)) else {
                continue;
            };
            if seen.contains(&mode) {
                continue;
            }
            seen.push(mode);
            for partitions in 1..=if mode.dual_plane { 3 } else { 4 } {
                for &format in formats {
                    let pair = luminance(bits, mode, (partitions, format), &mut noise);
                    blocks.extend(pair.into_iter().flatten());
                }
            }
        }
        let down = blocks.len().div_ceil(Self::ACROSS);
        blocks.resize(down * Self::ACROSS, blocks[0]);
        let (rows, cols) = (down * footprint.height(), Self::ACROSS * footprint.width());
        let bytes = blocks.into_iter().flat_map(u128::to_le_bytes).collect();
        Self { codec, grid: BlockGrid::new(rows, cols, footprint), bytes }
    }

    /// What stands beside the blocks: scales of 1 or offsets of 0.
    pub(super) fn side(&self) -> Vec<f16> {
        let neutral = if self.codec == TextureCodec::AstcHdr { f16::ZERO } else { f16::ONE };
        vec![neutral; self.codec.side_count(&self.grid)]
    }

    /// The weights that the CPU reference makes of the blocks in `mode`.
    pub(super) fn weights(&self, mode: TexelMode) -> Result<Vec<f32>, Error> {
        let mut weights = vec![0.0; self.grid.rows * self.grid.cols];
        mode.decode_rows(&self.grid, &self.bytes, &self.side(), &mut weights)?;
        Ok(weights)
    }

    /// The texels t that the CPU reference makes of the blocks in `mode`.
    pub(super) fn texels(&self, mode: TexelMode) -> Result<Vec<f32>, Error> {
        let mut texels = self.weights(mode)?;
        if self.codec != TextureCodec::AstcHdr {
            // With scale 1 a weight is 2t - 1.
            texels.iter_mut().for_each(|w| *w = w.midpoint(1.0));
        }
        Ok(texels)
    }
}

/// A void-extent block without a rectangle, all four channels alike.
fn constant(value: u16) -> u128 {
    let colour = u128::from(value) * 0x0001_0001_0001_0001;
    colour << 64 | 0xFFFF_FFFF_FFFF_FDFC
}

/// Two blocks of a mode, of random weights and seed, all partitions with the endpoint mode `format`:
/// random endpoints, and the two extremes.
fn luminance(
    bits: u16,
    mode: BlockMode,
    (partitions, format): (usize, u8),
    noise: &mut Noise,
) -> Option<[u128; 2]> {
    let start = if partitions == 1 { 17 } else { 29 };
    let plane_bits = if mode.dual_plane { 2 } else { 0 };
    let room = (128 - mode.weight_bits()).checked_sub(start + plane_bits)?;
    let quant = Quant::largest_fitting(2 * partitions, room).filter(|&q| q >= Quant::COLOUR_MIN)?;
    let header = u128::from(bits) | (partitions as u128 - 1) << 11;
    // The endpoint mode lies in bits 13..17, or in 25..29 behind the seed and two zero bits.
    let seed = if partitions == 1 { 0 } else { u128::from(noise.next() & 0x3FF) << 13 };
    let format = u128::from(format) << if partitions == 1 { 13 } else { 25 };
    let payload = (u128::from(noise.next()) << 64 | u128::from(noise.next())) >> start << start;
    let sequence = quant.ise_bits(2 * partitions);
    let code = |value: u8| colour_values(quant).iter().position(|&v| v == value).map(|c| c as u8);
    let (low, high) = (code(0)?, code(255)?);
    let extremes: Vec<u8> = [low, high].into_iter().cycle().take(2 * partitions).collect();
    let hole = !(((1_u128 << sequence) - 1) << start);
    let extreme = payload & hole | write_ise(quant, &extremes) << start;
    Some([payload, extreme].map(|payload| header | seed | format | payload))
}

/// A fixed sequence of well-mixed integers (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
