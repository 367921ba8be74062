//! Unquantisation of colour endpoints (KDF 1.3 section 23.13) and weights (section 23.17).
//!
//! A stored integer with a trit or quint D above the bits ..dcba unquantises as
//! T = D·C + B, each bit of T inverted where a = 1, two bits dropped, a put on top.
//! B repeats the bits b.. in a range-specific pattern; C is a range-specific factor.

use super::Quant;

/// Endpoint values 0..=255 of the stored integers of a range, indexed by the integer.
///
/// The order is not monotonic in ranges with trits or quints.
pub fn colour_values(quant: Quant) -> &'static [u8] {
    &COLOUR[quant.index()][..quant.levels() as usize]
}

/// Interpolation weights 0..=64 of the stored integers of a range of 2 to 32 levels, indexed by
/// the integer.
///
/// The order is not monotonic in ranges with trits or quints.
///
/// # Panics
/// If the range has more than 32 levels, which no weight uses.
pub fn weight_values(quant: Quant) -> &'static [u8] {
    &WEIGHT[quant.index()][..quant.levels() as usize]
}

static COLOUR: [[u8; 256]; Quant::COUNT] = {
    let mut table = [[0; 256]; Quant::COUNT];
    let mut index = 0;
    while index < Quant::COUNT {
        let quant = Quant::from_index(index);
        let mut value = 0;
        while value < quant.levels() {
            table[index][value as usize] = unquantise_colour(quant, value);
            value += 1;
        }
        index += 1;
    }
    table
};

static WEIGHT: [[u8; 32]; Quant::WEIGHT_COUNT] = {
    let mut table = [[0; 32]; Quant::WEIGHT_COUNT];
    let mut index = 0;
    while index < Quant::WEIGHT_COUNT {
        let quant = Quant::from_index(index);
        let mut value = 0;
        while value < quant.levels() {
            table[index][value as usize] = unquantise_weight(quant, value);
            value += 1;
        }
        index += 1;
    }
    table
};

const fn unquantise_colour(quant: Quant, value: u32) -> u8 {
    let bits = quant.bits();
    if !quant.has_trit() && !quant.has_quint() {
        return replicate(value, bits, 8) as u8;
    }
    // x holds the bits above a, so that the patterns of the specification's table read as shifts.
    let x = (value & ((1 << bits) - 1)) >> 1;
    let digit = value >> bits;
    let (pattern, factor) = match (quant.has_trit(), bits) {
        (true, 1) => (0, 204),
        (true, 2) => ((x << 8) | (x << 4) | (x << 2) | (x << 1), 93),
        (true, 3) => ((x << 7) | (x << 2) | x, 44),
        (true, 4) => ((x << 6) | x, 22),
        (true, 5) => ((x << 5) | (x >> 2), 11),
        (true, 6) => ((x << 4) | (x >> 4), 5),
        (false, 1) => (0, 113),
        (false, 2) => ((x << 8) | (x << 3) | (x << 2), 54),
        (false, 3) => ((x << 7) | (x << 1) | (x >> 1), 26),
        (false, 4) => ((x << 6) | (x >> 1), 13),
        (false, 5) => ((x << 5) | (x >> 3), 6),
        // Ranges without plain bits are below COLOUR_MIN and never hold endpoints.
        _ => return 0,
    };
    let inverted = if value & 1 == 1 { 0x1FF } else { 0 };
    let t = (digit * factor + pattern) ^ inverted;
    ((inverted & 0x80) | (t >> 2)) as u8
}

const fn unquantise_weight(quant: Quant, value: u32) -> u8 {
    let bits = quant.bits();
    let t = if !quant.has_trit() && !quant.has_quint() {
        replicate(value, bits, 6)
    } else if bits == 0 {
        if quant.has_trit() {
            [0, 32, 63][value as usize]
        } else {
            [0, 16, 32, 47, 63][value as usize]
        }
    } else {
        let x = (value & ((1 << bits) - 1)) >> 1;
        let digit = value >> bits;
        let (pattern, factor) = match (quant.has_trit(), bits) {
            (true, 1) => (0, 50),
            (true, 2) => ((x << 6) | (x << 2) | x, 23),
            (true, _) => ((x << 5) | x, 11),
            (false, 1) => (0, 28),
            (false, _) => ((x << 6) | (x << 1), 13),
        };
        let inverted = if value & 1 == 1 { 0x7F } else { 0 };
        let t = (digit * factor + pattern) ^ inverted;
        (inverted & 0x20) | (t >> 2)
    };
    // 0..=63 becomes 0..=64, so that the top weight reaches the second endpoint exactly.
    (if t > 32 { t + 1 } else { t }) as u8
}

/// Repeats the `bits` bits of `value` from the top of a `width`-bit integer downwards.
const fn replicate(value: u32, bits: u32, width: u32) -> u32 {
    let mut repeated = 0;
    let mut filled = 0;
    while filled < width {
        repeated = (repeated << bits) | value;
        filled += bits;
    }
    repeated >> (filled - width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(values: &[u8]) -> Vec<u8> {
        let mut values = values.to_vec();
        values.sort_unstable();
        values
    }

    fn quant(levels: u32) -> Quant {
        Quant::from_levels(levels).unwrap()
    }

    #[test]
    fn weight_grids_of_the_specification() {
        assert_eq!(weight_values(quant(2)), [0, 64]);
        assert_eq!(weight_values(quant(3)), [0, 32, 64]);
        assert_eq!(weight_values(quant(4)), [0, 21, 43, 64]);
        assert_eq!(weight_values(quant(5)), [0, 16, 32, 48, 64]);
        assert_eq!(weight_values(quant(6)), [0, 64, 12, 52, 25, 39]);
        assert_eq!(weight_values(quant(8)), [0, 9, 18, 27, 37, 46, 55, 64]);
        assert_eq!(sorted(weight_values(quant(10))), [0, 7, 14, 21, 28, 36, 43, 50, 57, 64]);
        assert_eq!(
            sorted(weight_values(quant(12))),
            [0, 5, 11, 17, 23, 28, 36, 41, 47, 53, 59, 64]
        );
    }

    #[test]
    fn colour_grids_of_the_specification() {
        assert_eq!(colour_values(quant(6)), [0, 255, 51, 204, 102, 153]);
        assert_eq!(colour_values(quant(8)), [0, 36, 73, 109, 146, 182, 219, 255]);
        assert_eq!(
            sorted(colour_values(quant(12))),
            [0, 23, 46, 69, 92, 116, 139, 163, 186, 209, 232, 255]
        );
        assert!(colour_values(quant(256)).iter().enumerate().all(|(i, &v)| i == v.into()));
    }

    #[test]
    fn grids_are_distinct_symmetric_and_full() {
        for index in 0..Quant::COUNT {
            let quant = Quant::from_index(index);
            let mut grids = Vec::new();
            if quant >= Quant::COLOUR_MIN {
                grids.push((sorted(colour_values(quant)), 255));
            }
            if index < Quant::WEIGHT_COUNT {
                grids.push((sorted(weight_values(quant)), 64));
            }
            for (grid, top) in grids {
                assert_eq!((grid[0], *grid.last().unwrap()), (0, top), "{quant:?}");
                assert!(grid.windows(2).all(|w| w[0] < w[1]), "{quant:?}");
                let mirrored: Vec<u8> = grid.iter().rev().map(|v| top - v).collect();
                assert_eq!(grid, mirrored, "{quant:?}");
            }
        }
    }
}
