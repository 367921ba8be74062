//! A whole evaluation: a text, questions or both, beside an original or alone, held against
//! gates.

use std::time::Instant;

use serde::Serialize;

use super::gate::{Gates, Verdict};
use super::metrics::TextScores;
use super::progress::EvalProgress;
use super::questions::TaskSet;
use super::stream::stream;
use super::subject::{Identity, Subject};
use super::tasks::{TaskScores, ask};
use super::windows::{Text, TextReport, Windows};
use crate::error::{Error, Result};

/// What to measure and how.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    /// Tokens a window. Default: 512.
    pub ctx: usize,
    /// Windows from the text's start. Default: all.
    pub windows: Option<usize>,
    /// Windows that run through the model at once. Default: 8.
    pub batch: usize,
    /// Bounds. Default: none.
    pub gates: Gates,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { ctx: 512, windows: None, batch: 8, gates: Gates::default() }
    }
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvalReport {
    /// The model that was judged.
    pub model: Identity,
    /// The original beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Identity>,
    /// Whether the original is the checkpoint that the model was compressed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_source: Option<bool>,
    /// Tokens a window.
    pub ctx: usize,
    /// Windows at once.
    pub batch: usize,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextReport>,
    /// How well it was predicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scores: Option<TextScores>,
    /// How well questions were answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskScores>,
    /// Each gate's verdict.
    pub gates: Vec<Verdict>,
    /// Whether all gates hold.
    pub passed: bool,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Tokens of the text that one model read a second, both models' time counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
}

/// Evaluates `model` on a text, on questions or on both.
///
/// With `against`, both models see the same tokens in the same pass and are compared.
///
/// # Errors
/// [`Error::Usage`] if there is nothing to do, a gate bounds what is not measured, or the context
/// is over a model's maximum; [`Error::Input`] for a text shorter than one window or two models
/// whose tokens differ; what the models give. A gate that does not hold is no error here: see
/// [`super::enforce`].
pub fn evaluate(
    model: &mut Subject,
    mut against: Option<&mut Subject>,
    text: Option<&Text>,
    tasks: Option<&TaskSet>,
    options: &EvalOptions,
    progress: &dyn EvalProgress,
) -> Result<EvalReport> {
    let start = Instant::now();
    if text.is_none() && tasks.is_none() {
        return Err(Error::Usage("nothing to evaluate on: give a text or questions".to_owned()));
    }
    if options.batch == 0 {
        return Err(Error::Usage("a batch of 0 windows".to_owned()));
    }
    options.gates.check(text.is_some() && against.is_some(), tasks.is_some())?;
    if let Some(against) = &against {
        model.check_vocabulary(against)?;
    }
    let mut text_report = None;
    let mut scores = None;
    let mut tokens_per_second = None;
    if let Some(text) = text {
        let (windows, report) = cut(model, against.as_deref(), text, options)?;
        let before = Instant::now();
        let found = stream(model, against.as_deref_mut(), &windows, options.batch, progress)?;
        let tokens = (windows.count() * windows.ctx()) as f64;
        tokens_per_second = Some(tokens / before.elapsed().as_secs_f64());
        text_report = Some(report);
        scores = Some(TextScores::of(&found));
    }
    let pass_tokens = options.batch * options.ctx;
    let tasks = match tasks {
        Some(tasks) => Some(ask(model, against.as_deref_mut(), tasks, pass_tokens, progress)?),
        None => None,
    };
    let gates = options.gates.judge(scores.as_ref(), tasks.as_ref());
    Ok(EvalReport {
        model: model.identity.clone(),
        same_source: against.as_ref().map(|a| a.identity.fingerprint == model.identity.fingerprint),
        against: against.map(|against| against.identity.clone()),
        ctx: options.ctx,
        batch: options.batch,
        text: text_report,
        scores,
        tasks,
        passed: gates.iter().all(|verdict| verdict.passed),
        gates,
        seconds: start.elapsed().as_secs_f64(),
        tokens_per_second,
    })
}

/// Cuts the text and checks that both models can read it.
fn cut(
    model: &Subject,
    against: Option<&Subject>,
    text: &Text,
    options: &EvalOptions,
) -> Result<(Windows, TextReport)> {
    model.check_ctx(options.ctx)?;
    let (windows, report) = Windows::cut(text, &model.tokenizer, options.ctx, options.windows)?;
    model.check_token(windows.largest_token())?;
    if let Some(against) = against {
        against.check_ctx(options.ctx)?;
        let (theirs, _) = Windows::cut(text, &against.tokenizer, options.ctx, options.windows)?;
        model.check_same_tokens(against, windows.tokens(), theirs.tokens())?;
    }
    Ok((windows, report))
}
