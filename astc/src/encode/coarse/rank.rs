//! Ranking of partition patterns for a coarse grid, 16 blocks at once.
//!
//! With the endpoints of partition p at m_p ± s_p·d (m_p its mean, s_p a sign) the block's residual
//! times s_p is what the grid must follow. Let c_g be its inner product with the hat of grid
//! weight g. Two levels ±d for every weight capture (Σ|c_g|)²/Σφ² of the energy at the best d, where
//! φ are the shares of all weights in all texels, as far as the hats do not overlap; the means
//! capture Σ n_p·m_p². The sum of both predicts the fit well: on i.i.d. Gaussian texels one of the
//! eight best patterns is within 0.1 dB of the best of all. The signs matter as much as the
//! pattern, since they turn texels that alternate into a field that a coarse grid can follow. The
//! last partition's stays positive: turning all signs is the same as turning all weights.

use super::stage::{Candidate, MEAN_ONE, SLOTS, Stage};
use crate::simd::{Simd, dispatch};

/// Blocks ranked together.
pub(super) const LANES: usize = 16;

/// Room for any index of eight bits.
const PLACES: usize = 256;

type Words = [u16; LANES];

/// A pattern, and the partitions (bits) whose endpoints fall with the weight.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lead {
    pub(super) candidate: u16,
    pub(super) falling: u8,
}

/// Texels of 16 blocks as bytes, those that count less pulled towards the middle.
#[derive(Debug)]
pub(super) struct RankTexels {
    pub(super) texels: [Words; PLACES],
}

impl RankTexels {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self { texels: [[0; LANES]; PLACES] })
    }
}

/// Scratch memory of the ranking.
#[derive(Debug)]
pub(super) struct Fields {
    /// Twice the product of texel and share of each of the stage's links.
    products: Vec<Words>,
    /// Sum of the products of each grid weight.
    totals: [Words; 64],
    /// Sum of all texels.
    total: Words,
    /// What [`Route::slot`](super::stage::Route::slot) indexes, and behind that the mean of each
    /// partition.
    sums: [Words; SLOTS + 4],
}

impl Fields {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            products: Vec::new(),
            totals: [[0; LANES]; 64],
            total: [0; LANES],
            sums: [[0; LANES]; SLOTS + 4],
        })
    }

    #[inline(always)]
    fn multiply<S: Simd>(&mut self, s: S, stage: &Stage, texels: &RankTexels) {
        self.products.resize(stage.links.len(), [0; LANES]);
        self.totals = [[0; LANES]; 64];
        for (link, product) in stage.links.iter().zip(&mut self.products) {
            let texels = &texels.texels[usize::from(link.texel)];
            for lane in 0..LANES {
                product[lane] = (texels[lane] * u16::from(link.sixteenths) + 4) >> 3;
            }
            let total = &mut self.totals[usize::from(link.weight)];
            s.store_words(s.add_words(s.words(total), s.words(product)), total);
        }
        let mut total = s.splat_word(0);
        for texel in &texels.texels[..stage.candidates[0].owners.len()] {
            total = s.add_words(total, s.words(texel));
        }
        s.store_words(total, &mut self.total);
    }
}

dispatch! {
    /// Writes the best lead of each of `leads.len()` interleaved classes of the stage's patterns
    /// for each block; ties go to the lower index.
    fn rank = rank_with(
        stage: &Stage,
        texels: &RankTexels,
        fields: &mut Fields,
        leads: &mut [[Lead; LANES]],
    )
}

#[inline(always)]
fn rank_with<S: Simd>(
    s: S,
    stage: &Stage,
    texels: &RankTexels,
    fields: &mut Fields,
    leads: &mut [[Lead; LANES]],
) {
    fields.multiply(s, stage, texels);
    match stage.config.partitions {
        2 => rank_partitions::<S, 2>(s, stage, texels, fields, leads),
        3 => rank_partitions::<S, 3>(s, stage, texels, fields, leads),
        4 => rank_partitions::<S, 4>(s, stage, texels, fields, leads),
        _ => leads.fill([Lead::default(); LANES]),
    }
}

#[inline(always)]
fn rank_partitions<S: Simd, const P: usize>(
    s: S,
    stage: &Stage,
    texels: &RankTexels,
    fields: &mut Fields,
    leads: &mut [[Lead; LANES]],
) {
    let classes = leads.len();
    let scale = 0.25 / stage.energy;
    for (class, leads) in leads.iter_mut().enumerate() {
        let mut most = [f32::NEG_INFINITY; LANES];
        let mut winners = [0_u32; LANES];
        for index in (class..stage.candidates.len()).step_by(classes) {
            let (offsets, keys) =
                measure::<S, P>(s, &stage.candidates[index], texels, fields, stage.weights());
            for lane in 0..LANES {
                let height = f32::from(keys[lane] & !7);
                let merit = offsets[lane] + height * height * scale;
                let winner = (index as u32) << 3 | u32::from(keys[lane] & 7);
                winners[lane] = if merit > most[lane] { winner } else { winners[lane] };
                most[lane] = if merit > most[lane] { merit } else { most[lane] };
            }
        }
        for (lead, winner) in leads.iter_mut().zip(winners) {
            let order = (winner & 7) as u8;
            *lead = Lead { candidate: (winner >> 3) as u16, falling: order ^ (order >> 1) };
        }
    }
}

