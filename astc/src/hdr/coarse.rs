//! Footprints of more than 64 texels, whose weight grids are coarser than the block.
//!
//! A texel's weight is a bilinear mix of up to four stored ones. One partition; the largest grid of
//! two and of three levels. Weights and ends are first fitted in turn as for even levels, then the
//! ends are placed on the logarithmic scale as in `search`, and the weights are improved once
//! more, one at a time, exactly as the decoder mixes them.

use half::f16;

use super::HdrOffset;
use super::block::Coded;
use super::encode::{Window, rounded_down};
use super::levels::{Code, EndGrid, Family, interpolated, logarithmic, texel};
use crate::Footprint;
use crate::decode::hdr::luminance;
use crate::encode::config::Config;
use crate::tables::{Infill, InfillPoint};

/// Weight levels worth trying at less than 2 bits a texel.
const LEVELS: [u32; 2] = [2, 3];
/// Rounds of weights and ends in turn.
const ROUNDS: usize = 4;
/// Lowest texel in ranges of the texels.
const PLACES: [f32; 4] = [0.6, 1.1, 2.1, 4.2];
/// Fractions of the span for the ends under a fixed offset.
const LOW_FRACTIONS: [f32; 3] = [0.0, 0.15, 0.35];
const HIGH_FRACTIONS: [f32; 3] = [0.6, 0.8, 1.0];

#[derive(Debug)]
pub(super) struct CoarseSearch {
    footprint: Footprint,
    grids: Vec<Grid>,
}

#[derive(Debug)]
struct Grid {
    config: Config,
    ends: EndGrid,
    points: Vec<InfillPoint>,
    width: usize,
    /// Texels that each stored weight reaches, with its share of 16.
    reach: Vec<Vec<(usize, i32)>>,
}

/// Texels of a block: the weight, `None` past the matrix's edge.
type Texels = [Option<f32>; Footprint::MAX_TEXELS];

/// Stored weights under improvement.
#[derive(Debug, Clone)]
struct State {
    /// Index of each stored weight into the configuration's steps.
    steps: Vec<u8>,
    /// Sixteen times the weight of each texel.
    sums: [i32; Footprint::MAX_TEXELS],
}

/// Decoded weight at each interpolation weight 0..=64.
type Levels = [f32; 65];

impl CoarseSearch {
    pub(super) fn new(footprint: Footprint) -> Self {
        let grids = LEVELS
            .iter()
            .filter_map(|&levels| {
                let shapes = (2..=footprint.width())
                    .flat_map(|width| (2..=footprint.height()).map(move |height| (width, height)));
                shapes
                    .filter_map(|(width, height)| {
                        let config = Config::with_grid(width as u8, height as u8, 1, levels)?;
                        Some((width, height, config))
                    })
                    .max_by_key(|(width, height, _)| (width * height, *width))
            })
            .map(|(width, height, config)| Grid::new(footprint, width, height, config))
            .collect();
        Self { footprint, grids }
    }

    pub(super) fn encode(&self, policy: HdrOffset, window: &Window<'_>) -> Coded {
        let mut texels = [None; Footprint::MAX_TEXELS];
        for (row, weights) in window.rows().enumerate() {
            for (col, &weight) in weights.iter().enumerate() {
                texels[row * self.footprint.width() + col] = Some(weight);
            }
        }
        let minimum = rounded_down(window.range().0);
        let mean = mean(&texels);
        let mut best: Option<Coded> = None;
        for grid in &self.grids {
            let (state, ends) = grid.even_levels(&texels);
            let mut take = |code: Code, offset: f16| {
                let coded = grid.finish(&texels, &state, code, offset);
                if let Some(coded) = coded
                    && best.is_none_or(|best| coded.error < best.error)
                {
                    best = Some(coded);
                }
            };
            if policy == HdrOffset::Fitted {
                for (code, offset) in grid.placed(&texels, &state, ends) {
                    take(code, offset);
                }
            }
            for code in at_fixed_offset(window.range(), minimum) {
                take(code, minimum);
            }
            // One level at the mean: where a few weights outweigh all others, levels that a coarse
            // grid has to mix can be worse than none.
            let (offset, level) = match policy {
                HdrOffset::Fitted => (f16::from_f32(mean), 0.0),
                HdrOffset::Minimum => (minimum, mean - minimum.to_f32()),
            };
            if let Some(code) = Family::Fine.nearest(logarithmic(level), logarithmic(level)) {
                take(code, offset);
            }
        }
        best.expect("invariant: the mode of large range reaches every texel")
    }
}

