//! One configuration with its weight grid and partition patterns, laid out for the kernels.

use super::plan::Plan;
use crate::Footprint;
use crate::encode::config::Config;
use crate::tables::{Infill, PartitionPattern, distinct_patterns};

/// Most places where a partition meets a grid weight.
pub(super) const SLOTS: usize = 4 * 64;
/// Fixed point of [`Candidate::masses`].
const MASS_ONE: f32 = 512.0;

/// A grid weight's part in one texel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    pub(super) texel: u8,
    /// Share of the texel's weight, 0..=1.
    pub(super) share: f32,
}

/// A partition pattern as ranking and fitting need it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) seed: u16,
    /// Partition of each texel.
    pub(super) owners: Vec<u8>,
    /// Texels of each partition, one partition after the other.
    pub(super) by_partition: Vec<u8>,
    /// Texels of each partition.
    pub(super) counts: [usize; 4],
    /// For each term of the grid its slot: 4·(grid weight) + partition.
    pub(super) slots: Vec<u8>,
    /// Sum of the shares in each slot, times 512.
    pub(super) masses: Vec<u16>,
}

/// A configuration, its grid and the patterns that are ranked.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) config: Config,
    /// All terms, in order of grid weights.
    pub(super) terms: Vec<Term>,
    /// End of each grid weight's terms.
    pub(super) term_ends: Vec<usize>,
    /// Sum of all squared shares.
    pub(super) energy: f32,
    pub(super) candidates: Vec<Candidate>,
    pub(super) tries: usize,
}

impl Stage {
    /// The stage of a plan with one of `every` patterns, of which `tries` are fitted; `None` where
    /// the standard has no such block.
    pub(super) fn new(
        footprint: Footprint,
        plan: &Plan,
        every: usize,
        tries: usize,
    ) -> Option<Self> {
        let (width, height) = plan.grid;
        let config = Config::with_grid(width, height, plan.partitions, plan.levels)?;
        let weights = usize::from(width) * usize::from(height);
        let mut reach = vec![Vec::new(); weights];
        for (texel, point) in (0..).zip(Infill::new(footprint, width, height).points()) {
            let first = usize::from(point.first);
            let below = first + usize::from(width);
            for (index, share) in [first, first + 1, below, below + 1].into_iter().zip(point.shares)
            {
                if share > 0 {
                    reach[index].push(Term { texel, share: f32::from(share) / 16.0 });
                }
            }
        }
        let mut term_ends = Vec::new();
        let mut end = 0;
        for terms in &reach {
            end += terms.len();
            term_ends.push(end);
        }
        let terms = reach.concat();
        let energy = terms.iter().map(|term| term.share * term.share).sum();
        let mut stage = Self { config, terms, term_ends, energy, candidates: Vec::new(), tries };
        let patterns = if plan.partitions == 1 {
            vec![PartitionPattern { seed: 0, texels: vec![0; footprint.texels()] }]
        } else {
            distinct_patterns(footprint, plan.partitions)
        };
        stage.candidates =
            patterns.into_iter().step_by(every).map(|pattern| stage.candidate(pattern)).collect();
        Some(stage)
    }

    fn candidate(&self, pattern: PartitionPattern) -> Candidate {
        let mut slots = Vec::with_capacity(self.terms.len());
        let mut shares = [0.0; SLOTS];
        let mut start = 0;
        for (weight, &end) in self.term_ends.iter().enumerate() {
            for term in &self.terms[start..end] {
                let slot = 4 * weight + usize::from(pattern.texels[usize::from(term.texel)]);
                shares[slot] += term.share;
                slots.push(slot as u8);
            }
            start = end;
        }
        let mut by_partition: Vec<u8> = (0..pattern.texels.len() as u8).collect();
        by_partition.sort_by_key(|&texel| pattern.texels[usize::from(texel)]);
        Candidate {
            seed: pattern.seed,
            counts: pattern.counts(),
            owners: pattern.texels,
            by_partition,
            slots,
            masses: shares.iter().map(|share| (share * MASS_ONE) as u16).collect(),
        }
    }

    /// Number of grid weights.
    pub(super) fn weights(&self) -> usize {
        self.term_ends.len()
    }
}
