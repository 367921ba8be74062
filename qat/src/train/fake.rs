//! One matrix of weights in training.

use half::f16;
use multiversion::multiversion;

use super::{AdamW, Levels, Step, Treatment};
use crate::{ScaleEma, newton};

/// How far inside the cell of its code a weight starts, in multiples of the scale: the codes of a
/// solution are what training starts from, but the original weight may lie in another cell.
const START_MARGIN: f32 = 0.1;
const LANES: usize = 16;

/// Latent weights, their scales, and the state of their optimiser.
///
/// The forward pass rounds to fp16 scales, as they will be stored, so that what is exported is what
/// was trained, bit for bit. Rates are in units of the matrix: a weight rate of 0.001 moves a
/// weight by at most about a thousandth of the root mean square of the weights a step, a scale
/// rate of 0.001 a scale by a thousandth of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct FakeGrid {
    levels: Levels,
    treatment: Treatment,
    /// Weights that a run of scales starts anew with: a row, or the whole matrix.
    run: usize,
    /// Weights that share a scale, at most a run.
    group: usize,
    /// Root mean square of the weights at the start.
    unit: f32,
    /// Latent weights.
    pub weights: Vec<f32>,
    /// Scales, run by run, not rounded.
    pub scales: Vec<f32>,
    /// Moving average of the weights; empty but for [`Treatment::Report`].
    pub average: Vec<f32>,
    /// The factor f of [`Treatment::Report`].
    pub factor: f32,
    /// Optimiser of the weights.
    pub weight_state: AdamW,
    /// Optimiser of the scales or of the factor; empty where they are not learnt.
    pub scale_state: AdamW,
    scale_gradients: Vec<f32>,
    /// Scales over the optimum as they start, for [`Treatment::Ema`]: 1 unless a solution chose
    /// others for what the layer does.
    ratios: Vec<f32>,
}

/// How fast a matrix moves in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of the weights, in multiples of their root mean square.
    pub weight: f32,
    /// Of learnt scales, in multiples of themselves.
    pub scale: f32,
    /// β of [`Treatment::Ema`].
    pub scale_decay: f32,
    /// Decay of the average of the weights of [`Treatment::Report`].
    pub average_decay: f32,
}

impl FakeGrid {
    /// Weights `w`, [rows, cols] row-major, with a scale for each `group` of a row of `run` weights:
    /// `run` is the number of columns, or of all weights for one scale a matrix. Scales start at the
    /// least-squares optimum.
    ///
    /// # Panics
    /// If `w` is not whole runs or `group` is zero.
    #[must_use]
    pub fn new(w: &[f32], run: usize, group: usize, levels: Levels, treatment: Treatment) -> Self {
        assert!(run > 0 && w.len().is_multiple_of(run) && group > 0, "whole runs");
        let (run, group) =
            if treatment == Treatment::Report { (w.len(), w.len()) } else { (run, group.min(run)) };
        let scales: Vec<f32> = groups(w, run, group).map(|w| levels.fit_scale(w)).collect();
        Self::with_scales(w.to_vec(), run, group, levels, treatment, scales)
    }

    /// Weights near the original ones `w` that round to `decoded`, a solution on the balanced grid
    /// with `scales`: each is moved into the cell of its code, and a run of zeros stays one whatever
    /// its scales. The rest is as in [`Self::new`].
    ///
    /// # Panics
    /// As [`Self::new`]; if there is not one decoded weight for each weight, or not one scale for
    /// each group.
    #[must_use]
    pub fn from_solution(
        w: &[f32],
        run: usize,
        group: usize,
        treatment: Treatment,
        decoded: &[f32],
        mut scales: Vec<f32>,
    ) -> Self {
        assert_eq!(w.len(), decoded.len(), "one decoded weight for each weight");
        for (w, scales) in w.chunks(run).zip(scales.chunks_mut(run.div_ceil(group))) {
            if w.iter().all(|&w| w == 0.0) {
                scales.fill(0.0);
            }
        }
        let mut start = w.to_vec();
        let parts = groups_mut(&mut start, run, group).zip(groups(decoded, run, group));
        for ((w, decoded), &s) in parts.zip(&scales) {
            for (w, &decoded) in w.iter_mut().zip(decoded) {
                *w = inside_cell(*w, decoded, s);
            }
        }
        if treatment == Treatment::Report {
            return Self::new(&start, run, group, Levels::Balanced, treatment);
        }
        Self::with_scales(start, run, group, Levels::Balanced, treatment, scales)
    }

