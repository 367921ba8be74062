//! Endpoint search by table: the error of a texel under every endpoint pair is a table row, the
//! error of a subset is a sum of rows, and the best pair is the smallest lane.
//!
//! Texels are whole steps (some way past either end, for weights that clip) and errors 16-bit
//! integers, scaled so that a whole block cannot
//! overflow; the decision is approximate only in that rounding, and equal on every machine.

use super::chunk::{Chunk, LANES, Line, by_shape};
use super::config::{Config, decoded_level};
use super::patterns::{PADDING_TEXEL, Pattern};
use crate::DecodeMode;
use crate::simd::{Aligned, Simd, dispatch};

/// Most vectors of a row.
const MAX_VECTORS: usize = 12;
/// Steps below 0 and above 255 that rows cover.
const MARGIN: usize = 64;
/// Rows of a table for texels that count.
const ROWS: usize = 256 + 2 * MARGIN;
/// Row of a texel without importance: no error under any pair.
pub(super) const FREE_ROW: u16 = ROWS as u16;
/// Texels that the search arrays hold: a power of two, so that indices need no check.
pub(super) const SEARCH_TEXELS: usize = 64;
/// Rows of a block's scratch: those of its texels, and rows of zeros for padding.
const SEARCH_ROWS: usize = 128;

/// Errors of all texel positions under a list of endpoint pairs.
#[derive(Debug, Clone)]
pub(super) struct PairTable {
    /// Low and high end of each pair, in the table's 0..=255 coordinates.
    pub(super) pairs: Vec<(f32, f32)>,
    /// Vectors a row.
    vectors: usize,
    /// [`ROWS`] and the free row, each of [`stride`] vectors.
    rows: Vec<Line>,
    /// Indices of each pair's ends in the configuration's endpoint values; empty if stretched.
    pub(super) ends: Vec<(u8, u8)>,
    /// Number of the level nearest to the texel of each row, [`ROWS`] a pair.
    nearest: Vec<u8>,
    /// Table units for one squared texel step (1/255)².
    pub(super) unit: f32,
}

/// Texels of one block as the table sees them.
#[derive(Debug, Clone)]
pub(super) struct Positions {
    /// [`row_of`] each texel, or [`FREE_ROW`].
    pub(super) rows: [u16; SEARCH_TEXELS],
    /// Importance over the block's largest, times 32767; unused if `uniform`.
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

/// Where stretched pairs put their ends, in level spacings inside the range.
const STRETCHED_OFFSETS: [f32; 7] = [-0.3, -0.1, 0.1, 0.25, 0.4, 0.55, 0.75];
/// Largest distance from a level that is told from larger ones: half a spacing of the widest pair,
/// and some more for texels that clip or lie outside their pair.
fn reach(levels: usize) -> f32 {
    let half = 127.5 / (levels - 1) as f32;
    half + (4.0 * half).min(38.0)
}

/// The row of a position in texel steps.
#[inline(always)]
pub(super) fn row_of(position: f32) -> u16 {
    rounded((position + MARGIN as f32).max(0.0).min((ROWS - 1) as f32)) as u16
}

/// Nearest integer, ties to even, of a number from 0 to 2^22: adding 2^23 leaves it in the low
/// bits of the mantissa, which costs less than a conversion.
#[inline(always)]
pub(super) fn rounded(value: f32) -> u32 {
    (value + 8_388_608.0).to_bits() & 0x3F_FFFF
}

impl PairTable {
    /// All pairs of a configuration's endpoint values, low below high by `least_gap` values or
    /// more (or as far as there are so many).
    ///
    /// `None` where they are more than 192: those endpoints are fine enough to be fitted.
    pub(super) fn exact(
        config: &Config,
        mode: DecodeMode,
        texels: usize,
        least_gap: usize,
    ) -> Option<Self> {
        let grid = &config.endpoints;
        if grid.len() * (grid.len() - 1) / 2 > MAX_VECTORS * LANES {
            return None;
        }
        let last = grid.len() as u8 - 1;
        let gap = (least_gap as u8).min(last / 3).max(1);
        let mut ends = Vec::new();
        for low in 0..=last - gap {
            for high in low + gap..=last {
                ends.push((low, high));
            }
        }
        if ends.len() == 4 * LANES + 2 {
            // The two narrowest, outermost pairs would cost a whole vector for next to nothing.
            ends.retain(|&pair| pair != (0, 1) && pair != (last - 1, last));
        }
        let value = |index: u8| grid[usize::from(index)];
        let levels: Vec<Vec<f32>> = ends
            .iter()
            .map(|&(low, high)| {
                let level = |&step: &u8| decoded_level(mode, value(low), value(high), step);
                config.steps.iter().map(level).collect()
            })
            .collect();
        let pairs =
            ends.iter().map(|&(low, high)| (value(low).into(), value(high).into())).collect();
        Some(Self { ends, ..Self::new(pairs, &levels, texels) })
    }

