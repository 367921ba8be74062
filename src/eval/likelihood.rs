//! How likely a model finds a continuation of a prompt.

use rayon::prelude::*;

use super::softmax::predict;
use super::stream::{chunk_rows, fill_logits, not_finite};
use super::subject::Subject;
use crate::error::Result;

/// A prompt and its continuation as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    tokens: Vec<u32>,
    prompt_len: usize,
}

impl Request {
    /// `whole` is prompt and continuation, `prompt` the prompt alone; what they do not share is
    /// the continuation, since a tokenizer may merge across the border. `None` if nothing is
    /// left, or nothing to predict it from.
    pub(super) fn new(bos: Option<u32>, prompt: &[u32], whole: &[u32]) -> Option<Self> {
        let shared = prompt.iter().zip(whole).take_while(|(a, b)| a == b).count();
        let tokens: Vec<u32> = bos.into_iter().chain(whole.iter().copied()).collect();
        let prompt_len = shared + usize::from(bos.is_some());
        (prompt_len > 0 && prompt_len < tokens.len()).then_some(Self { tokens, prompt_len })
    }

    /// Prompt and continuation.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens that the model reads: all but the last, which is only predicted.
    pub(super) fn input_len(&self) -> usize {
        self.tokens.len() - 1
    }

    /// Tokens of the prompt.
    pub(super) fn prompt_len(&self) -> usize {
        self.prompt_len
    }

    fn input(&self) -> &[u32] {
        &self.tokens[..self.input_len()]
    }
}

/// ln of the probability of each continuation.
///
/// All run as one batch, padded at the end to the longest: a causal model does not look there.
/// Equal inputs, as those of answers by letter, run once.
///
/// # Errors
/// What the model gives; [`crate::Error::Model`] for a logit that is not finite.
pub(super) fn log_likelihoods(model: &mut Subject, requests: &[&Request]) -> Result<Vec<f64>> {
    let mut inputs: Vec<&[u32]> = requests.iter().map(|request| request.input()).collect();
    inputs.sort_unstable();
    inputs.dedup();
    let longest = inputs.iter().map(|input| input.len()).max().unwrap_or(0);
    let first = requests.iter().map(|request| request.prompt_len() - 1).min().unwrap_or(0);
    let padded: Vec<Vec<u32>> = inputs
        .iter()
        .map(|input| {
            let mut input = input.to_vec();
            input.resize(longest, 0);
            input
        })
        .collect();
    let windows: Vec<&[u32]> = padded.iter().map(Vec::as_slice).collect();
    let hidden = model.network.hidden(&windows, first..longest)?;

    // Rows of hidden states that are needed, with the token that each is to predict.
    let mut wanted = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let window = inputs.binary_search(&request.input()).expect("invariant: it is among them");
        for position in request.prompt_len() - 1..request.input_len() {
            let row = window * (longest - first) + position - first;
            wanted.push((index, row, request.tokens[position + 1]));
        }
    }
    let mut sums = vec![0.0; requests.len()];
    let width = model.network.hidden_size();
    let mut logits = Vec::new();
    for wanted in wanted.chunks(chunk_rows(model.network.vocab_size())) {
        let rows: Vec<f32> = wanted
            .iter()
            .flat_map(|&(_, row, _)| &hidden[row * width..][..width])
            .copied()
            .collect();
        fill_logits(model, &rows, 0, wanted.len(), &mut logits)?;
        let predictions: Vec<_> = logits
            .par_chunks(model.network.vocab_size())
            .zip(wanted)
            .map(|(logits, &(_, _, token))| predict(logits, token))
            .collect();
        for (prediction, &(request, _, _)) in predictions.iter().zip(wanted) {
            let prediction = prediction.ok_or_else(|| not_finite(model, "a question"))?;
            sums[request] -= prediction.nll;
        }
    }
    Ok(sums)
}
