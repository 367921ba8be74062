//! One pass over the windows of a text through one model or two.
//!
//! Hidden states of a batch of windows are made first, then logits for a few positions at a
//! time: memory holds one such chunk a model, whatever the text's length. Positions of a chunk
//! are read in parallel and kept in order.

use rayon::prelude::*;

use super::progress::EvalProgress;
use super::softmax::{PairPrediction, Prediction, compare, predict};
use super::subject::Subject;
use super::windows::Windows;
use crate::error::{Error, Result};

/// Logits that memory holds at once, a model: 64 MiB.
const CHUNK_LOGITS: usize = 16 << 20;

/// Positions whose logits are made at once: enough for the output matrix to be read seldom.
const MAX_CHUNK_ROWS: usize = 512;

/// What was found at every scored position, in order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Predictions {
    /// Of the model that is judged.
    pub(super) model: Vec<Prediction>,
    /// Of the original; empty without one, as the two below.
    pub(super) against: Vec<Prediction>,
    /// KLD(original‖model).
    pub(super) kld: Vec<f64>,
    /// KLD(model‖original).
    pub(super) kld_reverse: Vec<f64>,
}

impl Predictions {
    fn push_pair(&mut self, pair: &PairPrediction) {
        self.model.push(pair.model);
        self.against.push(pair.against);
        self.kld.push(pair.kld);
        self.kld_reverse.push(pair.kld_reverse);
    }
}

/// Rows of logits that fit one chunk.
pub(super) fn chunk_rows(vocab_size: usize) -> usize {
    (CHUNK_LOGITS / vocab_size).clamp(1, MAX_CHUNK_ROWS)
}

/// Scores all windows, `batch` at a time.
///
/// # Errors
/// What the models give; [`Error::Model`] for a logit that is not finite, naming its place.
pub(super) fn stream(
    model: &mut Subject,
    mut against: Option<&mut Subject>,
    windows: &Windows,
    batch: usize,
    progress: &dyn EvalProgress,
) -> Result<Predictions> {
    let scored = windows.scored();
    let mut found = Predictions::default();
    let mut running = Running::default();
    progress.begin("evaluating", (windows.count() * windows.ctx()) as u64);
    for first in (0..windows.count()).step_by(batch) {
        let batch = first..(first + batch).min(windows.count());
        let inputs: Vec<Vec<u32>> = batch.clone().map(|index| windows.input(index)).collect();
        let inputs: Vec<&[u32]> = inputs.iter().map(Vec::as_slice).collect();
        let targets: Vec<u32> =
            batch.clone().flat_map(|index| windows.targets(index)).copied().collect();
        let hidden = model.network.hidden(&inputs, scored.clone())?;
        let hidden_against = match &mut against {
            Some(against) => against.network.hidden(&inputs, scored.clone())?,
            None => Vec::new(),
        };
        let place = |row: usize| {
            let position = scored.start + row % scored.len();
            format!("window {}, position {position}", first + row / scored.len())
        };
        match &against {
            None => predict_rows(model, &hidden, &targets, place, &mut found)?,
            Some(against) => compare_rows(
                (model, &hidden),
                (against, &hidden_against),
                &targets,
                place,
                &mut found,
            )?,
        }
        progress.advance((batch.len() * windows.ctx()) as u64, &running.update(&found));
    }
    Ok(found)
}

fn predict_rows(
    model: &Subject,
    hidden: &[f32],
    targets: &[u32],
    place: impl Fn(usize) -> String,
    found: &mut Predictions,
) -> Result<()> {
    let vocabulary = model.network.vocab_size();
    let rows = chunk_rows(vocabulary);
    let mut logits = Vec::new();
    for (chunk, targets) in targets.chunks(rows).enumerate() {
        fill_logits(model, hidden, chunk * rows, targets.len(), &mut logits)?;
        let predictions: Vec<_> = logits
            .par_chunks(vocabulary)
            .zip(targets)
            .map(|(logits, &target)| predict(logits, target))
            .collect();
        for (row, prediction) in predictions.into_iter().enumerate() {
            let prediction =
                prediction.ok_or_else(|| not_finite(model, &place(chunk * rows + row)))?;
            found.model.push(prediction);
        }
    }
    Ok(())
}

fn compare_rows(
    (model, hidden): (&Subject, &[f32]),
    (against, hidden_against): (&Subject, &[f32]),
    targets: &[u32],
    place: impl Fn(usize) -> String,
    found: &mut Predictions,
) -> Result<()> {
    let vocabulary = model.network.vocab_size();
    let rows = chunk_rows(vocabulary);
    let (mut logits, mut logits_against) = (Vec::new(), Vec::new());
    for (chunk, targets) in targets.chunks(rows).enumerate() {
        fill_logits(model, hidden, chunk * rows, targets.len(), &mut logits)?;
        fill_logits(against, hidden_against, chunk * rows, targets.len(), &mut logits_against)?;
        let pairs: Vec<_> = logits
            .par_chunks(vocabulary)
            .zip(logits_against.par_chunks(vocabulary))
            .zip(targets)
            .map(|((model, against), &target)| compare(model, against, target))
            .collect();
        for (row, pair) in pairs.into_iter().enumerate() {
            let pair = pair.ok_or_else(|| {
                let ours = &logits[row * vocabulary..][..vocabulary];
                let at_fault = if ours.iter().all(|x| x.is_finite()) { against } else { model };
                not_finite(at_fault, &place(chunk * rows + row))
            })?;
            found.push_pair(&pair);
        }
    }
    Ok(())
}

/// Logits of `count` rows of `hidden`, from row `first` on.
pub(super) fn fill_logits(
    model: &Subject,
    hidden: &[f32],
    first: usize,
    count: usize,
    logits: &mut Vec<f32>,
) -> Result<()> {
    let width = model.network.hidden_size();
    logits.resize(count * model.network.vocab_size(), 0.0);
    model.network.logits(&hidden[first * width..][..count * width], logits)
}

/// The error for a logit that is NaN or infinite.
pub(super) fn not_finite(model: &Subject, place: &str) -> Error {
    Error::Model {
        folder: model.identity.folder.clone(),
        message: format!("{place}: a logit is not finite"),
    }
}

/// Sums for the line that shows how it goes.
#[derive(Debug, Default)]
struct Running {
    seen: usize,
    nll: f64,
    nll_against: f64,
    kld: f64,
}

impl Running {
    fn update(&mut self, found: &Predictions) -> String {
        let sum = |all: &[Prediction]| all.iter().skip(self.seen).map(|p| p.nll).sum::<f64>();
        self.nll += sum(&found.model);
        self.nll_against += sum(&found.against);
        self.kld += found.kld.iter().skip(self.seen).sum::<f64>();
        self.seen = found.model.len();
        let count = self.seen as f64;
        let perplexity = (self.nll / count).exp();
        if found.against.is_empty() {
            return format!("ppl {perplexity:.3}");
        }
        let original = (self.nll_against / count).exp();
        format!("ppl {perplexity:.3} (original {original:.3}), kld {:.4}", self.kld / count)
    }
}