    /// Pairs around the ends of a range that was stretched to 0..=255, for endpoints that are
    /// fine enough to be placed freely.
    pub(super) fn stretched(config: &Config, texels: usize) -> Self {
        let levels = config.steps.len();
        let step = 255.0 / (levels - 1) as f32;
        let mut pairs = Vec::new();
        for low in STRETCHED_OFFSETS {
            for high in STRETCHED_OFFSETS {
                pairs.push((step * low, 255.0 - step * high));
            }
        }
        // One too many for three vectors; the least likely goes.
        pairs.pop();
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
        Self::new(pairs, &values, texels)
    }

    fn new(pairs: Vec<(f32, f32)>, levels: &[Vec<f32>], texels: usize) -> Self {
        // The search walks a row in chunks of three or four vectors.
        let wanted = pairs.len().div_ceil(LANES);
        let vectors = wanted.next_multiple_of(if wanted <= 3 { 3 } else { 4 });
        let cap = (65535 / texels) as f32;
        let reach = reach(levels[0].len());
        let unit = cap / (reach * reach);
        let position = |row: usize| row as f32 - MARGIN as f32;
        let mut nearest = Vec::with_capacity(ROWS * levels.len());
        for levels in levels {
            nearest.extend((0..ROWS).map(|row| nearest_level(levels, position(row)).0));
        }
        let lines = vectors.div_ceil(2);
        let mut rows = Vec::with_capacity((ROWS + 1) * lines);
        for number in 0..ROWS {
            let mut row = vec![cap as u16; lines * 2 * LANES];
            for (error, levels) in row.iter_mut().zip(levels) {
                let (_, distance) = nearest_level(levels, position(number));
                *error = (distance * unit + 0.5).min(cap) as u16;
            }
            let (vectors, _) = row.as_chunks();
            rows.extend(vectors.as_chunks().0.iter().copied().map(Aligned));
        }
        rows.resize((ROWS + 1) * lines, Aligned([[0; LANES]; 2]));
        Self { pairs, vectors, rows, unit, ends: Vec::new(), nearest }
    }

