//! One configuration with its weight grid and partition patterns, laid out for the kernels.

use super::plan::Plan;
use crate::Footprint;
use crate::encode::config::Config;
use crate::tables::{Infill, PartitionPattern, distinct_patterns};

/// Most places where a partition meets a grid weight.
pub(super) const SLOTS: usize = 4 * 64;
/// Fixed point of [`Candidate::masses`]; with [`MEAN_ONE`], 2·2^16.
const MASS_ONE: f32 = 512.0;
/// Fixed point of the means that these are multiplied with.
pub(super) const MEAN_ONE: f32 = 256.0;

/// A grid weight's part in one texel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    pub(super) texel: u8,
    /// Share of the texel's weight, 0..=1.
    pub(super) share: f32,
}

/// A partition pattern as ranking and fitting need it: partitions renumbered so that the last has
/// the most texels.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) seed: u16,
    /// The block's number of each partition.
    pub(super) numbers: [u8; 4],
    /// Partition of each texel.
    pub(super) owners: Vec<u8>,
    /// Texels of each partition.
    pub(super) counts: [usize; 4],
    /// Texels of each partition but the last, one partition after the other.
    pub(super) by_partition: Vec<u8>,
    /// Links of the texels of each partition but the last.
    pub(super) routes: Vec<Route>,
    /// Sum of the shares in each slot, times 512.
    pub(super) masses: Vec<u16>,
}

/// Where the product of a link belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) link: u16,
    /// 4·(grid weight) + partition.
    pub(super) slot: u8,
}

/// A [`Term`] in order of texels, in which neighbours go to different grid weights: sums that
/// follow each other in memory would wait for each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) texel: u8,
    pub(super) weight: u8,
    pub(super) sixteenths: u8,
}

/// A configuration, its grid and the patterns that are ranked.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) config: Config,
    /// All terms, in order of grid weights.
    pub(super) terms: Vec<Term>,
    /// End of each grid weight's terms.
    pub(super) term_ends: Vec<usize>,
    pub(super) links: Vec<Link>,
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
        let mut links = Vec::new();
        for (texel, point) in (0..).zip(Infill::new(footprint, width, height).points()) {
            let first = usize::from(point.first);
            let below = first + usize::from(width);
            for (index, share) in [first, first + 1, below, below + 1].into_iter().zip(point.shares)
            {
                if share > 0 {
                    reach[index].push(Term { texel, share: f32::from(share) / 16.0 });
                    links.push(Link { texel, weight: index as u8, sixteenths: share });
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
        let mut stage =
            Self { config, terms, term_ends, links, energy, candidates: Vec::new(), tries };
        let patterns = if plan.partitions == 1 {
            vec![PartitionPattern { seed: 0, texels: vec![0; footprint.texels()] }]
        } else {
            distinct_patterns(footprint, plan.partitions)
        };
        stage.candidates =
            patterns.iter().step_by(every).map(|pattern| stage.candidate(pattern)).collect();
        Some(stage)
    }

    fn candidate(&self, pattern: &PartitionPattern) -> Candidate {
        let last = self.config.partitions - 1;
        let given: [usize; 4] = pattern.counts();
        let largest = (0..=last).rev().max_by_key(|&partition| given[partition]).unwrap_or(last);
        let mut numbers = [0, 1, 2, 3];
        numbers.swap(largest, last);
        // Swapping two numbers is its own inverse.
        let owners: Vec<u8> =
            pattern.texels.iter().map(|&number| numbers[usize::from(number)]).collect();
        let mut shares = [0.0; SLOTS];
        let mut routes = Vec::new();
        for (index, link) in (0..).zip(&self.links) {
            let owner = owners[usize::from(link.texel)];
            let slot = 4 * link.weight + owner;
            shares[usize::from(slot)] += f32::from(link.sixteenths) / 16.0;
            if usize::from(owner) < last {
                routes.push(Route { link: index, slot });
            }
        }
        let mut by_partition: Vec<u8> = (0..owners.len() as u8)
            .filter(|&texel| usize::from(owners[usize::from(texel)]) < last)
            .collect();
        by_partition.sort_by_key(|&texel| owners[usize::from(texel)]);
        Candidate {
            seed: pattern.seed,
            numbers,
            counts: numbers.map(|number| given[usize::from(number)]),
            owners,
            by_partition,
            routes,
            masses: shares.iter().map(|share| (share * MASS_ONE) as u16).collect(),
        }
    }

    /// Number of grid weights.
    pub(super) fn weights(&self) -> usize {
        self.term_ends.len()
    }
}
