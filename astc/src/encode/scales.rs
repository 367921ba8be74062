//! Row scales, chosen for each band of block rows by trial.
//!
//! A scale a_r = K·σ_r lets K standard deviations of row r span the texel range. Small K spends
//! the levels on the bulk and clips the tail; large K does the reverse. The best K depends on the
//! tail, so a few values are tried on a sample of the band's blocks: coding error of the sample,
//! extrapolated, plus the exact clipping error of all weights. All rows of a band share K: blocks
//! span its rows, and rows of unlike spread would spoil each other's endpoints.

use half::f16;

use super::block::{Frame, Window, WindowImportance, unit_of};
use super::coarse::CoarseTexels;
use super::rank::BATCH;
use super::search::Searcher;
use super::{Importance, NativeEncoder};
use crate::row_scale::full_range_scale;
use crate::simd::{Level, Simd, dispatch};

/// First K tried: near the optimum of a Gaussian at 6x6.
const FIRST_SPAN: f32 = 2.75;
/// Ratio of neighbouring K.
const SPAN_RATIO: f32 = 1.12;
/// Most steps from the first K, either way.
const MAX_STEPS: i32 = 12;
/// Error of a K, relative to the first, at which it takes over.
const CLEARLY_BETTER: f64 = 0.99;
/// The same between scales of different kinds, whose errors differ more from sample to sample.
const MUCH_BETTER: f64 = 0.94;
/// A weight of more standard deviations is an outlier: its row is never clipped.
const OUTLIER: f32 = 10.0;
/// Mean magnitude of a Gaussian times this is its standard deviation; unlike the root mean square
/// it hardly moves when one weight is huge.
const SIGMA_OF_MEAN_ABS: f32 = 1.253_314_1;

/// The rows of one band.
pub(super) struct Band<'a> {
    pub(super) weights: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) importance: Importance<'a>,
}

/// Spread and largest magnitude of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowSpread {
    sigma: f32,
    max_abs: f32,
}

impl NativeEncoder {
    pub(super) fn band_scales(&mut self, band: &Band<'_>, scales: &mut [f16]) {
        let spreads: Vec<RowSpread> =
            band.weights.chunks_exact(band.cols).map(|row| spread(self.level, row)).collect();
        let full_span = spreads
            .iter()
            .map(|row| row.max_abs / row.sigma.max(f32::MIN_POSITIVE))
            .fold(0.0, f32::max);
        if full_span > OUTLIER {
            let wide: Vec<f16> = spreads.iter().map(|row| scale_of(row, full_span)).collect();
            let single = |row: &RowSpread| {
                let outlier = row.max_abs > OUTLIER * row.sigma;
                if outlier { full_scale(row) } else { scale_of(row, FIRST_SPAN) }
            };
            let single: Vec<f16> = spreads.iter().map(single).collect();
            let full: Vec<f16> = spreads.iter().map(full_scale).collect();
            self.take_best(band, &[single, wide, full], scales);
            return;
        }
        let at = |step: i32| -> Vec<f16> {
            let span = FIRST_SPAN * SPAN_RATIO.powi(step);
            spreads.iter().map(|row| scale_of(row, span)).collect()
        };
        let mut best = (self.trial(band, &at(0)), 0);
        for direction in [1, -1] {
            for distance in 1..=MAX_STEPS {
                let step = direction * distance;
                if direction == 1 && FIRST_SPAN * SPAN_RATIO.powi(step - 1) > full_span {
                    break;
                }
                let error = self.trial(band, &at(step));
                // The first K stands unless another is clearly better: a sample is noisy.
                if error >= best.0 * if best.1 == 0 { CLEARLY_BETTER } else { 1.0 } {
                    break;
                }
                best = (error, step);
            }
            if best.1 > 0 {
                break;
            }
        }
        scales.copy_from_slice(&at(best.1));
    }

    /// Copies the candidate with the least estimated error; one that comes later has to be clearly
    /// better, as a sample is noisy.
    fn take_best<const N: usize>(
        &mut self,
        band: &Band<'_>,
        candidates: &[Vec<f16>; N],
        scales: &mut [f16],
    ) {
        let mut least = f64::INFINITY;
        for candidate in candidates {
            let error = self.trial(band, candidate);
            if error < least * MUCH_BETTER {
                least = error;
                scales.copy_from_slice(candidate);
            }
        }
    }

    /// Estimated squared error of the band, importance included.
    fn trial(&mut self, band: &Band<'_>, scales: &[f16]) -> f64 {
        let width = self.footprint.width();
        let blocks = band.cols.div_ceil(width);
        let sample = blocks.min((blocks / self.trial.every).clamp(8, self.trial.most));
        let frame = Frame::new(self.footprint, scales);
        let windows = (0..sample).map(|number| band.window(number * blocks / sample, width));
        if let Some(coarse) = &mut self.coarse {
            // Clipping is part of this error, so it is not added.
            for window in windows {
                coarse.push(CoarseTexels::new(self.footprint, &frame, &window));
            }
            return coarse.estimate();
        }
        let searcher = Searcher {
            level: self.level,
            mode: self.mode,
            patterns: &self.patterns,
            stages: &self.trial_stages,
            finish: self.trial.finish,
            texels: self.footprint.texels(),
        };
        let mut coding = 0.0;
        for first in (0..sample).step_by(BATCH) {
            self.batch.clear();
            for window in windows.clone().skip(first).take(BATCH) {
                self.batch.push(&frame, &window, true);
            }
            coding += searcher.estimate(&self.batch, &mut self.scratch);
        }
        coding * blocks as f64 / sample as f64 + band.clipping_error(self.level, scales)
    }
}