    fn with_scales(
        weights: Vec<f32>,
        run: usize,
        group: usize,
        levels: Levels,
        treatment: Treatment,
        scales: Vec<f32>,
    ) -> Self {
        assert_eq!(groups(&weights, run, group).count(), scales.len(), "one scale for each group");
        let squares: f64 = weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum();
        let report = treatment == Treatment::Report;
        let factor =
            if report { newton::factor_from_scale(scales[0], max_abs(&weights)) } else { 0.0 };
        let learnt = match treatment {
            Treatment::Report => 1,
            Treatment::Lsq | Treatment::Learnt => scales.len(),
            Treatment::Ema | Treatment::Fixed => 0,
        };
        let ratio = |(&s, w): (&f32, &[f32])| {
            let optimum = levels.fit_scale(w);
            if optimum > 0.0 { s / optimum } else { 1.0 }
        };
        let ratios = match treatment {
            Treatment::Ema => scales.iter().zip(groups(&weights, run, group)).map(ratio).collect(),
            _ => Vec::new(),
        };
        Self {
            levels,
            treatment,
            run,
            group,
            unit: (squares / weights.len().max(1) as f64).sqrt() as f32,
            average: if report { weights.clone() } else { Vec::new() },
            factor,
            weight_state: AdamW::new(weights.len()),
            scale_state: AdamW::new(learnt),
            scale_gradients: vec![0.0; learnt],
            ratios,
            weights,
            scales,
        }
    }

    /// Writes the weights as the forward pass of training sees them.
    ///
    /// # Panics
    /// If `out` has another length than the weights.
    pub fn round(&self, out: &mut [f32]) {
        self.round_weights(&self.weights, &self.scales, out);
    }

    /// Writes the weights as they are exported: those of training, or of their moving average.
    ///
    /// # Panics
    /// As [`Self::round`].
    pub fn round_exported(&self, out: &mut [f32]) {
        self.round_weights(self.exported_weights(), &self.exported_scales(), out);
    }

    /// The weights whose codes are exported.
    #[must_use]
    pub fn exported_weights(&self) -> &[f32] {
        if self.average.is_empty() { &self.weights } else { &self.average }
    }

    /// The scales that are exported, run by run, each exactly an fp16 number unless it is too large
    /// for one.
    #[must_use]
    pub fn exported_scales(&self) -> Vec<f32> {
        if self.average.is_empty() {
            return self.scales.iter().map(|&s| stored(s)).collect();
        }
        vec![stored(newton::scale_from_factor(self.factor, max_abs(&self.average)))]
    }

    fn round_weights(&self, weights: &[f32], scales: &[f32], out: &mut [f32]) {
        assert_eq!(weights.len(), out.len(), "one place for each weight");
        let parts = groups(weights, self.run, self.group);
        for ((w, out), &s) in parts.zip(groups_mut(out, self.run, self.group)).zip(scales) {
            round_group(self.levels, w, stored(s), out);
        }
    }

    /// Turns the gradient with respect to the rounded weights into that of the latent ones, and
    /// keeps that of the scales.
    ///
    /// # Panics
    /// If there is not one gradient for each weight.
    pub fn backward(&mut self, gradient: &mut [f32]) {
        assert_eq!(self.weights.len(), gradient.len(), "one gradient for each weight");
        let (levels, lsq) = (self.levels, self.treatment != Treatment::Learnt);
        let parts = groups(&self.weights, self.run, self.group);
        let parts = parts.zip(groups_mut(gradient, self.run, self.group)).zip(&self.scales);
        for (number, ((w, gradient), &s)) in parts.enumerate() {
            let slope = backward_group(levels, lsq, w, stored(s), gradient);
            let count = w.len() as f32;
            match self.treatment {
                Treatment::Learnt => self.scale_gradients[number] = slope,
                Treatment::Lsq => self.scale_gradients[number] = slope / (1.5 * count).sqrt(),
                Treatment::Report => {
                    let slope = slope * max_abs(w) / newton::OUTER_LEVEL;
                    self.scale_gradients[number] = slope / count.sqrt();
                }
                Treatment::Ema | Treatment::Fixed => {}
            }
        }
    }

    /// Squared L2 norm of `gradient` and of the gradients of the scales.
    #[must_use]
    pub fn squared_norm(&self, gradient: &[f32]) -> f64 {
        let squares = |values: &[f32]| -> f64 {
            let chunk = |values: &[f32]| f64::from(values.iter().map(|g| g * g).sum::<f32>());
            values.chunks(256).map(chunk).sum()
        };
        squares(gradient) + squares(&self.scale_gradients)
    }

