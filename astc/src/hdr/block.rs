//! From endpoints and an offset to a block: weights on the decoded values, header, bytes.

use half::f16;

use super::lanes::BlockTexels;
use super::search::{Found, Setup};
use crate::encode::pack::ENDPOINTS_AT;
use crate::encode::patterns::Pattern;

/// A finished block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coded {
    pub(super) bits: u128,
    pub(super) offset: f16,
    /// Squared error of the decoded weights.
    pub(super) error: f32,
}

impl Setup {
    /// Gives every texel its nearest decoded value and writes the block; `None` where the offset
    /// is past fp16.
    pub(super) fn finish(
        &self,
        pattern: &Pattern,
        block: &BlockTexels,
        texels: usize,
        found: &Found,
    ) -> Option<Coded> {
        // No negative zero: a block of zeros is all plain zeros.
        let offset = f16::from_f32(found.offset + 0.0);
        if !offset.is_finite() {
            return None;
        }
        let (mut error, mut steps, mut ends) = (0.0, [0; 64], [0; 8]);
        let levels_count = self.config.steps.len();
        for (subset, &code) in pattern.subsets.iter().zip(&found.codes) {
            let (ranks, levels) = self.levels(code)?;
            let decoded = levels.map(|level| level + offset.to_f32());
            let at = 2 * usize::from(subset.partition);
            (ends[at], ends[at + 1]) = ranks;
            for texel in subset.texels.iter().map(|&texel| usize::from(texel)) {
                let (step, away) = nearest(&decoded[..levels_count], block.value[texel]);
                steps[texel] = step;
                error += block.importance[texel] * away * away;
            }
        }
        let bits = self.pack(pattern, found.codes[0].family.format(), &ends, &steps[..texels]);
        Some(Coded { bits, offset, error })
    }

    fn pack(&self, pattern: &Pattern, format: u8, ends: &[u8; 8], steps: &[u8]) -> u128 {
        let config = &self.config;
        let partitions = config.partitions;
        let several = usize::from(partitions > 1);
        // Several partitions of one endpoint mode: seed, then the mode above two zero bits.
        let header = if partitions == 1 {
            u128::from(format) << 13
        } else {
            u128::from(pattern.seed) << 13 | u128::from(format) << 25
        };
        u128::from(config.mode)
            | (partitions as u128 - 1) << 11
            | header
            | config.end_sequence.pack(&ends[..2 * partitions]) << ENDPOINTS_AT[several]
            | config.step_sequence.pack(steps).reverse_bits()
    }
}

/// Index of the nearest level and the distance to it; the lower of two equally near.
fn nearest(levels: &[f32], value: f32) -> (u8, f32) {
    let mut best = (0, f32::INFINITY);
    for (index, &level) in (0..).zip(levels) {
        let away = (value - level).abs();
        if away < best.1 {
            best = (index, away);
        }
    }
    best
}
