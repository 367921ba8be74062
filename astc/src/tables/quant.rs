//! The 21 quantisation ranges (KDF 1.3 table 23.9 and section 23.12).

/// A range 0..levels of stored integers: `levels` is 2^bits, 3·2^bits or 5·2^bits.
///
/// Ordered by level count. Weights use up to 32 levels, colour endpoints 6 and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Quant(u8);

const LEVELS: [u16; Quant::COUNT] =
    [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256];

impl Quant {
    /// How many ranges there are.
    pub const COUNT: usize = 21;
    /// How many of them, counted from the smallest, a weight may use (2 to 32 levels).
    pub const WEIGHT_COUNT: usize = 12;
    /// The smallest range that colour endpoints may use, 6 levels.
    pub const COLOUR_MIN: Self = Self(4);

    /// The range with index 0..21 in order of levels.
    ///
    /// # Panics
    /// If `index` is 21 or more.
    pub const fn from_index(index: usize) -> Self {
        assert!(index < Self::COUNT);
        Self(index as u8)
    }

    /// The range of exactly `levels` values.
    pub const fn from_levels(levels: u32) -> Option<Self> {
        let mut index = 0;
        while index < Self::COUNT {
            if LEVELS[index] as u32 == levels {
                return Some(Self(index as u8));
            }
            index += 1;
        }
        None
    }

    /// The largest range in which `count` integers fit into `bits` bits.
    pub const fn largest_fitting(count: usize, bits: usize) -> Option<Self> {
        let mut index = Self::COUNT;
        while index > 0 {
            index -= 1;
            if Self(index as u8).ise_bits(count) <= bits {
                return Some(Self(index as u8));
            }
        }
        None
    }

    /// Index 0..21 in order of levels.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Number of values, 2..=256.
    pub const fn levels(self) -> u32 {
        LEVELS[self.0 as usize] as u32
    }

    /// Plain bits of each integer, 0..=8: its low part, below the trit or quint.
    pub const fn bits(self) -> u32 {
        self.levels().trailing_zeros()
    }

    /// Whether each integer has a trit above its plain bits.
    pub const fn has_trit(self) -> bool {
        self.levels() >> self.bits() == 3
    }

    /// Whether each integer has a quint above its plain bits.
    pub const fn has_quint(self) -> bool {
        self.levels() >> self.bits() == 5
    }

    /// Bits that a sequence of `count` integers takes (KDF 1.3 section 23.22):
    /// count·bits, plus ceil(8·count/5) for trits or ceil(7·count/3) for quints.
    pub const fn ise_bits(self, count: usize) -> usize {
        let plain = count * self.bits() as usize;
        if self.has_trit() {
            plain + (8 * count).div_ceil(5)
        } else if self.has_quint() {
            plain + (7 * count).div_ceil(3)
        } else {
            plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_split_into_bits_and_digit() {
        for index in 0..Quant::COUNT {
            let quant = Quant::from_index(index);
            let digit = if quant.has_trit() {
                3
            } else if quant.has_quint() {
                5
            } else {
                1
            };
            assert_eq!(quant.levels(), digit << quant.bits());
            assert_eq!(Quant::from_levels(quant.levels()), Some(quant));
        }
        assert_eq!(Quant::from_levels(7), None);
    }

    #[test]
    fn sequence_sizes_of_known_blocks() {
        let quant = |levels| Quant::from_levels(levels).unwrap();
        // design.md section 4: 36 weights of 6 levels leave 111 - 94 = 17 bits for two endpoints.
        assert_eq!(quant(6).ise_bits(36), 36 + 58);
        assert_eq!(quant(5).ise_bits(36), 84);
        assert_eq!(quant(4).ise_bits(36), 72);
        assert_eq!(quant(256).ise_bits(2), 16);
        assert_eq!(quant(12).ise_bits(4), 8 + 7);
        assert_eq!(Quant::largest_fitting(4, 99 - 84), Some(quant(12)));
        assert_eq!(Quant::largest_fitting(4, 99 - 72), Some(quant(96)));
        assert_eq!(Quant::largest_fitting(6, 99 - 72), Some(quant(20)));
        assert_eq!(Quant::largest_fitting(3, 2), None);
    }
}
