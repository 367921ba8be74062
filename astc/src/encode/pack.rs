//! From a fitted block to its 16 bytes.

use super::config::Config;
use super::fit::Fit;
use super::patterns::Pattern;
use crate::tables::{Quant, pack_quints, pack_trits};

/// Bits below the endpoints: mode 11, partition count 2, and endpoint mode 4 (one partition) or
/// seed 10 and endpoint mode 6 (several, all of mode 0).
pub(crate) const ENDPOINTS_AT: [u32; 2] = [17, 29];

/// The block of a fit.
pub(super) fn pack(config: &Config, pattern: &Pattern, texels: usize, fit: &Fit) -> u128 {
    let mut steps = [0; 64];
    let mut ends = [0; 8];
    let mut lane = 0;
    for (subset, &(low, high)) in pattern.subsets.iter().zip(&fit.ends) {
        for (&texel, &step) in subset.texels.iter().zip(&fit.steps[lane..]) {
            steps[usize::from(texel)] = step;
        }
        lane += subset.padded.len();
        let at = 2 * usize::from(subset.partition);
        ends[at] = low;
        ends[at + 1] = high;
    }
    let several = usize::from(config.partitions > 1);
    let header = u128::from(config.mode)
        | ((config.partitions as u128 - 1) << 11)
        | (u128::from(pattern.seed) * several as u128) << 13;
    header
        | config.end_sequence.pack(&ends[..2 * config.partitions]) << ENDPOINTS_AT[several]
        | config.step_sequence.pack(&steps[..texels]).reverse_bits()
}

impl Config {
    /// The block of a pattern's seed (0 with one partition) and the indices of the ends, two a
    /// partition, and of the grid's weights.
    pub(crate) fn pack_grid(&self, seed: u16, ends: &[u8], steps: &[u8]) -> u128 {
        let several = usize::from(self.partitions > 1);
        u128::from(self.mode)
            | ((self.partitions as u128 - 1) << 11)
            | u128::from(seed) << 13
            | self.end_sequence.pack(ends) << ENDPOINTS_AT[several]
            | self.step_sequence.pack(steps).reverse_bits()
    }
}

/// Writes values of one range, given by their rank, as a bounded integer sequence.
///
/// The bits of a group of values are one number that a value adds to: its plain bits in their
/// places, and above [`DIGITS_AT`] its share of the index of the group's trits or quints.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    /// Values a group: 5 with trits, 3 with quints, else 4.
    group: usize,
    /// Bits a group.
    bits: u32,
    /// What a value of each rank adds, position in the group by position.
    terms: Vec<u64>,
    /// Number of ranks.
    levels: usize,
    /// Bits of the trits or quints of each index, spread to their places.
    digits: Vec<u64>,
}

const DIGITS_AT: u32 = 48;

impl Sequence {
    /// `codes` lists the stored integer of each rank.
    pub(super) fn new(quant: Quant, codes: &[u8]) -> Self {
        let plain = quant.bits();
        let (base, split): (u64, &[u32]) = if quant.has_trit() {
            (3, &[2, 2, 1, 2, 1])
        } else if quant.has_quint() {
            (5, &[3, 2, 2])
        } else {
            (1, &[0; 4])
        };
        let group = split.len();
        let mut terms = Vec::with_capacity(group * codes.len());
        let mut at = 0;
        for (position, width) in (0..).zip(split) {
            for &code in codes {
                let (digit, low) = (u64::from(code) >> plain, u64::from(code) & ((1 << plain) - 1));
                terms.push(low << at | (digit * base.pow(position)) << DIGITS_AT);
            }
            at += plain + width;
        }
        let digits = (0..base.pow(group as u32))
            .map(|index| spread(shared_bits(base, index), plain, split))
            .collect();
        Self { group, bits: at, terms, levels: codes.len(), digits }
    }

    /// The sequence, its first bit in bit 0.
    pub(crate) fn pack(&self, ranks: &[u8]) -> u128 {
        // Groups gather in a 64-bit word; shifts of 128 bits are the dearest step here.
        let (mut bits, mut word) = (0, 0);
        let (mut at, mut filled) = (0, 0);
        for group in ranks.chunks(self.group) {
            let mut sum = 0;
            for (terms, &rank) in self.terms.chunks_exact(self.levels).zip(group) {
                sum += terms[usize::from(rank)];
            }
            let plain = sum & ((1 << DIGITS_AT) - 1);
            if filled + self.bits > u64::BITS {
                bits |= u128::from(word) << at;
                at += filled;
                (word, filled) = (0, 0);
            }
            word |= (plain | self.digits[(sum >> DIGITS_AT) as usize]) << filled;
            filled += self.bits;
        }
        bits | u128::from(word) << at
    }
}

/// The shared block of the digits of `index`, lowest first.
fn shared_bits(base: u64, index: u64) -> u64 {
    let digit = |position: u32| (index / base.pow(position) % base) as u8;
    match base {
        3 => pack_trits([0, 1, 2, 3, 4].map(digit)).into(),
        5 => pack_quints([0, 1, 2].map(digit)).into(),
        _ => 0,
    }
}

/// Puts the bits of a shared block behind the plain bits of the values they belong to.
fn spread(mut block: u64, plain: u32, split: &[u32]) -> u64 {
    let mut out = 0;
    let mut at = plain;
    for width in split {
        out |= (block & ((1 << width) - 1)) << at;
        block >>= width;
        at += width + plain;
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tables::write_ise;

    proptest! {
        #[test]
        fn sequences_match_the_reference_writer(
            index in 0..Quant::COUNT,
            values in prop::collection::vec(any::<u8>(), 1..64),
        ) {
            let quant = Quant::from_index(index);
            let levels = quant.levels() as usize;
            // Ranks in reverse order of the stored integers.
            let codes: Vec<u8> = (0..=u8::MAX).take(levels).rev().collect();
            let ranks: Vec<u8> = values.iter().map(|&v| (usize::from(v) % levels) as u8).collect();
            let fitting = (1..=ranks.len()).rev().find(|&n| quant.ise_bits(n) <= 99).unwrap();
            let ranks = &ranks[..fitting];
            let stored: Vec<u8> = ranks.iter().map(|&rank| codes[usize::from(rank)]).collect();
            prop_assert_eq!(Sequence::new(quant, &codes).pack(ranks), write_ise(quant, &stored));
        }
    }
}
