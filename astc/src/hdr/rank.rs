//! Which two-partition patterns are worth a fit: those with the least Σ n·range².

use super::lanes::BlockTexels;
use crate::encode::patterns::{Pattern, Patterns};

/// Ranges of every entry of [`Patterns::entries`] in one block.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    low: Vec<f32>,
    high: Vec<f32>,
    /// Merit and index of every pattern.
    merits: Vec<(f32, usize)>,
}

impl Ranges {
    /// The `count` most promising of the two-partition patterns, best first; ties go to the lower
    /// index. Patterns with a subset past the matrix's edge are left out.
    pub(super) fn best(
        &mut self,
        patterns: &Patterns,
        block: &BlockTexels,
        count: usize,
    ) -> &[(f32, usize)] {
        self.measure(patterns, block);
        self.merits.clear();
        for (index, pattern) in patterns.by_count[1].iter().enumerate() {
            let merit = self.merit(pattern);
            if merit.is_finite() {
                self.merits.push((merit, index));
            }
        }
        let order = |a: &(f32, usize), b: &(f32, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let count = count.min(self.merits.len());
        if count < self.merits.len() {
            self.merits.select_nth_unstable_by(count, order);
        }
        let best = &mut self.merits[..count];
        best.sort_unstable_by(order);
        best
    }

    fn measure(&mut self, patterns: &Patterns, block: &BlockTexels) {
        self.low.clear();
        self.high.clear();
        self.low.push(f32::INFINITY);
        self.high.push(f32::NEG_INFINITY);
        for entry in &patterns.entries[1..] {
            let (parent, texel) = (usize::from(entry.parent), usize::from(entry.texel));
            let (mut low, mut high) = (self.low[parent], self.high[parent]);
            if block.importance[texel] > 0.0 {
                low = low.min(block.value[texel]);
                high = high.max(block.value[texel]);
            }
            self.low.push(low);
            self.high.push(high);
        }
    }

    fn merit(&self, pattern: &Pattern) -> f32 {
        pattern
            .subsets
            .iter()
            .map(|subset| {
                let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
                for &entry in &subset.entries {
                    low = low.min(self.low[usize::from(entry)]);
                    high = high.max(self.high[usize::from(entry)]);
                }
                // The empty subset's range is -infinity, its merit infinite.
                (high - low) * (high - low) * subset.texels.len() as f32
            })
            .sum()
    }
}
