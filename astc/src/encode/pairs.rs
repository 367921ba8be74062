//! Endpoint search by table: the error of a texel under every endpoint pair is a table row, the
//! error of a subset is a sum of rows, and the best pair is the smallest lane.
//!
//! Texels are 8-bit positions and errors 16-bit integers, scaled so that a whole block cannot
//! overflow; the decision is approximate only in that rounding, and equal on every machine.

use super::config::{Config, decoded_level};
use super::patterns::Pattern;
use crate::DecodeMode;
use crate::simd::{Simd, dispatch};

/// Pairs a vector of the table.
const LANES: usize = 16;
/// Most vectors of a row.
const MAX_VECTORS: usize = 12;
/// Row of a texel without importance: no error under any pair.
pub(super) const FREE_ROW: u16 = 256;
/// Texels that the search arrays hold: 64 and padding.
pub(super) const SEARCH_TEXELS: usize = 72;

/// Errors of the 256 texel positions under a list of endpoint pairs.
#[derive(Debug, Clone)]
pub(super) struct PairTable {
    /// Low and high end of each pair, in the table's 0..=255 coordinates.
    pub(super) pairs: Vec<(f32, f32)>,
    /// Vectors a row.
    vectors: usize,
    /// 257 rows.
    rows: Vec<[u16; LANES]>,
    /// Table units for one squared texel step (1/255)².
    pub(super) unit: f32,
}

/// Texels of one block as the table sees them.
#[derive(Debug, Clone)]
pub(super) struct Positions {
    /// Position 0..=255 of each texel, or [`FREE_ROW`].
    pub(super) rows: [u16; SEARCH_TEXELS],
    /// Importance over the block's largest, times 65535; unused if `uniform`.
    pub(super) importance: [u16; SEARCH_TEXELS],
    /// Whether all texels that are not free count the same.
    pub(super) uniform: bool,
}

/// Outcome of a search: table error, position in the list of candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) error: u16,
    pub(super) candidate: usize,
}

impl PairTable {
    /// All pairs of a configuration's endpoint values, low below high.
    ///
    /// `None` where they are more than 192: those endpoints are fine enough to be fitted.
    pub(super) fn exact(config: &Config, mode: DecodeMode, texels: usize) -> Option<Self> {
        let ends = &config.endpoints;
        let mut pairs = Vec::new();
        for low in 0..ends.len() {
            for high in low + 1..ends.len() {
                pairs.push((ends[low], ends[high]));
            }
        }
        if pairs.len() > 12 * LANES {
            return None;
        }
        if pairs.len() > 4 * LANES && pairs.len() <= 4 * LANES + 2 {
            // The two narrowest outermost pairs cost a whole vector and win in no real block.
            pairs.retain(|&(low, high)| {
                (low, high) != (ends[0], ends[1])
                    && (low, high) != (ends[ends.len() - 2], ends[ends.len() - 1])
            });
        }
        let levels: Vec<Vec<f32>> = pairs
            .iter()
            .map(|&(low, high)| {
                config.steps.iter().map(|&step| decoded_level(mode, low, high, step)).collect()
            })
            .collect();
        let pairs = pairs.into_iter().map(|(low, high)| (low.into(), high.into())).collect();
        Some(Self::new(pairs, &levels, config.steps.len(), texels))
    }

    /// Pairs around the ends of a range that was stretched to 0..=255, for endpoints that are
    /// fine enough to be placed freely.
    pub(super) fn stretched(config: &Config, texels: usize) -> Self {
        let levels = config.steps.len();
        let step = 255.0 / (levels - 1) as f32;
        let mut pairs = Vec::new();
        for low in -4..=7 {
            for high in -4..=7 {
                pairs.push((step * low as f32 * 0.125, 255.0 - step * high as f32 * 0.125));
            }
        }
        let values: Vec<Vec<f32>> = pairs
            .iter()
            .map(|&(low, high)| {
                config
                    .steps
                    .iter()
                    .map(|&weight| low + (high - low) * (f32::from(weight) / 64.0))
                    .collect()
            })
            .collect();
        Self::new(pairs, &values, levels, texels)
    }

    fn new(pairs: Vec<(f32, f32)>, levels: &[Vec<f32>], steps: usize, texels: usize) -> Self {
        // The search walks a row in chunks of three or four vectors.
        let wanted = pairs.len().div_ceil(LANES);
        let vectors = wanted.next_multiple_of(if wanted <= 3 || wanted == 9 { 3 } else { 4 });
        let cap = (65535 / texels) as f32;
        // No texel inside the widest pair is further than half a spacing from a level.
        let widest = 127.5 / (steps - 1) as f32;
        let unit = cap / (widest * widest);
        let mut rows = Vec::with_capacity(257 * vectors);
        for position in 0..256 {
            let mut row = vec![cap as u16; vectors * LANES];
            for (error, levels) in row.iter_mut().zip(levels) {
                let nearest = levels
                    .iter()
                    .map(|level| (position as f32 - level) * (position as f32 - level))
                    .fold(f32::MAX, f32::min);
                *error = (nearest * unit + 0.5).min(cap) as u16;
            }
            rows.extend(row.as_chunks().0);
        }
        rows.resize(257 * vectors, [0; LANES]);
        Self { pairs, vectors, rows, unit }
    }
}

