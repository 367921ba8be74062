//! Bounded integer sequence encoding (KDF 1.3 section 23.12).
//!
//! Five trits share 8 bits and three quints share 7; those bits lie between the plain bits of
//! the values they belong to. A last, partial group stores only the bits up to its last value;
//! the missing ones read as zero.

use super::Quant;

/// The five trits of every 8-bit trit block, first value first.
pub static TRIT_BLOCKS: [[u8; 5]; 256] = {
    let mut table = [[0; 5]; 256];
    let mut block = 0;
    while block < 256 {
        table[block] = unpack_trits(block as u32);
        block += 1;
    }
    table
};

/// The three quints of every 7-bit quint block, first value first.
pub static QUINT_BLOCKS: [[u8; 3]; 128] = {
    let mut table = [[0; 3]; 128];
    let mut block = 0;
    while block < 128 {
        table[block] = unpack_quints(block as u32);
        block += 1;
    }
    table
};

/// Trit block of five trits, indexed by t0 + 3·t1 + 9·t2 + 27·t3 + 81·t4.
///
/// Where several blocks mean the same trits, the smallest is listed. It has zeros in every bit
/// that a partial group drops, so long as the dropped trits are 0 (tested).
static PACKED_TRITS: [u8; 243] = {
    let mut table = [0; 243];
    let mut block = 256;
    while block > 0 {
        block -= 1;
        let t = unpack_trits(block as u32);
        let index = t[0] as usize
            + 3 * t[1] as usize
            + 9 * t[2] as usize
            + 27 * t[3] as usize
            + 81 * t[4] as usize;
        table[index] = block as u8;
    }
    table
};

/// Quint block of three quints, indexed by q0 + 5·q1 + 25·q2; smallest block as for trits.
static PACKED_QUINTS: [u8; 125] = {
    let mut table = [0; 125];
    let mut block = 128;
    while block > 0 {
        block -= 1;
        let q = unpack_quints(block as u32);
        table[q[0] as usize + 5 * q[1] as usize + 25 * q[2] as usize] = block as u8;
    }
    table
};

const fn bit(value: u32, position: u32) -> u32 {
    (value >> position) & 1
}

const fn field(value: u32, position: u32, width: u32) -> u32 {
    (value >> position) & ((1 << width) - 1)
}

const fn unpack_trits(block: u32) -> [u8; 5] {
    let (c, t3, t4);
    if field(block, 2, 3) == 0b111 {
        c = (field(block, 5, 3) << 2) | field(block, 0, 2);
        t4 = 2;
        t3 = 2;
    } else {
        c = field(block, 0, 5);
        if field(block, 5, 2) == 0b11 {
            t4 = 2;
            t3 = bit(block, 7);
        } else {
            t4 = bit(block, 7);
            t3 = field(block, 5, 2);
        }
    }
    let (t0, t1, t2);
    if field(c, 0, 2) == 0b11 {
        t2 = 2;
        t1 = bit(c, 4);
        t0 = (bit(c, 3) << 1) | (bit(c, 2) & !bit(c, 3));
    } else if field(c, 2, 2) == 0b11 {
        t2 = 2;
        t1 = 2;
        t0 = field(c, 0, 2);
    } else {
        t2 = bit(c, 4);
        t1 = field(c, 2, 2);
        t0 = (bit(c, 1) << 1) | (bit(c, 0) & !bit(c, 1));
    }
    [t0 as u8, t1 as u8, t2 as u8, t3 as u8, t4 as u8]
}

const fn unpack_quints(block: u32) -> [u8; 3] {
    if field(block, 1, 2) == 0b11 && field(block, 5, 2) == 0 {
        let low = bit(block, 0);
        let q2 = (low << 2) | ((bit(block, 4) & !low) << 1) | (bit(block, 3) & !low);
        return [4, 4, q2 as u8];
    }
    let (c, q2);
    if field(block, 1, 2) == 0b11 {
        q2 = 4;
        c = (field(block, 3, 2) << 3) | ((field(block, 5, 2) ^ 0b11) << 1) | bit(block, 0);
    } else {
        q2 = field(block, 5, 2);
        c = field(block, 0, 5);
    }
    let (q0, q1) = if field(c, 0, 3) == 0b101 {
        (field(c, 3, 2), 4)
    } else {
        (field(c, 0, 3), field(c, 3, 2))
    };
    [q0 as u8, q1 as u8, q2 as u8]
}

