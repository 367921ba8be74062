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

/// A palette entry: an end, a level between them, or one of the two fixed levels.
#[derive(Debug, Clone, Copy)]
enum Entry {
    First,
    Second,
    /// e0·(steps - k) + e1·k over steps.
    Between {
        steps: i32,
        k: i32,
    },
    Zero,
    One,
}

/// What a code means where e0 > e1 (`seven`) or not.
fn entry(seven: bool, code: u8) -> Entry {
    let steps = if seven { 7 } else { 5 };
    match code {
        0 => Entry::First,
        1 => Entry::Second,
        6 if !seven => Entry::Zero,
        7 if !seven => Entry::One,
        code => Entry::Between { steps, k: i32::from(code) - 1 },
    }
}

/// Texel values of the eight codes for endpoints `e0` and `e1`, in 0..=1.
#[must_use]
pub fn palette(mode: DecodeMode, e0: u8, e1: u8) -> [f32; 8] {
    std::array::from_fn(|code| match entry(e0 > e1, code as u8) {
        Entry::First => f32::from(e0) / 255.0,
        Entry::Second => f32::from(e1) / 255.0,
        Entry::Zero => 0.0,
        Entry::One => 1.0,
        Entry::Between { steps, k } => {
            let (e0, e1) = (i32::from(e0), i32::from(e1));
            match mode {
                DecodeMode::Exact => (e0 * (steps - k) + e1 * k) as f32 / (255 * steps) as f32,
                _ => integer_level(mode, steps, k, e0, e1) as f32 / 255.0,
            }
        }
    })
}

/// Level `k` of `steps` from `e0` to `e1` in 1/255, as readers that store bytes return it.
///
/// For [`DecodeMode::Exact`], which is no such reader, the level cut to a whole number.
#[inline(always)]
pub(super) fn integer_level(mode: DecodeMode, steps: i32, k: i32, e0: i32, e1: i32) -> i32 {
    match mode {
        DecodeMode::Exact | DecodeMode::Unorm8 => (e0 * (steps - k) + e1 * k) / steps,
        DecodeMode::Llvmpipe => {
            let share = (255 * 64 / steps * k) >> 6;
            e0 + (((e1 - e0) * share) >> 8)
        }
    }
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

    /// Endpoints, and the bytes of the eight codes.
    const LAVAPIPE: [(u8, u8, [u8; 8]); 6] = [
        (240, 30, [240, 30, 210, 180, 150, 121, 90, 61]),
        (255, 0, [255, 0, 219, 183, 146, 110, 73, 37]),
        (201, 77, [201, 77, 183, 166, 148, 130, 112, 95]),
        (10, 13, [10, 13, 10, 11, 11, 12, 0, 255]),
        (0, 255, [0, 255, 50, 101, 152, 203, 0, 255]),
        (33, 33, [33, 33, 33, 33, 33, 33, 0, 255]),
    ];

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
    fn llvmpipe_levels_are_those_that_it_returned() {
        // Sampled through lavapipe of Mesa 22.3.6 and LLVM 15; all 65536 pairs agreed.
        for (e0, e1, want) in LAVAPIPE {
            let found = palette(DecodeMode::Llvmpipe, e0, e1).map(|t| (t * 255.0).round() as u8);
            assert_eq!(found, want);
        }
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
