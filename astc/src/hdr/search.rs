//! Endpoints and offset of a block with one weight a texel.
//!
//! With a free offset only the range and the curvature of the levels matter. A line fit gives the
//! range; the same range is then placed at several heights of the logarithmic scale, where it is
//! more or less curved and falls differently on the endpoint grid, and the best place is improved
//! code by code. With a fixed offset the ends are tried at several fractions of the span instead.
//! Every trial is scored on the texels that the decoder returns.

use super::lanes::{Lanes, Line, fit_line, score};
use super::levels::{Code, EndGrid, Family, MAX_LEVELS, levels, logarithmic};
use crate::encode::config::Config;
use crate::simd::Level;

/// A block configuration with what the search derives from it.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) config: Config,
    grid: EndGrid,
    /// Places of the levels between the ends, 0 to 1.
    steps: Vec<f32>,
}

/// Endpoints of each partition and the block's offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) codes: [Code; 2],
    pub(super) offset: f32,
    /// Squared error before the offset is rounded to fp16.
    pub(super) error: f32,
}

/// Whether the offset may move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Anchor {
    /// Starts here and goes to the mean of the residuals.
    Free(f32),
    /// Stays here.
    Fixed(f32),
}

/// Ends cut from each side of the weights' range, in ranges, where line fits start.
const LINE_STARTS: [(f32, f32); 4] = [(0.0, 0.0), (0.12, 0.12), (0.0, 0.2), (0.2, 0.0)];
const LINE_ROUNDS: usize = 6;
/// Line fits that are placed on the endpoint grid.
const LINES_PLACED: usize = 3;
/// Lowest texel in ranges of the texels: from curved to almost straight levels.
const PLACES: [f32; 12] = [0.35, 0.45, 0.6, 0.7, 0.85, 0.95, 1.1, 1.3, 1.5, 1.8, 2.5, 3.5];
/// The same for two partitions, in ranges of the wider one.
const PAIR_PLACES: [f32; 10] = [0.35, 0.5, 0.7, 0.9, 1.2, 1.6, 2.1, 2.8, 3.7, 5.0];
/// Fractions of the span for the ends under a fixed offset.
const LOW_FRACTIONS: [f32; 7] = [0.0, 0.03, 0.07, 0.13, 0.2, 0.3, 0.45];
const HIGH_FRACTIONS: [f32; 4] = [0.75, 0.85, 0.93, 1.0];
/// Moves of (base, top) in grid steps.
const MOVES: [(i32, i32); 6] = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1)];
const SWEEPS: usize = 6;
/// Error of two partitions, in errors of the best block so far, up to which single codes are
/// improved.
const WORTH_IMPROVING: f32 = 1.25;

impl Setup {
    pub(super) fn new(config: Config) -> Self {
        let grid = EndGrid::new(&config);
        let steps = config.steps.iter().map(|&step| f32::from(step) / 64.0).collect();
        Self { config, grid, steps }
    }

    /// Ranks of a code's stored values, and its texel values.
    pub(super) fn levels(&self, code: Code) -> Option<((u8, u8), [f32; MAX_LEVELS])> {
        let ranks = self.grid.ranks(code)?;
        Some((ranks, levels(&self.config, code.family.format(), ranks)))
    }

    /// The best endpoints and offset for one partition, `None` where all weights are equal.
    pub(super) fn fit_free(&self, level: Level, lanes: &Lanes) -> Option<Found> {
        let mut lines = LINE_STARTS.map(|start| self.line(level, lanes, start));
        lines.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut best = None;
        for (_, (low, high)) in lines.into_iter().take(LINES_PLACED) {
            let range = high - low;
            if range <= 0.0 {
                continue;
            }
            for place in PLACES {
                self.try_families(place * range, (1.0 + place) * range, |code| {
                    let Some((_, levels)) = self.levels(code) else { return };
                    let last = levels[self.steps.len() - 1];
                    let offset = 0.5 * (low + high - levels[0] - last);
                    self.take(level, &[lanes], [code; 2], Anchor::Free(offset), &mut best);
                });
            }
        }
        let mut found = best?;
        self.descend(level, &[lanes], true, &mut found);
        Some(found)
    }

    /// The best endpoints for one partition when the offset is given.
    pub(super) fn fit_fixed(&self, level: Level, lanes: &Lanes, offset: f32) -> Option<Found> {
        let (low, high) = (lanes.low - offset, lanes.high - offset);
        let mut best = None;
        for top in HIGH_FRACTIONS {
            for bottom in LOW_FRACTIONS {
                let at = |fraction: f32| low + (high - low) * fraction;
                self.try_families(at(bottom), at(top), |code| {
                    self.take(level, &[lanes], [code; 2], Anchor::Fixed(offset), &mut best);
                });
            }
        }
        let mut found = best?;
        self.descend(level, &[lanes], false, &mut found);
        Some(found)
    }