/// The 8-bit block that holds five trits (each 0..=2), first value first.
///
/// # Panics
/// If a trit is above 2.
pub const fn pack_trits(t: [u8; 5]) -> u8 {
    assert!(t[0] < 3 && t[1] < 3 && t[2] < 3 && t[3] < 3 && t[4] < 3);
    PACKED_TRITS[t[0] as usize
        + 3 * t[1] as usize
        + 9 * t[2] as usize
        + 27 * t[3] as usize
        + 81 * t[4] as usize]
}

/// The 7-bit block that holds three quints (each 0..=4), first value first.
///
/// # Panics
/// If a quint is above 4.
pub const fn pack_quints(q: [u8; 3]) -> u8 {
    assert!(q[0] < 5 && q[1] < 5 && q[2] < 5);
    PACKED_QUINTS[q[0] as usize + 5 * q[1] as usize + 25 * q[2] as usize]
}

/// Bits of the shared block stored after each value of a group of trits, then of quints.
const TRIT_SPLIT: [u32; 5] = [2, 2, 1, 2, 1];
const QUINT_SPLIT: [u32; 3] = [3, 2, 2];

/// Reads `out.len()` integers of range `quant` from bit `offset` of `bits` upwards.
///
/// Weights: pass `block.reverse_bits()` and offset 0. Bits past 127 read as zero.
pub fn read_ise(bits: u128, offset: usize, quant: Quant, out: &mut [u8]) {
    let mut bits = bits.checked_shr(offset as u32).unwrap_or(0);
    let length = quant.ise_bits(out.len());
    if length < 128 {
        bits &= (1 << length) - 1;
    }
    let plain = quant.bits();
    if quant.has_trit() {
        for group in out.chunks_mut(5) {
            let block = read_group(bits as u64, plain, &TRIT_SPLIT, group);
            for (value, trit) in group.iter_mut().zip(TRIT_BLOCKS[block]) {
                *value |= trit << plain;
            }
            bits >>= 5 * plain + 8;
        }
    } else if quant.has_quint() {
        for group in out.chunks_mut(3) {
            let block = read_group(bits as u64, plain, &QUINT_SPLIT, group);
            for (value, quint) in group.iter_mut().zip(QUINT_BLOCKS[block]) {
                *value |= quint << plain;
            }
            bits >>= 3 * plain + 7;
        }
    } else {
        for value in out {
            *value = (bits as u32 & ((1 << plain) - 1)) as u8;
            bits >>= plain;
        }
    }
}

/// Reads the plain bits of a group (at most 38 bits together) into `values` and returns its
/// shared block.
fn read_group(mut bits: u64, plain: u32, split: &[u32], values: &mut [u8]) -> usize {
    let mut block = 0;
    let mut position = 0;
    for (value, &width) in values.iter_mut().zip(split) {
        *value = (bits & ((1 << plain) - 1)) as u8;
        bits >>= plain;
        block |= (bits as usize & ((1 << width) - 1)) << position;
        bits >>= width;
        position += width;
    }
    block
}

/// The sequence of `values` of range `quant` as an integer whose bit 0 is the first bit; it has
/// `quant.ise_bits(values.len())` bits.
///
/// Endpoints: shift it to their first bit. Weights: `.reverse_bits()` puts them below bit 127.
///
/// # Panics
/// If a value is outside the range; debug builds only, if the sequence is past 128 bits.
pub fn write_ise(quant: Quant, values: &[u8]) -> u128 {
    let bits = quant.ise_bits(values.len());
    debug_assert!(bits <= 128, "{} values of {} levels", values.len(), quant.levels());
    let plain = quant.bits();
    let mut writer = Writer { bits: 0, position: 0, end: bits as u32 };
    if quant.has_trit() {
        for group in values.chunks(5) {
            let mut trits = [0; 5];
            for (trit, &value) in trits.iter_mut().zip(group) {
                *trit = value >> plain;
            }
            writer.group(plain, &TRIT_SPLIT, pack_trits(trits).into(), group);
        }
    } else if quant.has_quint() {
        for group in values.chunks(3) {
            let mut quints = [0; 3];
            for (quint, &value) in quints.iter_mut().zip(group) {
                *quint = value >> plain;
            }
            writer.group(plain, &QUINT_SPLIT, pack_quints(quints).into(), group);
        }
    } else {
        for &value in values {
            assert!(u32::from(value) < quant.levels());
            writer.put(value.into(), plain);
        }
    }
    writer.bits
}