dispatch! {
    /// The pair with the smallest error over `texels` and that error, the first of equals.
    fn best_pair = best_pair_with(
        table: &PairTable,
        positions: &Positions,
        texels: &[u8],
    ) -> (usize, u16)
}

#[inline(always)]
fn best_pair_with<S: Simd>(
    s: S,
    table: &PairTable,
    positions: &Positions,
    texels: &[u8],
) -> (usize, u16) {
    let vectors = table.vectors;
    let mut sums = [s.splat_word(0); MAX_VECTORS];
    for &texel in texels {
        let row = usize::from(positions.rows[usize::from(texel)]) * vectors;
        let factor = s.splat_word(positions.importance[usize::from(texel)]);
        for (sum, errors) in sums.iter_mut().zip(&table.rows[row..row + vectors]) {
            let mut error = s.words(errors);
            if !positions.uniform {
                error = s.mul_high_words(error, factor);
            }
            *sum = s.add_words(*sum, error);
        }
    }
    let mut lanes = [[0; LANES]; MAX_VECTORS];
    let mut least = s.splat_word(u16::MAX);
    for (lanes, sum) in lanes.iter_mut().zip(sums).take(vectors) {
        s.store_words(sum, lanes);
        least = s.min_words(least, sum);
    }
    let error = s.horizontal_min(least);
    let lanes = lanes.as_flattened();
    let pair = lanes.iter().position(|&lane| lane == error).unwrap_or(0);
    (pair.min(table.pairs.len() - 1), error)
}

dispatch! {
    /// The best of the `candidates` (indices into `patterns`) for one block, ties to the first.
    /// `scratch` holds weighted rows.
    fn search = search_with(
        table: &PairTable,
        patterns: &[Pattern],
        candidates: &[u16],
        positions: &Positions,
        texels: usize,
        scratch: &mut Vec<[u16; LANES]>,
    ) -> Found
}

#[inline(always)]
fn search_with<S: Simd>(
    s: S,
    table: &PairTable,
    patterns: &[Pattern],
    candidates: &[u16],
    positions: &Positions,
    texels: usize,
    scratch: &mut Vec<[u16; LANES]>,
) -> Found {
    let vectors = table.vectors;
    let mut offsets = [0_usize; SEARCH_TEXELS];
    let rows: &[[u16; LANES]] = if positions.uniform {
        for (offset, &row) in offsets.iter_mut().zip(&positions.rows[..texels]) {
            *offset = usize::from(row) * vectors;
        }
        &table.rows
    } else {
        scratch.resize(texels * vectors, [0; LANES]);
        for texel in 0..texels {
            let row = usize::from(positions.rows[texel]) * vectors;
            let factor = s.splat_word(positions.importance[texel]);
            let out = &mut scratch[texel * vectors..(texel + 1) * vectors];
            for (out, errors) in out.iter_mut().zip(&table.rows[row..row + vectors]) {
                s.store_words(s.mul_high_words(s.words(errors), factor), out);
            }
            offsets[texel] = texel * vectors;
        }
        &scratch[..]
    };
    if vectors % 4 == 0 {
        search_rows::<S, 4>(s, rows, vectors, &offsets, patterns, candidates, texels)
    } else {
        search_rows::<S, 3>(s, rows, vectors, &offsets, patterns, candidates, texels)
    }
}

#[inline(always)]
fn search_rows<S: Simd, const C: usize>(
    s: S,
    rows: &[[u16; LANES]],
    vectors: usize,
    offsets: &[usize; SEARCH_TEXELS],
    patterns: &[Pattern],
    candidates: &[u16],
    texels: usize,
) -> Found {
    let zero = s.splat_word(0);
    let mut totals = [[zero; C]; MAX_VECTORS / 3];
    for (chunk, totals) in totals.iter_mut().enumerate().take(vectors / C) {
        for &offset in &offsets[..texels] {
            add_row(s, totals, rows, offset + chunk * C);
        }
    }
    let mut found = Found { error: u16::MAX, candidate: 0 };
    for (candidate, &index) in candidates.iter().enumerate() {
        let subsets = &patterns[usize::from(index)].subsets;
        let mut rest = totals;
        let mut error = 0_u16;
        // The last subset, the largest, is what the others leave.
        for subset in &subsets[..subsets.len() - 1] {
            let mut least = s.splat_word(u16::MAX);
            for (chunk, rest) in rest.iter_mut().enumerate().take(vectors / C) {
                let mut sums = [zero; C];
                for &texel in &subset.texels {
                    add_row(s, &mut sums, rows, offsets[usize::from(texel)] + chunk * C);
                }
                for (sum, rest) in sums.iter().zip(rest) {
                    least = s.min_words(least, *sum);
                    *rest = s.sub_words(*rest, *sum);
                }
            }
            error = error.saturating_add(s.horizontal_min(least));
        }
        let mut least = s.splat_word(u16::MAX);
        for rest in rest.iter().take(vectors / C) {
            for rest in rest {
                least = s.min_words(least, *rest);
            }
        }
        error = error.saturating_add(s.horizontal_min(least));
        if error < found.error {
            found = Found { error, candidate };
        }
    }
    found
}

#[inline(always)]
fn add_row<S: Simd, const C: usize>(
    s: S,
    sums: &mut [S::Words; C],
    rows: &[[u16; LANES]],
    offset: usize,
) {
    let row = &rows[offset..offset + C];
    for (sum, errors) in sums.iter_mut().zip(row) {
        *sum = s.add_words(*sum, s.words(errors));
    }
}