/// Codes for an offset that is given.
fn at_fixed_offset(range: (f32, f32), offset: f16) -> impl Iterator<Item = Code> {
    let (low, high) = (range.0 - offset.to_f32(), range.1 - offset.to_f32());
    let at = move |fraction: f32| logarithmic(low + (high - low) * fraction);
    LOW_FRACTIONS.into_iter().flat_map(move |bottom| {
        HIGH_FRACTIONS
            .into_iter()
            .filter_map(move |top| Family::Direct.nearest(at(bottom), at(top)))
    })
}

impl Grid {
    fn new(footprint: Footprint, width: usize, height: usize, config: Config) -> Self {
        let points = Infill::new(footprint, width as u8, height as u8).points().to_vec();
        let mut reach = vec![Vec::new(); width * height];
        for (texel, point) in points.iter().enumerate() {
            for (index, share) in corners(point, width) {
                reach[index].push((texel, share));
            }
        }
        Self { ends: EndGrid::new(&config), config, points, width, reach }
    }

    /// Weights and ends for evenly spaced levels.
    fn even_levels(&self, texels: &Texels) -> (State, (f32, f32)) {
        let (mut state, mut ends) = self.start(texels);
        for _ in 0..ROUNDS {
            let (low, high) = ends;
            let levels = std::array::from_fn(|w| low + (high - low) * (w as f32 / 64.0));
            self.improve(&levels, texels, &mut state);
            match self.least_squares(texels, &state) {
                Some(better) => ends = better,
                None => break,
            }
        }
        (state, ends)
    }

    /// Ends at one deviation from the mean, every weight from the mean of the texels it reaches.
    fn start(&self, texels: &Texels) -> (State, (f32, f32)) {
        let existing = || texels.iter().flatten();
        let count = existing().count().max(1) as f32;
        let mean = mean(texels);
        let spread = (existing().map(|x| (x - mean) * (x - mean)).sum::<f32>() / count).sqrt();
        let top = (self.config.steps.len() - 1) as f32;
        let steps: Vec<u8> = self
            .reach
            .iter()
            .map(|reach| {
                let (mut mass, mut sum) = (0.0, 0.0);
                for &(texel, share) in reach {
                    if let Some(x) = texels[texel] {
                        mass += share as f32;
                        sum += share as f32 * (x - mean);
                    }
                }
                let place = if mass > 0.0 && spread > 0.0 { sum / mass / spread } else { 0.0 };
                ((place * 0.5 + 0.5).clamp(0.0, 1.0) * top + 0.5) as u8
            })
            .collect();
        let mut sums = [0; Footprint::MAX_TEXELS];
        for (sum, point) in sums.iter_mut().zip(&self.points) {
            *sum = corners(point, self.width)
                .map(|(index, share)| share * self.step(steps[index]))
                .sum();
        }
        (State { steps, sums }, (mean - spread, mean + spread))
    }

    fn step(&self, index: u8) -> i32 {
        self.config.steps[usize::from(index)].into()
    }

    /// One sweep over the stored weights; each takes its best step given the others.
    fn improve(&self, levels: &Levels, texels: &Texels, state: &mut State) {
        for (index, reach) in self.reach.iter().enumerate() {
            let present = self.step(state.steps[index]);
            let mut best = (f32::INFINITY, state.steps[index]);
            for (number, &step) in (0..).zip(&self.config.steps) {
                let change = i32::from(step) - present;
                let mut error = 0.0;
                for &(texel, share) in reach {
                    if let Some(x) = texels[texel] {
                        let away = x - level(levels, state.sums[texel] + share * change);
                        error += away * away;
                    }
                }
                if error < best.0 {
                    best = (error, number);
                }
            }
            let change = self.step(best.1) - present;
            state.steps[index] = best.1;
            for &(texel, share) in reach {
                state.sums[texel] += share * change;
            }
        }
    }