/// Σ n_p·m_p² about the middle, and what [`heights`] returns.
#[inline(always)]
fn measure<S: Simd, const P: usize>(
    s: S,
    candidate: &Candidate,
    texels: &RankTexels,
    fields: &mut Fields,
    weights: usize,
) -> ([f32; LANES], Words) {
    let mut offsets = [0.0; LANES];
    let mut rest = &candidate.by_partition[..];
    let mut left = s.words(&fields.total);
    for partition in 0..P {
        let mut sum = left;
        if partition + 1 < P {
            let own;
            (own, rest) = rest.split_at(candidate.counts[partition]);
            sum = s.splat_word(0);
            for &texel in own {
                sum = s.add_words(sum, s.words(&texels.texels[usize::from(texel)]));
            }
            left = s.sub_words(left, sum);
        }
        let mut sums = [0; LANES];
        s.store_words(sum, &mut sums);
        let count = candidate.counts[partition] as f32;
        let mut means = [0; LANES];
        for lane in 0..LANES {
            let sum = f32::from(sums[lane]);
            let excess = sum - 128.0 * count;
            offsets[lane] += excess * excess * (1.0 / count);
            means[lane] = (sum * (MEAN_ONE / count)) as i32 as u16;
        }
        fields.sums[SLOTS + partition] = means;
    }
    gather::<S, P>(s, candidate, fields, weights);
    (offsets, heights::<S, P>(s, &fields.sums, weights))
}

/// Twice the inner products of the grid weights with each partition's texels less their mean, and
/// in place of the last partition with all texels less the means of their partitions.
#[inline(always)]
fn gather<S: Simd, const P: usize>(
    s: S,
    candidate: &Candidate,
    fields: &mut Fields,
    weights: usize,
) {
    let masses = candidate.masses.as_chunks::<4>().0;
    for ((weight, masses), total) in masses.iter().enumerate().zip(&fields.totals).take(weights) {
        let mut all = s.words(total);
        for partition in 0..P {
            // The mean is read again each time: hoisting it splits the multiplication badly.
            let mean = s.words(&fields.sums[SLOTS + partition]);
            let share = s.mul_high_words(mean, s.splat_word(masses[partition]));
            all = s.sub_words(all, share);
            let start = if partition + 1 < P { s.sub_words(s.splat_word(0), share) } else { all };
            s.store_words(start, &mut fields.sums[4 * weight + partition]);
        }
    }
    for route in &candidate.routes {
        let product = s.words(&fields.products[usize::from(route.link)]);
        let sum = &mut fields.sums[usize::from(route.slot)];
        s.store_words(s.add_words(s.words(sum), product), sum);
    }
}

/// Twice the largest Σ|c_g| of all signs with the number of these signs, in Gray code, in the
/// lowest three bits.
#[inline(always)]
fn heights<S: Simd, const P: usize>(s: S, sums: &[Words; SLOTS + 4], weights: usize) -> Words {
    let zero = s.splat_word(0);
    let signs = 1 << (P - 1);
    let mut heights = [zero; 8];
    for sums in sums.as_chunks::<4>().0.iter().take(weights) {
        let mut field = s.words(&sums[P - 1]);
        let mut twice = [zero; P];
        for partition in 0..P - 1 {
            let part = s.words(&sums[partition]);
            twice[partition] = s.add_words(part, part);
        }
        for order in 0..signs {
            if order > 0 {
                // Gray code: each step turns one sign.
                let turned = (order as u32).trailing_zeros() as usize;
                let falls = (order ^ (order >> 1)) >> turned & 1 == 1;
                field = if falls {
                    s.sub_words(field, twice[turned])
                } else {
                    s.add_words(field, twice[turned])
                };
            }
            let magnitude = s.min_words(field, s.sub_words(zero, field));
            heights[order] = s.add_words(heights[order], magnitude);
        }
    }
    let mut best = [0; LANES];
    for (order, height) in (0..).zip(&heights[..signs]) {
        let mut lanes = [0; LANES];
        s.store_words(*height, &mut lanes);
        for lane in 0..LANES {
            best[lane] = best[lane].max((lanes[lane] & !7) | order);
        }
    }
    best
}