    /// The best endpoints and offset for two partitions; `None` where one of them is a single
    /// value, or where not even unquantised ends come below `bound`.
    pub(super) fn fit_pair(&self, level: Level, parts: [&Lanes; 2], bound: f32) -> Option<Found> {
        let lines = parts.map(|lanes| self.line(level, lanes, LINE_STARTS[0]));
        if lines[0].0 + lines[1].0 >= bound {
            return None;
        }
        let ends = lines.map(|(_, ends)| ends);
        let low = ends[0].0.min(ends[1].0);
        let range = (ends[0].1 - ends[0].0).max(ends[1].1 - ends[1].0);
        let mut best = None;
        for place in PAIR_PLACES {
            let offset = low - place * range;
            let nearest = |(low, high): (f32, f32)| {
                let (low, high) = (logarithmic(low - offset), logarithmic(high - offset));
                // A block names one endpoint mode for both partitions.
                Family::Wide.nearest(low, high)
            };
            if let (Some(first), Some(second)) = (nearest(ends[0]), nearest(ends[1])) {
                self.take(level, &parts, [first, second], Anchor::Free(offset), &mut best);
            }
        }
        let mut found = best.filter(|found| found.error < WORTH_IMPROVING * bound)?;
        self.descend(level, &parts, true, &mut found);
        Some(found)
    }

    /// Error and ends of a line fit that starts a little inside the weights' range.
    fn line(&self, level: Level, lanes: &Lanes, inset: (f32, f32)) -> (f32, (f32, f32)) {
        let range = lanes.high - lanes.low;
        let mut ends = (lanes.low + inset.0 * range, lanes.high - inset.1 * range);
        let mut best = (f32::INFINITY, ends);
        for _ in 0..LINE_ROUNDS {
            let Line { error, next } = fit_line(level, lanes, &self.steps, ends);
            if error >= best.0 {
                break;
            }
            best = (error, ends);
            match next {
                Some(next) => ends = next,
                None => break,
            }
        }
        best
    }

    /// Codes near texel values, of each family that reaches them.
    fn try_families(&self, low: f32, high: f32, mut take: impl FnMut(Code)) {
        let (low, high) = (logarithmic(low), logarithmic(high));
        let families: &[Family] = if high - low <= 31.0 {
            &[Family::Fine, Family::Wide]
        } else if high - low <= 126.0 {
            &[Family::Wide, Family::Direct, Family::Inset]
        } else {
            &[Family::Direct, Family::Inset]
        };
        for code in families.iter().filter_map(|family| family.nearest(low, high)) {
            take(code);
        }
    }

    /// Scores codes and keeps them if they are better.
    fn take(
        &self,
        level: Level,
        parts: &[&Lanes],
        codes: [Code; 2],
        anchor: Anchor,
        best: &mut Option<Found>,
    ) {
        if let Some((error, offset)) = self.measure(level, parts, codes, anchor)
            && best.is_none_or(|best| error < best.error)
        {
            *best = Some(Found { codes, offset, error });
        }
    }

    /// Error, and offset of that error; a free offset moves twice.
    fn measure(
        &self,
        level: Level,
        parts: &[&Lanes],
        codes: [Code; 2],
        anchor: Anchor,
    ) -> Option<(f32, f32)> {
        let mut tables = [[0.0; MAX_LEVELS]; 2];
        for (table, &code) in tables.iter_mut().zip(&codes[..parts.len()]) {
            *table = self.levels(code)?.1;
        }
        let count = self.steps.len();
        let total = |offset: f32| {
            let (mut error, mut residual, mut mass) = (0.0, 0.0, 0.0);
            for (lanes, table) in parts.iter().zip(&tables) {
                let part = score(level, lanes, &table[..count], offset);
                error += part.error;
                residual += part.residual;
                mass += lanes.mass;
            }
            (error, residual, residual / mass)
        };
        match anchor {
            Anchor::Fixed(offset) => Some((total(offset).0, offset)),
            Anchor::Free(start) => {
                let (_, _, shift) = total(start);
                let offset = start + shift;
                // The mean of the residuals is the best offset for the levels chosen.
                let (error, residual, shift) = total(offset);
                let offset = offset + shift;
                Some((error - residual * shift, offset))
            }
        }
    }

    /// Moves single codes while that helps.
    fn descend(&self, level: Level, parts: &[&Lanes], free: bool, found: &mut Found) {
        let stride = self.grid.stride;
        for _ in 0..SWEEPS {
            let before = found.error;
            for part in 0..parts.len() {
                for (base, top) in MOVES {
                    let mut codes = found.codes;
                    codes[part].base += base * stride;
                    codes[part].top += top * stride;
                    let anchor =
                        if free { Anchor::Free(found.offset) } else { Anchor::Fixed(found.offset) };
                    let mut best = Some(*found);
                    self.take(level, parts, codes, anchor, &mut best);
                    *found = best.expect("invariant: starts as Some");
                }
            }
            if found.error >= before {
                break;
            }
        }
    }
}