impl<'a> Band<'a> {
    /// The window of block column `block`.
    pub(super) fn window(&self, block: usize, width: usize) -> Window<'a> {
        let start = block * width;
        let cols = width.min(self.cols - start);
        let importance = match self.importance {
            Importance::Equal => WindowImportance::Equal,
            Importance::Columns(columns) => {
                WindowImportance::Columns(&columns[start..start + cols])
            }
            Importance::Weights(factors) => WindowImportance::Weights(&factors[start..]),
        };
        Window {
            weights: &self.weights[start..],
            stride: self.cols,
            rows: self.rows,
            cols,
            importance,
        }
    }

    fn clipping_error(&self, level: Level, scales: &[f16]) -> f64 {
        let mut error = 0.0;
        for (row, (weights, scale)) in self.weights.chunks_exact(self.cols).zip(scales).enumerate()
        {
            let factors = match self.importance {
                Importance::Equal => None,
                Importance::Columns(columns) => Some(columns),
                Importance::Weights(factors) => Some(&factors[row * self.cols..][..self.cols]),
            };
            let unit = factors.map_or(1.0, unit_of);
            let scaled: Option<Vec<f32>> = factors
                .filter(|_| unit != 1.0)
                .map(|factors| factors.iter().map(|factor| factor / unit).collect());
            let factors = scaled.as_deref().or(factors);
            let clipped = row_clipping_error(level, weights, factors, scale.to_f32());
            error += clipped * f64::from(unit);
        }
        error
    }
}

dispatch! {
    /// Σ factor·(|w| - scale)² over the weights past the scale.
    fn row_clipping_error = row_clipping_error_with(
        weights: &[f32],
        factors: Option<&[f32]>,
        scale: f32,
    ) -> f64
}

#[inline(always)]
fn row_clipping_error_with<S: Simd>(
    s: S,
    weights: &[f32],
    factors: Option<&[f32]>,
    scale: f32,
) -> f64 {
    let mut lanes = [0.0_f32; 8];
    let excess = |weight: f32| (weight.abs() - scale).max(0.0);
    let (chunks, rest) = weights.as_chunks::<8>();
    let tail = padded(rest);
    let Some(factors) = factors else {
        for chunk in chunks.iter().chain([&tail]) {
            for lane in 0..8 {
                lanes[lane] += excess(chunk[lane]) * excess(chunk[lane]);
            }
        }
        return s.horizontal_sum(s.floats(&lanes)).into();
    };
    let (factor_chunks, factor_rest) = factors.as_chunks::<8>();
    let factor_tail = padded(factor_rest);
    let factors = factor_chunks.iter().chain([&factor_tail]);
    for (chunk, factors) in chunks.iter().chain([&tail]).zip(factors) {
        for lane in 0..8 {
            lanes[lane] += factors[lane] * (excess(chunk[lane]) * excess(chunk[lane]));
        }
    }
    s.horizontal_sum(s.floats(&lanes)).into()
}

dispatch! {
    fn spread = spread_with(weights: &[f32]) -> RowSpread
}

#[inline(always)]
fn spread_with<S: Simd>(_: S, weights: &[f32]) -> RowSpread {
    let mut sums = [0.0_f64; 8];
    let mut largest = [0.0_f32; 8];
    let (chunks, rest) = weights.as_chunks::<8>();
    let tail = padded(rest);
    for chunk in chunks.iter().chain([&tail]) {
        for lane in 0..8 {
            sums[lane] += f64::from(chunk[lane].abs());
            largest[lane] = largest[lane].max(chunk[lane].abs());
        }
    }
    let mean = sums.iter().sum::<f64>() / weights.len() as f64;
    RowSpread {
        sigma: mean as f32 * SIGMA_OF_MEAN_ABS,
        max_abs: largest.into_iter().fold(0.0, f32::max),
    }
}

/// A last, partial group of lanes with zeros behind it.
#[inline(always)]
fn padded(rest: &[f32]) -> [f32; 8] {
    let mut lanes = [0.0; 8];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// The scale with which nothing clips.
fn full_scale(row: &RowSpread) -> f16 {
    full_range_scale(row.max_abs)
}

/// span·σ in f16, at most the largest f16 and 0 for a row that f16 cannot hold.
fn scale_of(row: &RowSpread, span: f32) -> f16 {
    if row.max_abs < f16::MIN_POSITIVE_SUBNORMAL.to_f32() {
        return f16::ZERO;
    }
    let scale = (row.sigma * span).min(f16::MAX.to_f32());
    f16::from_f32(scale).max(f16::MIN_POSITIVE_SUBNORMAL)
}
