//! The blocks with which an adapter is tested.
//!
//! ASTC: in each footprint every block mode, hence every weight range, weight grid and plane count,
//! with 1 to 4 partitions, random and extreme endpoints; and constant blocks. BC4: every pair of
//! endpoints, hence both orders, with all eight codes in every block; and random codes.

use crate::tables::{BlockMode, Quant, colour_values, write_ise};
use crate::{BlockGrid, Footprint, TextureCodec, bc4};

/// The blocks of one codec and footprint, in rows of [`KnownBlocks::ACROSS`].
pub(super) struct KnownBlocks {
    pub(super) grid: BlockGrid,
    pub(super) bytes: Vec<u8>,
}

impl KnownBlocks {
    const ACROSS: usize = 64;

    /// Those of every footprint that `codec` has.
    pub(super) fn all(codec: TextureCodec) -> impl Iterator<Item = Self> {
        codec.footprints().into_iter().map(move |footprint| match codec {
            TextureCodec::Astc => Self::astc(footprint),
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
        Self { grid: BlockGrid::new(rows, 256 * 4, bc4::footprint()), bytes }
    }

    fn astc(footprint: Footprint) -> Self {
        let mut noise = Noise(footprint.texels() as u64);
        let mut blocks: Vec<u128> =
            [0, 1, 0x00FF, 0x0100, 0x7FFF, 0x8000, 0xFEFF, 0xFFFE, 0xFFFF].map(constant).into();
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
                blocks.extend(luminance(bits, mode, partitions, &mut noise).into_iter().flatten());
            }
        }
        let down = blocks.len().div_ceil(Self::ACROSS);
        blocks.resize(down * Self::ACROSS, constant(0x1234));
        let (rows, cols) = (down * footprint.height(), Self::ACROSS * footprint.width());
        let bytes = blocks.into_iter().flat_map(u128::to_le_bytes).collect();
        Self { grid: BlockGrid::new(rows, cols, footprint), bytes }
    }
}

/// A void-extent block without a rectangle, all four channels alike.
fn constant(value: u16) -> u128 {
    let colour = u128::from(value) * 0x0001_0001_0001_0001;
    colour << 64 | 0xFFFF_FFFF_FFFF_FDFC
}

/// Two blocks of a mode, of random weights and seed: random endpoints, and the two extremes.
fn luminance(
    bits: u16,
    mode: BlockMode,
    partitions: usize,
    noise: &mut Noise,
) -> Option<[u128; 2]> {
    let start = if partitions == 1 { 17 } else { 29 };
    let plane_bits = if mode.dual_plane { 2 } else { 0 };
    let room = (128 - mode.weight_bits()).checked_sub(start + plane_bits)?;
    let quant = Quant::largest_fitting(2 * partitions, room).filter(|&q| q >= Quant::COLOUR_MIN)?;
    let header = u128::from(bits) | (partitions as u128 - 1) << 11;
    // Colour endpoint mode 0 lies in bits 13..17, or 23..29 behind the seed.
    let seed = if partitions == 1 { 0 } else { u128::from(noise.next() & 0x3FF) << 13 };
    let payload = (u128::from(noise.next()) << 64 | u128::from(noise.next())) >> start << start;
    let sequence = quant.ise_bits(2 * partitions);
    let code = |value: u8| colour_values(quant).iter().position(|&v| v == value).map(|c| c as u8);
    let (low, high) = (code(0)?, code(255)?);
    let extremes: Vec<u8> = [low, high].into_iter().cycle().take(2 * partitions).collect();
    let hole = !(((1_u128 << sequence) - 1) << start);
    let extreme = payload & hole | write_ise(quant, &extremes) << start;
    Some([payload, extreme].map(|payload| header | seed | payload))
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