    /// One step: `gradient` is what [`Self::backward`] made.
    ///
    /// # Panics
    /// If there is not one gradient for each weight.
    pub fn step(&mut self, gradient: &[f32], rates: &Rates, step: &Step) {
        self.weight_state.update(&mut self.weights, gradient, rates.weight * self.unit, step);
        match self.treatment {
            Treatment::Fixed => {}
            Treatment::Ema => {
                let optima: Vec<f32> = groups(&self.weights, self.run, self.group)
                    .zip(&self.ratios)
                    .map(|(w, ratio)| ratio * self.levels.fit_scale(w))
                    .collect();
                let scales = std::mem::take(&mut self.scales);
                let mut ema = ScaleEma::new(rates.scale_decay, scales)
                    .expect("invariant: settings hold a decay below 1");
                ema.update(&optima);
                self.scales = ema.scales().to_vec();
            }
            Treatment::Report => {
                let mut factor = [self.factor];
                let rate = rates.scale * self.factor;
                let undecayed = Step { decay: 0.0, ..*step };
                self.scale_state.update(&mut factor, &self.scale_gradients, rate, &undecayed);
                self.factor = factor[0];
                self.scales[0] = newton::scale_from_factor(self.factor, max_abs(&self.weights));
                let keep = rates.average_decay;
                for (average, w) in self.average.iter_mut().zip(&self.weights) {
                    *average = keep * *average + (1.0 - keep) * w;
                }
            }
            Treatment::Lsq | Treatment::Learnt => {
                // Steps in the logarithm: a scale keeps its sign, and moves in units of itself.
                let mut logarithms = vec![0.0; self.scales.len()];
                let gradients: Vec<f32> =
                    self.scale_gradients.iter().zip(&self.scales).map(|(g, s)| g * s).collect();
                let undecayed = Step { decay: 0.0, ..*step };
                self.scale_state.update(&mut logarithms, &gradients, rates.scale, &undecayed);
                for (scale, logarithm) in self.scales.iter_mut().zip(logarithms) {
                    *scale *= logarithm.exp();
                }
            }
        }
    }
}

/// The scale as it will be stored.
fn stored(scale: f32) -> f32 {
    f16::from_f32(scale).to_f32()
}

fn max_abs(w: &[f32]) -> f32 {
    w.iter().fold(0.0, |max, w| w.abs().max(max))
}

fn groups(w: &[f32], run: usize, group: usize) -> impl Iterator<Item = &[f32]> {
    w.chunks(run).flat_map(move |run| run.chunks(group))
}

fn groups_mut(w: &mut [f32], run: usize, group: usize) -> impl Iterator<Item = &mut [f32]> {
    w.chunks_mut(run).flat_map(move |run| run.chunks_mut(group))
}

/// The point nearest to `w` in the cell of the level that `decoded` is, away from its borders.
fn inside_cell(w: f32, decoded: f32, s: f32) -> f32 {
    let sign = decoded.signum();
    let (low, high) = if decoded.abs() > s { (1.0, 2.0) } else { (0.0, 1.0) };
    let (low, high) = ((low + START_MARGIN) * s, (high - START_MARGIN) * s);
    sign * (w * sign).max(low).min(high)
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn round_group(levels: Levels, w: &[f32], s: f32, out: &mut [f32]) {
    // The match is outside the loops, so that they become vector code.
    match levels {
        Levels::Balanced => {
            for (out, &w) in out.iter_mut().zip(w) {
                *out = s * Levels::Balanced.round(w, s);
            }
        }
        Levels::TwosComplement => {
            for (out, &w) in out.iter_mut().zip(w) {
                *out = s * Levels::TwosComplement.round(w, s);
            }
        }
    }
}

/// Zeroes the gradients of weights outside the range and gives Σ g·∂ŵ/∂s: with `lsq`, q - w/s
/// inside the range and q outside; without, q everywhere.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn backward_group(levels: Levels, lsq: bool, w: &[f32], s: f32, gradient: &mut [f32]) -> f32 {
    match levels {
        Levels::Balanced => backward_inline(Levels::Balanced, lsq, w, s, gradient),
        Levels::TwosComplement => backward_inline(Levels::TwosComplement, lsq, w, s, gradient),
    }
}

#[inline(always)]
fn backward_inline(levels: Levels, lsq: bool, w: &[f32], s: f32, gradient: &mut [f32]) -> f32 {
    let (low, high) = levels.range();
    let (low, high) = (low * s, high * s);
    let share = if lsq && s > 0.0 { 1.0 / s } else { 0.0 };
    let mut sums = [0.0; LANES];
    for (w, gradient) in w.chunks(LANES).zip(gradient.chunks_mut(LANES)) {
        for ((&w, gradient), sum) in w.iter().zip(gradient).zip(&mut sums) {
            let inside = if w > low && w < high { 1.0 } else { 0.0 };
            *sum += *gradient * (levels.round(w, s) - inside * w * share);
            *gradient *= inside;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
#[path = "fake_tests.rs"]
mod tests;
