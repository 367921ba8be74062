//! One block: its eight texel values, and its 8 bytes.
//!
//! Bytes 0 and 1 are the endpoints e0 and e1; the other six hold sixteen 3-bit codes in raster
//! order, little-endian, the first in the lowest bits (KDF 1.3 section 19.1). With e0 > e1 the
//! codes 0, 2, 3, .. 7, 1 run from e0 to e1 in seven steps. Otherwise 0, 2, 3, 4, 5, 1 run from e0
//! to e1 in five, code 6 is 0 and code 7 is 1.

use super::DecodeMode;

/// Texels of a block.
pub const BLOCK_TEXELS: usize = 16;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 8;

/// A palette entry: steps from e0 to e1, or one of the two fixed ends.
#[derive(Debug, Clone, Copy)]
enum Entry {
    /// e0·(steps - k) + e1·k over steps.
    Between {
        steps: u16,
        k: u16,
    },
    Zero,
    One,
}

/// What a code means where e0 > e1 (`seven`) or not.
fn entry(seven: bool, code: u8) -> Entry {
    let steps = if seven { 7 } else { 5 };
    match code {
        0 => Entry::Between { steps, k: 0 },
        1 => Entry::Between { steps, k: steps },
        6 if !seven => Entry::Zero,
        7 if !seven => Entry::One,
        code => Entry::Between { steps, k: u16::from(code) - 1 },
    }
}

/// Texel values of the eight codes for endpoints `e0` and `e1`, in 0..=1.
#[must_use]
pub fn palette(mode: DecodeMode, e0: u8, e1: u8) -> [f32; 8] {
    std::array::from_fn(|code| match entry(e0 > e1, code as u8) {
        Entry::Zero => 0.0,
        Entry::One => 1.0,
        Entry::Between { steps, k } => {
            let sum = u16::from(e0) * (steps - k) + u16::from(e1) * k;
            match mode {
                DecodeMode::Exact => f32::from(sum) / f32::from(255 * steps),
                DecodeMode::Unorm8 => f32::from(sum / steps) / 255.0,
            }
        }
    })
}

/// Texels of a block in raster order, in 0..=1. Every block is legal.
#[must_use]
pub fn decode_block(block: [u8; BLOCK_BYTES], mode: DecodeMode) -> [f32; BLOCK_TEXELS] {
    let palette = palette(mode, block[0], block[1]);
    codes(block).map(|code| palette[usize::from(code)])
}

/// The 3-bit codes of a block in raster order.
pub(super) fn codes(block: [u8; BLOCK_BYTES]) -> [u8; BLOCK_TEXELS] {
    let bits = u64::from_le_bytes(block) >> 16;
    std::array::from_fn(|texel| (bits >> (3 * texel)) as u8 & 7)
}

/// The block of two endpoints and sixteen codes.
pub(super) fn pack(e0: u8, e1: u8, codes: &[u8; BLOCK_TEXELS]) -> [u8; BLOCK_BYTES] {
    let ends = u64::from(e0) | u64::from(e1) << 8;
    let bits =
        codes.iter().rev().fold(0_u64, |bits, &code| bits << 3 | u64::from(code)) << 16 | ends;
    bits.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_palettes_by_hand() {
        // 7 steps down from 240 to 30: thirty a step.
        let exact = palette(DecodeMode::Exact, 240, 30);
        let want = [240, 30, 210, 180, 150, 120, 90, 60].map(|v: u8| f32::from(v) / 255.0);
        for (found, want) in exact.iter().zip(want) {
            assert!((found - want).abs() < 1e-7);
        }
        // 5 steps from 10 to 13: 0.6 a step, cut by integer readers.
        let exact = palette(DecodeMode::Exact, 10, 13);
        assert_eq!(exact[2], 53.0 / 1275.0);
        assert_eq!(exact[5], 62.0 / 1275.0);
        let cut = palette(DecodeMode::Unorm8, 10, 13).map(|t| (t * 255.0) as u8);
        assert_eq!(cut, [10, 13, 10, 11, 11, 12, 0, 255]);
        // Equal ends count as the second mode.
        assert_eq!(palette(DecodeMode::Exact, 9, 9)[6..], [0.0, 1.0]);
    }

    #[test]
    fn codes_are_little_endian_in_raster_order() {
        let listed = std::array::from_fn(|texel| (texel * 5 % 8) as u8);
        let block = pack(200, 3, &listed);
        assert_eq!(block[..2], [200, 3]);
        // Codes 0, 5, 2 (low two bits): 0 | 5 << 3 | 2 << 6.
        assert_eq!(block[2], 0b1010_1000);
        assert_eq!(codes(block), listed);
        let texels = decode_block(block, DecodeMode::Exact);
        assert_eq!(texels[0], 200.0 / 255.0);
        assert_eq!(texels[13], 3.0 / 255.0);
    }
}
