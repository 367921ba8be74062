//! Ranking of partition patterns for a coarse grid, 16 blocks at once.
//!
//! With the endpoints of partition p at m_p ± s_p·d (m_p its mean, s_p a sign) the block's residual
//! times s_p is what the grid must follow. Let c_g be its inner product with the hat of grid
//! weight g. Two levels ±d for every weight capture (Σ|c_g|)²/Σφ² of the energy at the best d, where
//! φ are the shares of all weights in all texels, as far as the hats do not overlap; the means
//! capture Σ n_p·m_p². The sum of both predicts the fit well: on i.i.d. Gaussian texels one of the
//! eight best patterns is within 0.1 dB of the best of all. The signs matter as much as the
//! pattern, since they turn texels that alternate into a field that a coarse grid can follow; all
//! are tried but the common one, which weights can take.

use super::stage::{Candidate, SLOTS, Stage};
use crate::Footprint;
use crate::simd::{Simd, dispatch};

/// Blocks ranked together.
pub(super) const LANES: usize = 16;

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
    pub(super) texels: [Words; Footprint::MAX_TEXELS],
}

/// Inner products of the texels with the terms of a grid, times two.
#[derive(Debug, Default)]
pub(super) struct Products(Vec<Words>);

dispatch! {
    /// Writes the best lead of each of `leads.len()` interleaved classes of the stage's patterns
    /// for each block; ties go to the lower index.
    fn rank = rank_with(
        stage: &Stage,
        texels: &RankTexels,
        products: &mut Products,
        leads: &mut [[Lead; LANES]],
    )
}

#[inline(always)]
fn rank_with<S: Simd>(
    s: S,
    stage: &Stage,
    texels: &RankTexels,
    products: &mut Products,
    leads: &mut [[Lead; LANES]],
) {
    products.0.resize(stage.terms.len(), [0; LANES]);
    for (term, out) in stage.terms.iter().zip(&mut products.0) {
        let share = (term.share * 16.0) as u16;
        let texels = &texels.texels[usize::from(term.texel)];
        for lane in 0..LANES {
            out[lane] = (texels[lane] * share + 4) >> 3;
        }
    }
    match stage.config.partitions {
        2 => rank_partitions::<S, 2>(s, stage, texels, &products.0, leads),
        3 => rank_partitions::<S, 3>(s, stage, texels, &products.0, leads),
        4 => rank_partitions::<S, 4>(s, stage, texels, &products.0, leads),
        _ => leads.fill([Lead::default(); LANES]),
    }
}

#[inline(always)]
fn rank_partitions<S: Simd, const P: usize>(
    s: S,
    stage: &Stage,
    texels: &RankTexels,
    products: &[Words],
    leads: &mut [[Lead; LANES]],
) {
    let classes = leads.len();
    let scale = 0.25 / stage.energy;
    for (class, leads) in leads.iter_mut().enumerate() {
        let mut most = [f32::NEG_INFINITY; LANES];
        let mut winners = [0_u32; LANES];
        for index in (class..stage.candidates.len()).step_by(classes) {
            let (offsets, keys) =
                measure::<S, P>(s, &stage.candidates[index], texels, products, stage.weights());
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

/// Σ n_p·m_p² about the middle, and twice the largest Σ|c_g| of all signs with the number of these
/// signs, in Gray code, in the lowest three bits.
#[inline(always)]
fn measure<S: Simd, const P: usize>(
    s: S,
    candidate: &Candidate,
    texels: &RankTexels,
    products: &[Words],
    weights: usize,
) -> ([f32; LANES], Words) {
    let mut offsets = [0.0; LANES];
    let mut means = [[0; LANES]; P];
    let mut rest = &candidate.by_partition[..];
    for partition in 0..P {
        let own;
        (own, rest) = rest.split_at(candidate.counts[partition]);
        let mut sum = s.splat_word(0);
        for &texel in own {
            sum = s.add_words(sum, s.words(&texels.texels[usize::from(texel)]));
        }
        let mut sums = [0; LANES];
        s.store_words(sum, &mut sums);
        let count = own.len() as f32;
        for lane in 0..LANES {
            let excess = f32::from(sums[lane]) - 127.5 * count;
            offsets[lane] += excess * excess / count;
            means[partition][lane] = (f32::from(sums[lane]) * (256.0 / count)) as i32 as u16;
        }
    }
    let mut sums = [[0; LANES]; SLOTS];
    for (product, &slot) in products.iter().zip(&candidate.slots) {
        let sum = &mut sums[usize::from(slot)];
        s.store_words(s.add_words(s.words(sum), s.words(product)), sum);
    }
    (offsets, heights::<S, P>(s, &sums, &candidate.masses, &means, weights))
}

#[inline(always)]
fn heights<S: Simd, const P: usize>(
    s: S,
    sums: &[Words; SLOTS],
    masses: &[u16],
    means: &[Words; P],
    weights: usize,
) -> Words {
    let zero = s.splat_word(0);
    let means: [S::Words; P] = std::array::from_fn(
        #[inline(always)]
        |partition| s.words(&means[partition]),
    );
    let signs = 1 << (P - 1);
    let mut heights = [zero; 8];
    let (sums, _) = sums.as_chunks::<4>();
    let (masses, _) = masses.as_chunks::<4>();
    for (sums, masses) in sums.iter().zip(masses).take(weights) {
        let mut field = zero;
        let mut twice = [zero; P];
        for partition in 0..P {
            let mass = s.splat_word(masses[partition]);
            let mean = s.mul_high_words(means[partition], mass);
            let part = s.sub_words(s.words(&sums[partition]), mean);
            twice[partition] = s.add_words(part, part);
            field = s.add_words(field, part);
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
