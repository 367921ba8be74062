//! A budget of bits, spent where the model feels it.
//!
//! 1. Sensitivity: each weight is coded alone, and a few windows of text tell how far the
//!    model's predictions move (KLD) and how large the layer's output error was that moved them.
//! 2. Candidates: for every way of coding a weight, its size and the output error that the
//!    solver leaves; errors become divergences at the exchange rate of step 1.
//! 3. Allocation: the choices with the least sum of divergences that fit the budget.
//!
//! Divergences of single weights add up as long as they are small, which is all that this needs.

mod allocate;
mod candidates;
mod seen;
mod sensitivity;

use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use self::allocate::{Choice, allocate};
use self::candidates::{Candidate, measure};
use self::sensitivity::{Sensitivity, sensitivities};
use crate::calibrate::CalibrationText;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::pipeline::{Plan, Progress, bits_per_weight};
use crate::recipe::Recipe;
use crate::solve::SolveOptions;

/// Weights whose candidates are measured side by side.
const AT_ONCE: usize = 16;

/// What a run may cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Bits for each parameter of the model, everything counted.
    BitsPerWeight(f64),
    /// Bytes of tensor data, adapters included.
    Bytes(u64),
}

/// What was decided.
#[derive(Debug, Clone, Serialize)]
pub struct BudgetReport {
    /// Bytes that were allowed.
    pub target_bytes: u64,
    /// Bytes that the choices take.
    pub output_bytes: u64,
    /// Sum of the predicted divergences, in nats.
    pub predicted_kld: f64,
    /// Seconds it took.
    pub seconds: f64,
    /// One line a weight.
    pub choices: Vec<BudgetLine>,
}

/// What one weight becomes.
#[derive(Debug, Clone, Serialize)]
pub struct BudgetLine {
    /// Its name.
    pub name: String,
    /// KLD in nats when it alone is coded as the recipe says, each weight to its nearest level.
    pub alone_kld: f64,
    /// How it will be coded, such as `astc 6x5 + rank 8`.
    pub becomes: String,
    /// Bits per weight.
    pub bits_per_weight: f64,
    /// Predicted divergence.
    pub predicted_kld: f64,
}

/// Chooses for every coded matrix of `plan` among its candidates so that the whole fits `target`;
/// gives `recipe` with a rule for each in front.
///
/// # Errors
/// [`Error::Usage`] if even the smallest choices do not fit; [`Error::StoppedEarly`]; as running the
/// model.
pub fn fit(
    checkpoint: &Checkpoint,
    plan: &Plan,
    text: &CalibrationText,
    target: Target,
    folder: &std::path::Path,
    progress: &dyn Progress,
) -> Result<(Recipe, BudgetReport)> {
    let start = Instant::now();
    let mut sensitive = sensitivities(checkpoint, plan, text, folder, progress)?;
    let options = SolveOptions {
        passes: 0,
        drift: 0.0,
        rounds: 1,
        structure: 0.0,
        ..SolveOptions::default()
    };
    progress.begin("weighing", sensitive.iter().map(|s| s.bytes).sum());
    let mut measured = Vec::new();
    // Few at a time: each site's Hessian and factor are as large as its widest layer squared.
    for some in sensitive.chunks_mut(AT_ONCE) {
        progress.check_stopped()?;
        // Here, with all threads on each, and not by the first of several that wait for it.
        some.iter().for_each(|sensitivity| sensitivity.seen.factor());
        let candidates: Vec<Result<Vec<Candidate>>> = some
            .par_iter()
            .map(|sensitivity| {
                let candidates = measure(checkpoint, plan, sensitivity, &options)?;
                progress.advance(sensitivity.bytes);
                Ok(candidates)
            })
            .collect();
        measured.extend(candidates.into_iter().collect::<Result<Vec<_>>>()?);
        some.iter_mut().for_each(Sensitivity::forget_inputs);
    }

    let chosen: u64 = sensitive.iter().map(|s| plan.tensors[s.number].output_bytes()).sum();
    let fixed = plan.totals.output_bytes - chosen;
    let target_bytes = match target {
        Target::Bytes(bytes) => bytes,
        Target::BitsPerWeight(bits) => (bits * plan.totals.parameters as f64 / 8.0) as u64,
    };
    let choices: Vec<Vec<Choice>> = measured
        .iter()
        .zip(&sensitive)
        .map(|(candidates, sensitivity)| {
            let choice =
                |c: &Candidate| Choice { bytes: c.bytes, cost: sensitivity.rate * c.error };
            candidates.iter().map(choice).collect()
        })
        .collect();
    let smallest: u64 =
        choices.iter().filter_map(|all| all.iter().map(|choice| choice.bytes).min()).sum();
    let room = target_bytes.checked_sub(fixed).filter(|room| *room >= smallest);
    let Some(room) = room else {
        return Err(Error::Usage(format!(
            "the target of {target_bytes} bytes is too small for this model: with this recipe's \
             kinds of codecs it takes at least {} ({:.3} bits per weight)",
            fixed + smallest,
            bits_per_weight(fixed + smallest, plan.totals.parameters),
        )));
    };
    let picks = allocate(&choices, room);
    let mut recipe = plan.recipe.clone();
    let mut report = BudgetReport {
        target_bytes,
        output_bytes: fixed,
        predicted_kld: 0.0,
        seconds: 0.0,
        choices: Vec::new(),
    };
    for ((sensitivity, pick), (candidates, choices)) in
        sensitive.iter().zip(picks).zip(measured.iter().zip(&choices)).rev()
    {
        let candidate = &candidates[pick];
        recipe.put_first(&sensitivity.name, &candidate.codec, candidate.rank);
        report.output_bytes += candidate.bytes;
        report.predicted_kld += choices[pick].cost;
        report.choices.push(BudgetLine {
            name: sensitivity.name.clone(),
            alone_kld: sensitivity.alone_kld,
            becomes: candidate.describe(),
            bits_per_weight: bits_per_weight(
                candidate.bytes,
                (sensitivity.rows * sensitivity.cols) as u64,
            ),
            predicted_kld: choices[pick].cost,
        });
    }
    report.choices.reverse();
    report.seconds = start.elapsed().as_secs_f64();
    Ok((recipe, report))
}
