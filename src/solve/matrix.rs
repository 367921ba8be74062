//! One weight matrix: codes, and an adapter if there is one, in the norm of its inputs.

use std::borrow::Cow;
use std::sync::Arc;

use compress_model_feedback::{Factor, Hessian, Panel, descend, difference, round, squared_norm};
use compress_model_lora::Adapter;
use rayon::prelude::*;

use super::adapter::nearest;
use super::options::SolveOptions;
use crate::codec::{Codec, CodecError, WorkerPool};
use crate::pipeline::decibels;

/// Most rows that one thread solves at a time: what keeps the matrix products efficient and, for
/// codecs that code several columns together, fills the encoder's batches of blocks.
const PANEL_ROWS: usize = 96;
const WIDE_PANEL_ROWS: usize = 384;

/// A matrix to solve.
pub(super) struct Matrix<'a> {
    /// Row-major; what to come near to.
    pub(super) weights: &'a [f32],
    pub(super) cols: usize,
    pub(super) pool: &'a WorkerPool,
    pub(super) rank: usize,
    pub(super) seed: u64,
}

/// What became of it.
pub(super) struct Solution {
    pub(super) parts: Vec<Vec<u8>>,
    pub(super) adapter: Option<Adapter>,
    /// What a reader gets, adapter included; row-major.
    pub(super) decoded: Vec<f32>,
}

/// Codes of some rows, and what they decode to.
#[derive(Default)]
struct Coded {
    parts: Vec<Vec<u8>>,
    decoded: Vec<f32>,
}

impl Coded {
    /// Appends the rows that follow.
    fn extend(&mut self, next: Self) {
        if self.parts.is_empty() {
            *self = next;
            return;
        }
        for (part, next) in self.parts.iter_mut().zip(next.parts) {
            part.extend(next);
        }
        self.decoded.extend(next.decoded);
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SolveError {
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("adapter: {0}")]
    Adapter(#[from] compress_model_lora::Error),
}

/// Factors of one Hessian, one for each width of units that was asked for.
#[derive(Default)]
pub(super) struct Factors(Vec<(usize, Arc<Factor>)>);

impl Factors {
    pub(super) fn of(
        &mut self,
        hessian: &Hessian,
        width: usize,
        options: &SolveOptions,
    ) -> Arc<Factor> {
        if let Some((_, factor)) = self.0.iter().find(|(known, _)| *known == width) {
            return Arc::clone(factor);
        }
        let factor = Arc::new(Factor::new(hessian, width, options.order));
        self.0.push((width, Arc::clone(&factor)));
        factor
    }
}

impl Matrix<'_> {
    fn codec(&self) -> &dyn Codec {
        self.pool.codec()
    }

    /// Rows of a panel: equal shares of the matrix, as far as the codec's tiles allow.
    fn panel_rows(&self) -> usize {
        let multiple = self.codec().row_multiple();
        let wide = self.codec().column_unit().is_some_and(|unit| unit > 1);
        let most = if wide { WIDE_PANEL_ROWS } else { PANEL_ROWS };
        let rows = self.weights.len() / self.cols;
        let share = rows.div_ceil(rows.div_ceil(most).max(1));
        share.div_ceil(multiple).max(1) * multiple
    }

    /// Solves for codes and adapter; `factor` is of `hessian`, for the codec's units.
    pub(super) fn solve(
        &self,
        hessian: &Hessian,
        factor: &Factor,
        options: &SolveOptions,
    ) -> Result<Solution, SolveError> {
        let n = self.cols;
        let importance: Vec<f32> = (0..n).map(|i| hessian.diagonal(i)).collect();
        let before = (options.structure * self.rank as f64).round() as usize;
        let mut adapter = match before {
            0 => None,
            rank => Some(nearest(self.weights, factor, rank, self.seed)?),
        };
        let rounds = if self.rank > 0 { options.rounds.max(1) } else { 1 };
        let mut coded = Coded::default();
        for round in 1..=rounds {
            let residual = self.residual(adapter.as_ref());
            // Codes that are only there to fit an adapter to need no polish.
            let passes = if round == rounds { options.passes } else { 0 };
            coded = self.code(&residual, hessian, factor, &importance, passes)?;
            if self.rank > 0 {
                let missing = difference(self.weights, &coded.decoded);
                adapter = Some(nearest(&missing, factor, self.rank, self.seed)?);
            }
        }
        let Coded { parts, mut decoded } = coded;
        if let Some(adapter) = &adapter {
            adapter.add_to(0, &mut decoded);
        }
        Ok(Solution { parts, adapter, decoded })
    }

    fn residual(&self, adapter: Option<&Adapter>) -> Cow<'_, [f32]> {
        let mut residual = Cow::Borrowed(self.weights);
        if let Some(adapter) = adapter {
            adapter.subtract_from(0, residual.to_mut());
        }
        residual
    }

    /// Codes `weights`, the whole matrix, in the norm of `hessian`.
    fn code(
        &self,
        weights: &[f32],
        hessian: &Hessian,
        factor: &Factor,
        importance: &[f32],
        passes: usize,
    ) -> Result<Coded, CodecError> {
        let n = self.cols;
        self.code_panels(weights, |weights, parts| {
            self.pool.with(|worker| {
                if self.codec().column_unit().is_none() {
                    return worker.encode(weights, n, parts);
                }
                let mut coder = worker.column_coder(weights, n, importance)?;
                let mut panel = Panel::new(weights, n);
                round(&mut panel, factor, &mut *coder);
                descend(&mut panel, hessian, &mut *coder, passes);
                coder.write(parts);
                Ok(())
            })
        })
    }

    /// Codes each weight on its own and gives what that decodes to.
    pub(super) fn plain(&self) -> Result<Vec<f32>, CodecError> {
        let encode = |weights: &[f32], parts: &mut [Vec<u8>]| {
            self.pool.with(|worker| worker.encode(weights, self.cols, parts))
        };
        Ok(self.code_panels(self.weights, encode)?.decoded)
    }

    /// Codes `weights` panel by panel with `encode`, which fills the parts.
    fn code_panels(
        &self,
        weights: &[f32],
        encode: impl Fn(&[f32], &mut [Vec<u8>]) -> Result<(), CodecError> + Sync,
    ) -> Result<Coded, CodecError> {
        let (n, step) = (self.cols, self.panel_rows());
        let panels: Vec<Result<Coded, CodecError>> = weights
            .par_chunks(step * n)
            .enumerate()
            .map(|(number, weights)| {
                let parts = self.codec().parts(weights.len() / n, n);
                let mut parts: Vec<_> = parts.iter().map(|part| vec![0; part.byte_len()]).collect();
                encode(weights, &mut parts).map_err(|e| match e {
                    CodecError::Row { row, message } => {
                        CodecError::Row { row: number * step + row, message }
                    }
                    other => other,
                })?;
                let mut decoded = vec![0.0; weights.len()];
                self.pool.with(|worker| worker.decode(&parts, n, &mut decoded))?;
                Ok(Coded { parts, decoded })
            })
            .collect();
        let mut all = Coded::default();
        for panel in panels {
            all.extend(panel?);
        }
        Ok(all)
    }

    /// tr(W·H·Wᵀ) / tr(E·H·Eᵀ) for the error E of `decoded`, in dB; none without error.
    pub(super) fn output_sqnr_db(&self, decoded: &[f32], hessian: &Hessian) -> Option<f64> {
        let errors = difference(self.weights, decoded);
        let norm = |values: &[f32]| squared_norm(values, hessian.values(), self.cols);
        decibels::ratio(norm(self.weights), norm(&errors))
    }
}