    /// Number of the level of `pair` nearest to a texel; 0 for one without importance.
    pub(super) fn nearest(&self, pair: usize, row: u16) -> u8 {
        if row == FREE_ROW { 0 } else { self.nearest[ROWS * pair + usize::from(row)] }
    }
}

/// Number of the nearest of ascending levels, the first of equals, and the squared distance.
fn nearest_level(levels: &[f32], position: f32) -> (u8, f32) {
    let mut best = (0, f32::MAX);
    for (number, level) in (0..).zip(levels) {
        let distance = (position - level) * (position - level);
        if distance < best.1 {
            best = (number, distance);
        }
    }
    best
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
    by_shape!(table.vectors, best_pair_in(s, table, positions, texels))
}

#[inline(always)]
fn best_pair_in<S: Simd, const W: usize, const N: usize, const CHUNKS: usize>(
    s: S,
    table: &PairTable,
    positions: &Positions,
    texels: &[u8],
) -> (usize, u16) {
    let lines = Chunk::<S, W, N>::LINES;
    let mut best = (0, u16::MAX);
    for chunk in 0..CHUNKS {
        let mut sums = Chunk::<S, W, N>::splat(s, 0);
        for &texel in texels {
            let texel = usize::from(texel) % SEARCH_TEXELS;
            let row = usize::from(positions.rows[texel]) * CHUNKS + chunk;
            let mut errors = Chunk::load(s, &table.rows[lines * row..][..lines]);
            if !positions.uniform {
                errors.scale(s, positions.importance[texel]);
            }
            sums.add(s, errors);
        }
        let least = s.horizontal_min(sums.fold(s, s.splat_word(u16::MAX)));
        if least < best.1 {
            let lane = sums.first_equal(s, least).unwrap_or(0);
            best = (chunk * lines * 2 * LANES + lane, least);
        }
    }
    (best.0.min(table.pairs.len() - 1), best.1)
}

/// Rows of one block, weighted by importance: chunk, then texel, then vector.
#[derive(Debug)]
pub(super) struct BlockRows(Vec<Line>);

impl Default for BlockRows {
    fn default() -> Self {
        Self(vec![Aligned([[0; LANES]; 2]); MAX_VECTORS / 2 * SEARCH_ROWS])
    }
}

dispatch! {
    /// The best of the `candidates` (indices into `patterns`) for one block, ties to the first.
    fn search = search_with(
        table: &PairTable,
        patterns: &[Pattern],
        candidates: &[u16],
        positions: &Positions,
        texels: usize,
        scratch: &mut BlockRows,
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
    scratch: &mut BlockRows,
) -> Found {
    by_shape!(
        table.vectors,
        search_rows(s, table, patterns, candidates, positions, texels, scratch)
    )
}

/// [`search`] for rows of `CHUNKS` chunks.
#[inline(always)]
fn search_rows<S: Simd, const W: usize, const N: usize, const CHUNKS: usize>(
    s: S,
    table: &PairTable,
    patterns: &[Pattern],
    candidates: &[u16],
    positions: &Positions,
    texels: usize,
    scratch: &mut BlockRows,
) -> Found {
    let lines = Chunk::<S, W, N>::LINES;
    debug_assert_eq!(table.vectors.div_ceil(2), lines * CHUNKS);
    let mut totals = [Chunk::<S, W, N>::splat(s, 0); CHUNKS];
    let (rows, _) = scratch.0.split_at_mut(CHUNKS * SEARCH_ROWS * lines);
    for (chunk, totals) in totals.iter_mut().enumerate() {
        let rows = &mut rows[chunk * SEARCH_ROWS * lines..];
        fill_rows(s, table, chunk, positions, &mut rows[..texels * lines], totals);
        rows[usize::from(PADDING_TEXEL) * lines..][..lines].fill(Aligned([[0; LANES]; 2]));
    }
    let rows = &*rows;
    let mut found = Found { error: u16::MAX, candidate: 0 };
    for (candidate, &index) in candidates.iter().enumerate() {
        let subsets = &patterns[usize::from(index)].subsets;
        let (last, others) = subsets.split_last().expect("invariant: a pattern has subsets");
        debug_assert!(others.iter().all(|subset| subset.texels.len() <= last.texels.len()));
        let mut rest = totals;
        let mut error = 0_u16;
        // The last subset, the largest, is what the others leave.
        for subset in others {
            let mut least = s.splat_word(u16::MAX);
            for (chunk, rest) in rest.iter_mut().enumerate() {
                let mut sums = Chunk::<S, W, N>::splat(s, 0);
                for &texel in &subset.level {
                    let row = chunk * SEARCH_ROWS + usize::from(texel) % SEARCH_ROWS;
                    sums.add(s, Chunk::load(s, &rows[lines * row..][..lines]));
                }
                least = sums.fold(s, least);
                rest.subtract(s, sums);
            }
            error = error.saturating_add(s.horizontal_min(least));
        }
        let mut least = s.splat_word(u16::MAX);
        for rest in rest {
            least = rest.fold(s, least);
        }
        error = error.saturating_add(s.horizontal_min(least));
        if error < found.error {
            found = Found { error, candidate };
        }
    }
    found
}

/// One chunk of the rows of a block's texels, weighted by importance, and their sum.
#[inline(always)]
fn fill_rows<S: Simd, const W: usize, const N: usize>(
    s: S,
    table: &PairTable,
    chunk: usize,
    positions: &Positions,
    out: &mut [Line],
    totals: &mut Chunk<S, W, N>,
) {
    let lines = Chunk::<S, W, N>::LINES;
    for (texel, out) in out.chunks_exact_mut(lines).enumerate() {
        let row = usize::from(positions.rows[texel]) * table.vectors.div_ceil(2) + chunk * lines;
        let mut errors = Chunk::load(s, &table.rows[row..][..lines]);
        if !positions.uniform {
            errors.scale(s, positions.importance[texel]);
        }
        errors.store(s, out);
        totals.add(s, errors);
    }
}
