//! Block configurations: how the 128 bits are divided, and which of them a footprint tries.
//!
//! One channel (endpoint mode 0, LDR luminance), one plane, one weight a texel. A block with one
//! partition has 17 header bits, with two to four 29 (mode 11, partition count 2, seed 10,
//! endpoint mode 6); weights take their sequence from the top, endpoints get the largest range
//! that fits in between (KDF 1.3 section 23.9).

use super::pack::Sequence;
use crate::tables::{BlockMode, Quant, colour_values, weight_values};
use crate::{DecodeMode, Footprint};

/// A configuration with its value tables, ascending.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) partitions: usize,
    /// The 11-bit block mode.
    pub(crate) mode: u16,
    /// Interpolation weights 0..=64, ascending.
    pub(crate) steps: Vec<u8>,
    /// Index into `steps` of each interpolation weight that occurs there.
    pub(crate) step_numbers: [u8; 65],
    /// Writer of indices into `steps`.
    pub(crate) step_sequence: Sequence,
    /// Endpoint values 0..=255, ascending.
    pub(crate) endpoints: Vec<u8>,
    /// Writer of indices into `endpoints`.
    pub(crate) end_sequence: Sequence,
}

impl Config {
    /// The configuration of `partitions` (1..=4) partitions and `levels` weight levels whose
    /// endpoints take the largest range left; `None` where the standard has no such block.
    pub(crate) fn new(footprint: Footprint, partitions: usize, levels: u32) -> Option<Self> {
        let (width, height) = (footprint.width() as u8, footprint.height() as u8);
        Self::with_grid(width, height, partitions, levels)
    }

    /// The same with a weight grid of its own size.
    pub(crate) fn with_grid(
        grid_width: u8,
        grid_height: u8,
        partitions: usize,
        levels: u32,
    ) -> Option<Self> {
        let weight_quant = Quant::from_levels(levels)?;
        let mode = BlockMode { grid_width, grid_height, weights: weight_quant, dual_plane: false };
        let code = mode.encode()?;
        let header = if partitions == 1 { 17 } else { 29 };
        let bits = (128_usize - header).checked_sub(mode.weight_bits())?;
        let endpoint_quant = Quant::largest_fitting(2 * partitions, bits)?;
        if endpoint_quant < Quant::COLOUR_MIN {
            return None;
        }
        let (steps, step_codes) = ascending(weight_values(weight_quant));
        let (endpoints, endpoint_codes) = ascending(colour_values(endpoint_quant));
        let mut step_numbers = [0; 65];
        for (number, &step) in (0..).zip(&steps) {
            step_numbers[usize::from(step)] = number;
        }
        Some(Self {
            partitions,
            mode: code,
            steps,
            step_numbers,
            step_sequence: Sequence::new(weight_quant, &step_codes),
            endpoints,
            end_sequence: Sequence::new(endpoint_quant, &endpoint_codes),
        })
    }
}

/// Values in ascending order, with the index that each had.
fn ascending(values: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut order: Vec<u8> = (0..=u8::MAX).take(values.len()).collect();
    order.sort_by_key(|&code| values[usize::from(code)]);
    (order.iter().map(|&code| values[usize::from(code)]).collect(), order)
}

/// The texel that endpoints `low` and `high` and interpolation weight `step` decode to
/// (KDF 1.3 section 23.19).
#[inline(always)]
pub(super) fn decoded_texel(mode: DecodeMode, low: u8, high: u8, step: u8) -> f32 {
    let (low, high, step) = (u32::from(low) * 257, u32::from(high) * 257, u32::from(step));
    let value = (low * (64 - step) + high * step + 32) >> 6;
    match mode {
        DecodeMode::Unorm8 => (value >> 8) as f32 / 255.0,
        DecodeMode::Fp16 if value == 0xFFFF => 1.0,
        DecodeMode::Fp16 => {
            // Eleven significant bits; a 16-bit fraction stays above the subnormal spacing.
            let dropped = (32 - value.leading_zeros()).saturating_sub(11);
            ((value >> dropped) << dropped) as f32 / 65536.0
        }
    }
}

/// [`decoded_texel`] in texel steps, times 255.
#[inline(always)]
pub(super) fn decoded_level(mode: DecodeMode, low: u8, high: u8, step: u8) -> f32 {
    decoded_texel(mode, low, high, step) * 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_by_six_budget() {
        let six = Footprint::new(6, 6).unwrap();
        // (partitions, weight levels, endpoint levels): 36 weights of 5 levels take 84 bits,
        // 128 - 29 - 84 = 15 bits hold 4 endpoints of 12 levels (8 + 7 bits), and so on.
        for (partitions, levels, endpoints) in
            [(1, 6, 256), (2, 5, 12), (2, 4, 96), (3, 4, 20), (4, 4, 10), (4, 3, 32)]
        {
            let config = Config::new(six, partitions, levels).unwrap();
            assert_eq!(config.endpoints.len(), endpoints);
        }
        assert!(Config::new(six, 3, 5).is_none(), "five endpoint levels are below the minimum");
        assert!(Config::new(six, 1, 8).is_none(), "108 weight bits");
    }

    #[test]
    fn decoded_levels_worked_by_hand() {
        // 0xFFFF is exactly one in both modes; (0·32 + 65535·32 + 32) >> 6 = 32768.
        assert_eq!(decoded_level(DecodeMode::Unorm8, 0, 255, 64), 255.0);
        assert_eq!(decoded_level(DecodeMode::Fp16, 0, 255, 64), 255.0);
        assert_eq!(decoded_level(DecodeMode::Unorm8, 0, 255, 32), 128.0);
        assert_eq!(decoded_level(DecodeMode::Fp16, 0, 255, 32), 127.5);
    }
}
