//! Continuing a prompt, streamed piece by piece.

use std::time::Instant;

use serde::Serialize;

use super::sampler::Sampler;
use super::text::TextTokenizer;
use crate::error::{Error, Result};
use crate::model::Continuation;

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// The model said that it is done.
    EndOfText,
    /// As many tokens as were asked for.
    MaxTokens,
    /// The model's context is full.
    ContextFull,
}

/// What a model said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generated {
    /// The text after the prompt.
    pub text: String,
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Seconds that reading the prompt took.
    pub prompt_seconds: f64,
    /// Seconds from the first new token to the last.
    pub seconds: f64,
}

/// Continues `prompt` (token ids, at least one) by at most `max_tokens` tokens, and never past
/// `max_positions` in all. `piece` sees the text as it grows, in whole characters.
///
/// # Errors
/// [`Error::Usage`] for an empty prompt; what the model, the tokenizer and `piece` give.
pub fn generate(
    sequence: &mut dyn Continuation,
    tokenizer: &TextTokenizer,
    prompt: &[u32],
    max_tokens: usize,
    max_positions: usize,
    sampler: &mut Sampler,
    piece: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Generated> {
    if prompt.is_empty() {
        return Err(Error::Usage("an empty prompt: the model needs a token to start".to_owned()));
    }
    let start = Instant::now();
    let mut logits = sequence.extend(prompt)?;
    let prompt_seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut decoder = StreamDecoder::new(tokenizer, prompt);
    let mut text = String::new();
    let mut tokens = Vec::new();
    let mut say = |new: &str, text: &mut String| {
        text.push_str(new);
        if new.is_empty() { Ok(()) } else { piece(new) }
    };
    let stop = loop {
        if tokens.len() == max_tokens {
            break Stop::MaxTokens;
        }
        let token = sampler.next(&logits);
        if tokenizer.eos().contains(&token) {
            break Stop::EndOfText;
        }
        tokens.push(token);
        say(&decoder.push(token)?, &mut text)?;
        if sequence.position() >= max_positions {
            break Stop::ContextFull;
        }
        if tokens.len() < max_tokens {
            logits = sequence.extend(&[token])?;
        }
    };
    say(&decoder.finish()?, &mut text)?;
    Ok(Generated {
        text,
        tokens,
        stop,
        prompt_tokens: prompt.len(),
        prompt_seconds,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Tokens to text where a character may span tokens, and where a token's text may depend on the
/// one before it: some decoders drop a space at the start.
struct StreamDecoder<'a> {
    tokenizer: &'a TextTokenizer,
    tokens: Vec<u32>,
    /// Tokens from here on are decoded together...
    start: usize,
    /// ...and those up to here have been said.
    said: usize,
}

impl<'a> StreamDecoder<'a> {
    /// Tokens of context whose text a decoder might look at.
    const CONTEXT: usize = 4;

    fn new(tokenizer: &'a TextTokenizer, prompt: &[u32]) -> Self {
        let tokens = prompt[prompt.len().saturating_sub(Self::CONTEXT)..].to_vec();
        let said = tokens.len();
        Self { tokenizer, tokens, start: 0, said }
    }

    /// The text that `token` completes; empty while a character is unfinished.
    fn push(&mut self, token: u32) -> Result<String> {
        self.tokens.push(token);
        let new = self.unsaid()?;
        if new.is_empty() || new.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.start = self.said;
        self.said = self.tokens.len();
        Ok(new)
    }

    /// What is left, unfinished characters as U+FFFD.
    fn finish(&mut self) -> Result<String> {
        self.unsaid()
    }

    fn unsaid(&self) -> Result<String> {
        let before = self.tokenizer.decode(&self.tokens[self.start..self.said])?;
        let all = self.tokenizer.decode(&self.tokens[self.start..])?;
        // A prompt that ends inside a character decodes to other text once it is whole.
        Ok(all.strip_prefix(&before).map_or(all.clone(), str::to_owned))
    }
}
