//! The 11-bit block mode of a 2D block (KDF 1.3 section 23.11).

use super::Quant;
use crate::Footprint;

/// Weight grid, weight range and plane count of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockMode {
    /// Weights across, 2..=12.
    pub grid_width: u8,
    /// Weights down, 2..=12.
    pub grid_height: u8,
    /// Range of the stored weights, at most 32 levels.
    pub weights: Quant,
    /// Two weights at each grid point, one for a separate channel.
    pub dual_plane: bool,
}

/// Most weights that a block may store, both planes together.
const MAX_WEIGHTS: usize = 64;
/// Fewest and most bits that the weights of a block may take.
const WEIGHT_BITS: std::ops::RangeInclusive<usize> = 24..=96;

impl BlockMode {
    /// Reads bits 10..=0 of a block; higher bits of `bits` are ignored.
    ///
    /// `None` for void-extent and reserved modes, and where the weights are more than 64 or take
    /// fewer than 24 or more than 96 bits. Whether the grid fits a footprint is
    /// [`fits`](Self::fits).
    pub fn decode(bits: u16) -> Option<Self> {
        let field = |position: u32, width: u32| (bits >> position) & ((1 << width) - 1);
        let (a, b) = (field(5, 2), field(7, 2));
        let (mut high_precision, mut dual_plane) = (field(9, 1) == 1, field(10, 1) == 1);
        let range_high;
        let (width, height);
        if field(0, 2) != 0 {
            range_high = field(0, 2);
            (width, height) = match field(2, 2) {
                0 => (b + 4, a + 2),
                1 => (b + 8, a + 2),
                2 => (a + 2, b + 8),
                _ if b & 2 == 0 => (a + 2, b + 6),
                _ => ((b & 1) + 2, a + 2),
            };
        } else {
            range_high = field(2, 2);
            (width, height) = match b {
                0 => (12, a + 2),
                1 => (a + 2, 12),
                2 => {
                    // The size bits take the place of the plane and precision bits here.
                    high_precision = false;
                    dual_plane = false;
                    (a + 6, field(9, 2) + 6)
                }
                _ if a == 0 => (6, 10),
                _ if a == 1 => (10, 6),
                _ => return None,
            };
        }
        let range = (range_high << 1) | field(4, 1);
        if range < 2 {
            return None;
        }
        let weights =
            Quant::from_index(usize::from(range - 2) + if high_precision { 6 } else { 0 });
        let mode = Self { grid_width: width as u8, grid_height: height as u8, weights, dual_plane };
        (mode.weight_count() <= MAX_WEIGHTS && WEIGHT_BITS.contains(&mode.weight_bits()))
            .then_some(mode)
    }

    /// The smallest 11-bit pattern that means this mode, `None` if none does.
    pub fn encode(self) -> Option<u16> {
        (0..1 << 11).find(|&bits| Self::decode(bits) == Some(self))
    }

    /// Stored weights, both planes together.
    pub fn weight_count(self) -> usize {
        let grid = usize::from(self.grid_width) * usize::from(self.grid_height);
        if self.dual_plane { 2 * grid } else { grid }
    }

    /// Bits that the stored weights take at the top of the block.
    pub fn weight_bits(self) -> usize {
        self.weights.ise_bits(self.weight_count())
    }

    /// Whether the weight grid is no larger than the footprint, as a legal block needs.
    pub fn fits(self, footprint: Footprint) -> bool {
        usize::from(self.grid_width) <= footprint.width()
            && usize::from(self.grid_height) <= footprint.height()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_worked_by_hand() {
        // D=0 H=0, B=10 A=00, R0=0, 00, R2R1=11: width 2+4, height 0+2, range index 6 (6 levels).
        let mode = BlockMode::decode(0b01_0000_0011).unwrap();
        assert_eq!((mode.grid_width, mode.grid_height, mode.weights.levels()), (6, 2, 6));
        // The 6x6 grid sits in the row BB 10 AA R0 R2 R1 00; range index 6, 5, 4, one plane.
        for (bits, levels) in [(0b1_0000_1100, 6), (0b1_0001_1000, 5), (0b1_0000_1000, 4)] {
            let expected = BlockMode {
                grid_width: 6,
                grid_height: 6,
                weights: Quant::from_levels(levels).unwrap(),
                dual_plane: false,
            };
            assert_eq!(BlockMode::decode(bits), Some(expected));
            assert_eq!(expected.encode(), Some(bits));
        }
    }

    #[test]
    fn reserved_and_oversized_modes_are_refused() {
        assert_eq!(BlockMode::decode(0b01_1111_1100), None, "void extent");
        assert_eq!(BlockMode::decode(0), None, "reserved");
        assert_eq!(BlockMode::decode(0b01_1100_1000), None, "reserved sizes");
        let legal = (0..1 << 11).filter_map(BlockMode::decode).collect::<Vec<_>>();
        assert!(
            legal.iter().all(|m| m.weight_count() <= 64 && (24..=96).contains(&m.weight_bits()))
        );
        assert!(legal.iter().all(|m| m.encode().and_then(BlockMode::decode) == Some(*m)));
    }
}
