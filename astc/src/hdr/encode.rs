//! The encoder: texels of each block, the configurations in turn, the best block.

use half::f16;

use super::block::Coded;
use super::coarse::CoarseSearch;
use super::lanes::{BlockTexels, Lanes};
use super::rank::Ranges;
use super::search::Setup;
use super::{Place, check_offsets, gridded};
use crate::encode::check_length;
use crate::encode::config::Config;
use crate::encode::patterns::{PADDING_TEXEL, Pattern, Patterns};
use crate::simd::Level;
use crate::{BlockGrid, Error, Footprint};

/// How a block's offset is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HdrOffset {
    /// Together with the endpoints, for the least squared error.
    #[default]
    Fitted,
    /// The block's minimum, rounded down to fp16 so that no texel is negative, as in the published
    /// system. The endpoints are still fitted to the linear squared error.
    Minimum,
}

/// Encodes weights into HDR blocks and offsets; one a thread, it keeps tables and scratch memory.
///
/// The result does not depend on the thread, on earlier calls or on the instruction set.
/// Footprints of more than 64 texels, whose weight grids are coarser than the block, use one
/// partition and the largest grid.
#[derive(Debug)]
pub struct HdrEncoder {
    footprint: Footprint,
    offset: HdrOffset,
    level: Level,
    search: Search,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one an encoder")]
enum Search {
    Full(FullSearch),
    Coarse(CoarseSearch),
}

/// A weight a texel.
#[derive(Debug)]
struct FullSearch {
    single: Setup,
    whole: Pattern,
    pairs: Vec<Setup>,
    patterns: Patterns,
    ranges: Ranges,
}

/// Patterns fitted a configuration of two partitions.
const PATTERNS_FITTED: usize = 4;
/// Configurations of two partitions tried, from the most weight levels down.
const PAIR_CONFIGS: usize = 2;
/// Fewest endpoint levels: exponents cannot be told apart with fewer than this.
const FEWEST_ENDS: usize = 12;
/// Least share of texels in each subset, of an even split.
const LEAST_SHARE: f64 = 0.2;
/// Part of the weights' range beyond which rounding the offset to fp16 may matter.
const ROUNDING_LIMIT: f32 = 1.0 / 256.0;

impl HdrEncoder {
    /// An encoder for `footprint`, with its tables.
    pub fn new(footprint: Footprint, offset: HdrOffset) -> Self {
        let search = if footprint.texels() > 64 {
            Search::Coarse(CoarseSearch::new(footprint))
        } else {
            Search::Full(FullSearch::new(footprint))
        };
        Self { footprint, offset, level: Level::detect(), search }
    }

    /// Encodes `rows` x `cols` weights, row-major, into blocks in raster order and one offset a
    /// block in the same order. Texels past the right or lower edge do not count.
    ///
    /// `rows` must be a multiple of the footprint's height unless these are the last rows of the
    /// matrix.
    ///
    /// # Errors
    /// [`Error::Length`] if `w` is not rows·cols long, `blocks` not [`BlockGrid::byte_len`] or
    /// `offsets` not [`BlockGrid::block_count`]; [`Error::NotFinite`]; [`Error::HdrRange`] where
    /// the weights of a block are past ±65504 or further than 65504 apart.
    pub fn encode_rows(
        &mut self,
        w: &[f32],
        rows: usize,
        cols: usize,
        blocks: &mut [u8],
        offsets: &mut [f16],
    ) -> Result<(), Error> {
        let grid = BlockGrid::new(rows, cols, self.footprint);
        check_length("weights", w.len(), rows * cols, &grid)?;
        check_offsets(&grid, blocks.len(), offsets.len())?;
        if let Some(index) = w.iter().position(|weight| !weight.is_finite()) {
            return Err(Error::NotFinite { row: index / cols, col: index % cols, value: w[index] });
        }
        for (place, (block, offset)) in gridded(&grid)
            .zip(blocks.as_chunks_mut::<{ BlockGrid::BLOCK_BYTES }>().0.iter_mut().zip(offsets))
        {
            let window = Window::new(&grid, w, place)?;
            let coded = self.encode_block(&window);
            (*block, *offset) = (coded.bits.to_le_bytes(), coded.offset);
        }
        Ok(())
    }

    fn encode_block(&mut self, window: &Window<'_>) -> Coded {
        match &mut self.search {
            Search::Full(search) => {
                let block = window.texels(self.footprint);
                search.encode(self.level, self.footprint.texels(), self.offset, &block)
            }
            Search::Coarse(search) => search.encode(self.offset, window),
        }
    }
}

/// The existing weights of one block.
#[derive(Debug)]
pub(super) struct Window<'a> {
    weights: &'a [f32],
    cols: usize,
    pub(super) rows: usize,
    pub(super) width: usize,
}

impl<'a> Window<'a> {
    fn new(grid: &BlockGrid, w: &'a [f32], place: Place) -> Result<Self, Error> {
        let Place { row, col } = place;
        let window = Self {
            weights: &w[row * grid.cols + col..],
            cols: grid.cols,
            rows: grid.footprint.height().min(grid.rows - row),
            width: grid.footprint.width().min(grid.cols - col),
        };
        let (low, high) = window.range();
        let largest = f16::MAX.to_f32();
        if low < -largest || high > largest || high - low > largest {
            return Err(Error::HdrRange { row, col, low, high });
        }
        Ok(window)
    }