    /// The ends of evenly spaced levels that suit the weights best.
    fn least_squares(&self, texels: &Texels, state: &State) -> Option<(f32, f32)> {
        let [mut q, mut qu, mut quu, mut qx, mut qux] = [0.0_f32; 5];
        for (x, &sum) in texels.iter().zip(&state.sums) {
            let &Some(x) = x else { continue };
            let u = ((sum + 8) >> 4) as f32 / 64.0;
            q += 1.0;
            qu += u;
            quu += u * u;
            qx += x;
            qux += u * x;
        }
        let determinant = q * quu - qu * qu;
        if determinant <= 1e-6 * q * q {
            return None;
        }
        let slope = (q * qux - qu * qx) / determinant;
        let low = (qx - slope * qu) / q;
        Some((low.min(low + slope), low.max(low + slope)))
    }

    /// Codes with the range of `ends` at several heights, each with the mean residual for offset.
    fn placed(&self, texels: &Texels, state: &State, (low, high): (f32, f32)) -> Vec<(Code, f16)> {
        let range = high - low;
        let mut codes = Vec::new();
        for place in PLACES {
            let (low, high) = (logarithmic(place * range), logarithmic((1.0 + place) * range));
            for family in [Family::Wide, Family::Direct] {
                let Some(code) = family.nearest(low, high) else { continue };
                let Some(levels) = self.levels(code, 0.0) else { continue };
                let offset = f16::from_f32(mean_residual(&levels, texels, state));
                if offset.is_finite() {
                    codes.push((code, offset));
                }
            }
        }
        codes
    }

    /// Decoded weights of a code.
    fn levels(&self, code: Code, offset: f32) -> Option<Levels> {
        let ranks = self.ends.ranks(code)?;
        let [first, second] =
            [ranks.0, ranks.1].map(|rank| self.config.endpoints[usize::from(rank)]);
        let ends = luminance(code.family.format(), first, second);
        Some(std::array::from_fn(|weight| texel(interpolated(ends, weight as u8)) + offset))
    }

    fn finish(&self, texels: &Texels, state: &State, code: Code, offset: f16) -> Option<Coded> {
        let levels = self.levels(code, offset.to_f32())?;
        let mut state = state.clone();
        for _ in 0..2 {
            self.improve(&levels, texels, &mut state);
        }
        let error = texels
            .iter()
            .zip(&state.sums)
            .filter_map(|(x, &sum)| x.map(|x| x - level(&levels, sum)))
            .map(|away| away * away)
            .sum();
        let (first, second) = self.ends.ranks(code)?;
        let format = u128::from(code.family.format()) << 13;
        let bits = format | self.config.pack_grid(0, &[first, second], &state.steps);
        Some(Coded { bits, offset, error })
    }
}

/// Mean of the weights that exist.
fn mean(texels: &Texels) -> f32 {
    let existing = || texels.iter().flatten();
    existing().sum::<f32>() / existing().count().max(1) as f32
}

fn mean_residual(levels: &Levels, texels: &Texels, state: &State) -> f32 {
    let (mut sum, mut count) = (0.0, 0.0);
    for (x, &weight) in texels.iter().zip(&state.sums) {
        if let Some(x) = x {
            sum += x - level(levels, weight);
            count += 1.0;
        }
    }
    if count > 0.0 { sum / count } else { 0.0 }
}

/// The level at sixteen times a weight.
fn level(levels: &Levels, sum: i32) -> f32 {
    levels[((sum + 8) >> 4) as usize]
}

/// The stored weights around a texel and their shares of 16, none of them 0.
fn corners(point: &InfillPoint, width: usize) -> impl Iterator<Item = (usize, i32)> {
    let first = usize::from(point.first);
    [first, first + 1, first + width, first + width + 1]
        .into_iter()
        .zip(point.shares.map(i32::from))
        .filter(|&(_, share)| share > 0)
}
