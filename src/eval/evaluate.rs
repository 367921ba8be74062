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
use super::text_file::Text;
use super::windows::{MIN_CTX, TextReport, Windows};
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

impl EvalOptions {
    /// Checks what can be checked before anything is read: whether there is `text`, `tasks` and
    /// something to compare `against` is all it needs to know.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check(&self, text: bool, tasks: bool, against: bool) -> Result<()> {
        let refuse = |message: &str| Err(Error::Usage(message.to_owned()));
        if !text && !tasks {
            return refuse("nothing to evaluate on: give a text or questions");
        }
        if self.batch == 0 || self.windows == Some(0) {
            return refuse("0 windows: nothing to evaluate");
        }
        if self.ctx < MIN_CTX {
            return Err(Error::Usage(format!(
                "a context of {} tokens scores nothing; {MIN_CTX} is the least",
                self.ctx
            )));
        }
        self.gates.check(text && against, tasks)
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
/// [`super::broken_gates`].
pub fn evaluate(
    model: &mut Subject,
    mut against: Option<&mut Subject>,
    text: Option<&Text>,
    tasks: Option<&TaskSet>,
    options: &EvalOptions,
    progress: &dyn EvalProgress,
) -> Result<EvalReport> {
    let start = Instant::now();
    options.check(text.is_some(), tasks.is_some(), against.is_some())?;
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

#[cfg(test)]
mod tests {
    use super::super::progress::Silent;
    use super::super::table_model::TableModel;
    use super::*;

    fn text() -> Text {
        let path = "fixtures/eval_cc0.txt";
        let text = std::fs::read_to_string(path).unwrap();
        Text::in_memory(path.as_ref(), text.chars().take(6000).collect())
    }

    fn options() -> EvalOptions {
        EvalOptions { ctx: 64, windows: Some(9), batch: 4, gates: Gates::default() }
    }

    fn compare(
        model: TableModel,
        against: TableModel,
        options: &EvalOptions,
    ) -> Result<EvalReport> {
        let (mut model, mut against) = (model.subject("out"), against.subject("original"));
        evaluate(&mut model, Some(&mut against), Some(&text()), None, options, &Silent)
    }

    #[test]
    fn threads_and_batches_do_not_change_the_figures() {
        let run = |threads: usize, batch: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let options = EvalOptions { batch, ..options() };
            let run = || compare(TableModel::noise(1), TableModel::noise(2), &options);
            pool.install(run).unwrap().scores.unwrap()
        };
        let expected = run(1, 4);
        assert_eq!(run(3, 4), expected);
        assert_eq!(run(2, 1), expected);
    }

    #[test]
    fn gates_are_judged() {
        let gates = Gates { max_kld: Some(1e-3), min_top1: Some(0.5), ..Gates::default() };
        let options = EvalOptions { gates, ..options() };
        let same = compare(TableModel::noise(1), TableModel::noise(1), &options).unwrap();
        assert!(same.passed && same.gates.len() == 2);
        assert_eq!((same.gates[0].measured, same.gates[0].margin), (0.0, 1e-3));
        assert_eq!((same.gates[1].measured, same.gates[1].margin), (1.0, 0.5));
        let other = compare(TableModel::noise(1), TableModel::noise(2), &options).unwrap();
        assert!(!other.passed && !other.gates[0].passed);
        assert_eq!(other.same_source, Some(false));
    }

    #[test]
    fn what_cannot_be_compared() {
        let mut small = TableModel::noise(1);
        small.vocabulary = 1000;
        let error = compare(small, TableModel::noise(1), &options()).unwrap_err();
        assert!(error.to_string().contains("1000 tokens, but that of original has 1024"));
        let mut short = TableModel::noise(1);
        short.max_positions = 32;
        let error = compare(TableModel::noise(1), short, &options()).unwrap_err();
        assert!(matches!(&error, Error::Usage(message) if message.contains("over the 32")));
        let long = EvalOptions { ctx: 500, ..options() };
        let error = evaluate(
            &mut TableModel::noise(1).subject("out"),
            None,
            Some(&Text::in_memory("t.txt".as_ref(), "Too short.".to_owned())),
            None,
            &long,
            &Silent,
        )
        .unwrap_err();
        assert!(error.to_string().starts_with("t.txt: is "), "{error}");
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn a_logit_that_is_not_finite_is_placed() {
        let mut broken = TableModel::noise(2);
        broken.table.fill(f32::NAN);
        let error = compare(TableModel::noise(1), broken, &options()).unwrap_err();
        let expected = "original: window 0, position 32: a logit is not finite";
        assert_eq!(error.to_string(), expected);
    }
}