    /// Rows of weights that exist.
    pub(super) fn rows(&self) -> impl Iterator<Item = &'a [f32]> {
        let (weights, width) = (self.weights, self.width);
        (0..self.rows).map(move |row| row * self.cols).map(move |at| &weights[at..at + width])
    }

    /// Smallest and largest weight.
    pub(super) fn range(&self) -> (f32, f32) {
        self.rows().flatten().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &weight| {
            (low.min(weight), high.max(weight))
        })
    }

    fn texels(&self, footprint: Footprint) -> BlockTexels {
        let mut block = BlockTexels { value: [0.0; 65], importance: [0.0; 65] };
        for (row, weights) in self.rows().enumerate() {
            let at = row * footprint.width();
            block.value[at..at + weights.len()].copy_from_slice(weights);
            block.importance[at..at + weights.len()].fill(1.0);
        }
        block
    }
}

/// The largest fp16 that is not above `value`, for values in its range.
pub(super) fn rounded_down(value: f32) -> f16 {
    let nearest = f16::from_f32(value);
    if nearest.to_f32() <= value {
        return nearest;
    }
    // The next one towards minus infinity; the bits of a positive number count up, of a negative
    // one down.
    match nearest.to_bits() {
        0 | 0x8000 => f16::from_bits(0x8001),
        bits if bits >> 15 == 0 => f16::from_bits(bits - 1),
        bits => f16::from_bits(bits + 1),
    }
}

impl FullSearch {
    fn new(footprint: Footprint) -> Self {
        let configs = |partitions: usize| {
            (2..=32)
                .rev()
                .filter_map(move |levels| Config::new(footprint, partitions, levels))
                .filter(|config| config.endpoints.len() >= FEWEST_ENDS)
        };
        let single = configs(1).next().expect("invariant: every footprint up to 8x8 has one");
        let pairs = configs(2).take(PAIR_CONFIGS).map(Setup::new).collect();
        let patterns = Patterns::new(footprint, [true, true, false, false], LEAST_SHARE);
        Self {
            single: Setup::new(single),
            whole: patterns.by_count[0][0].clone(),
            pairs,
            patterns,
            ranges: Ranges::default(),
        }
    }

    fn encode(
        &mut self,
        level: Level,
        texels: usize,
        policy: HdrOffset,
        block: &BlockTexels,
    ) -> Coded {
        let lanes = Lanes::gather(block, &self.whole.subsets[0].padded);
        let minimum = rounded_down(lanes.low);
        let fixed = |offset: f16| {
            let found = self.single.fit_fixed(level, &lanes, offset.to_f32());
            found.and_then(|found| self.single.finish(&self.whole, block, texels, &found))
        };
        let at_minimum =
            || fixed(minimum).expect("invariant: ends that reach every texel always exist");
        if policy == HdrOffset::Minimum {
            return at_minimum();
        }
        let free = self
            .single
            .fit_free(level, &lanes)
            .and_then(|found| self.single.finish(&self.whole, block, texels, &found));
        let Some(mut best) = free else { return at_minimum() };
        // Far from zero an fp16 offset is coarser than the texels; it has to come first there.
        let spacing = best.offset.to_f32().abs() * f16::EPSILON.to_f32();
        if spacing > ROUNDING_LIMIT * (lanes.high - lanes.low) {
            for offset in [best.offset, minimum] {
                best = better(best, fixed(offset));
            }
        }
        if best.error > 0.0 {
            best = self.encode_pairs(level, texels, block, best);
        }
        best
    }

    fn encode_pairs(
        &mut self,
        level: Level,
        texels: usize,
        block: &BlockTexels,
        mut best: Coded,
    ) -> Coded {
        let patterns = &self.patterns.by_count[1];
        for &(_, index) in self.ranges.best(&self.patterns, block, PATTERNS_FITTED) {
            let pattern = &patterns[index];
            let [first, second] = [0, 1].map(|n| Lanes::gather(block, &pattern.subsets[n].padded));
            for setup in &self.pairs {
                if let Some(found) = setup.fit_pair(level, [&first, &second], best.error)
                    && found.error < best.error
                {
                    best = better(best, setup.finish(pattern, block, texels, &found));
                }
            }
        }
        best
    }
}

fn better(best: Coded, other: Option<Coded>) -> Coded {
    match other {
        Some(other) if other.error < best.error => other,
        _ => best,
    }
}

const _: () = assert!(PADDING_TEXEL == 64, "the last place of BlockTexels");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_down_never_rounds_up() {
        for (value, expected) in [
            (1.0, 0x3C00),
            (1.0 + f32::EPSILON, 0x3C00),
            (1.0 - f32::EPSILON, 0x3BFF),
            (-1.0 + f32::EPSILON, 0xBC00),
            (-1.0 - f32::EPSILON, 0xBC01),
            (-1e-10, 0x8001),
            (1e-10, 0),
            (65504.0, 0x7BFF),
            (-65504.0, 0xFBFF),
        ] {
            assert_eq!(rounded_down(value).to_bits(), expected, "{value}");
        }
    }
}