struct Writer {
    bits: u128,
    position: u32,
    end: u32,
}

impl Writer {
    /// Appends the low `width` bits of `value`, dropping those past the end of the sequence.
    fn put(&mut self, value: u32, width: u32) {
        let width = width.min(self.end - self.position);
        if width == 0 {
            return;
        }
        self.bits |= u128::from(value & ((1 << width) - 1)) << self.position;
        self.position += width;
    }

    fn group(&mut self, plain: u32, split: &[u32], mut block: u32, values: &[u8]) {
        for (&value, &width) in values.iter().zip(split) {
            self.put(value.into(), plain);
            self.put(block, width);
            block >>= width;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_digit_group_packs_and_unpacks() {
        for index in 0..243_usize {
            let t = [1, 3, 9, 27, 81].map(|power| (index / power % 3) as u8);
            assert_eq!(TRIT_BLOCKS[pack_trits(t) as usize], t);
        }
        for index in 0..125_usize {
            let q = [1, 5, 25].map(|power| (index / power % 5) as u8);
            assert_eq!(QUINT_BLOCKS[pack_quints(q) as usize], q);
        }
        // Worked by hand from the specification's pseudo code.
        assert_eq!(TRIT_BLOCKS[0b0001_1111], [0, 0, 2, 2, 2]);
        assert_eq!(TRIT_BLOCKS[0b1110_1110], [2, 2, 2, 1, 2]);
        assert_eq!(QUINT_BLOCKS[0b000_0111], [4, 4, 4]);
        assert_eq!(QUINT_BLOCKS[0b110_0110], [0, 0, 4]);
    }

    #[test]
    fn partial_groups_need_no_dropped_bits() {
        for count in 1..=5 {
            let kept: u32 = TRIT_SPLIT[..count].iter().sum();
            for index in 0..3_usize.pow(count as u32) {
                let t = [1, 3, 9, 27, 81].map(|power| (index / power % 3) as u8);
                assert_eq!(u32::from(pack_trits(t)) >> kept, 0, "{t:?}");
            }
        }
        for count in 1..=3 {
            let kept: u32 = QUINT_SPLIT[..count].iter().sum();
            for index in 0..5_usize.pow(count as u32) {
                let q = [1, 5, 25].map(|power| (index / power % 5) as u8);
                assert_eq!(u32::from(pack_quints(q)) >> kept, 0, "{q:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn sequences_round_trip(
            index in 0..Quant::COUNT,
            values in prop::collection::vec(any::<u8>(), 1..64),
            noise: u128,
            offset in 0_usize..40,
        ) {
            let quant = Quant::from_index(index);
            let count = (1..=values.len()).rev().find(|&n| quant.ise_bits(n) + offset <= 128).unwrap_or(1);
            prop_assume!(quant.ise_bits(count) + offset <= 128);
            let values: Vec<u8> =
                values[..count].iter().map(|&v| (u32::from(v) % quant.levels()) as u8).collect();
            let bits = quant.ise_bits(count);
            let sequence = write_ise(quant, &values);
            prop_assert_eq!(sequence.checked_shr(bits as u32).unwrap_or(0), 0);
            // Neighbouring fields of the block must not leak into a partial group.
            let mask = (1_u128.checked_shl(bits as u32).unwrap_or(0)).wrapping_sub(1) << offset;
            let block = (sequence << offset) | (noise & !mask);
            let mut read = vec![0; count];
            read_ise(block, offset, quant, &mut read);
            prop_assert_eq!(read, values);
        }
    }
}
