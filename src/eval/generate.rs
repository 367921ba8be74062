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
    /// Whoever hears the pieces wants no more.
    Unheard,
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
/// `max_positions` in all. `piece` sees the text as it grows, in whole characters, and says
/// whether to go on.
///
/// # Errors
/// [`Error::Usage`] for an empty prompt; what the model and the tokenizer give.
pub fn generate(
    sequence: &mut dyn Continuation,
    tokenizer: &TextTokenizer,
    prompt: &[u32],
    max_tokens: usize,
    max_positions: usize,
    sampler: &mut Sampler,
    piece: &mut dyn FnMut(&str) -> bool,
) -> Result<Generated> {
    if prompt.is_empty() {
        return Err(Error::Usage("an empty prompt: the model needs a token to start".to_owned()));
    }
    let start = Instant::now();
    let mut logits = sequence.extend(prompt)?;
    let prompt_seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut decoder = StreamDecoder::new(tokenizer, prompt);
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let stop = loop {
        if tokens.len() == max_tokens {
            break Stop::MaxTokens;
        }
        let token = sampler.next(&logits);
        if tokenizer.eos().contains(&token) {
            break Stop::EndOfText;
        }
        tokens.push(token);
        let new = decoder.push(token)?;
        text.push_str(&new);
        if !new.is_empty() && !piece(&new) {
            break Stop::Unheard;
        }
        if sequence.position() >= max_positions {
            break Stop::ContextFull;
        }
        if tokens.len() < max_tokens {
            logits = sequence.extend(&[token])?;
        }
    };
    let rest = decoder.finish()?;
    text.push_str(&rest);
    if !rest.is_empty() {
        piece(&rest);
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::sampler::Sampling;
    use super::super::text::Markup;
    use super::*;

    /// Says what it was told to, whatever it reads.
    struct Script {
        tokens: Vec<u32>,
        read: usize,
        said: usize,
    }

    impl Continuation for Script {
        fn position(&self) -> usize {
            self.read
        }

        fn extend(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
            self.read += tokens.len();
            let mut logits = vec![0.0; 1024];
            logits[self.tokens[self.said] as usize] = 1.0;
            self.said += 1;
            Ok(logits)
        }
    }

    fn tokenizer() -> TextTokenizer {
        TextTokenizer::open(Path::new("fixtures/tiny-llama")).unwrap()
    }

    fn speak(text: &str, max_tokens: usize, max_positions: usize) -> (Generated, Vec<String>) {
        let tokenizer = tokenizer();
        let mut tokens = tokenizer.encode(text, Markup::Parsed).unwrap();
        tokens.push(0);
        let mut script = Script { tokens, read: 0, said: 0 };
        let mut pieces = Vec::new();
        let mut sampler = Sampler::new(Sampling::default()).unwrap();
        let mut hear = |piece: &str| {
            pieces.push(piece.to_owned());
            true
        };
        let said = generate(
            &mut script,
            &tokenizer,
            &[5, 6],
            max_tokens,
            max_positions,
            &mut sampler,
            &mut hear,
        );
        (said.unwrap(), pieces)
    }

    #[test]
    fn characters_of_many_tokens_come_whole() {
        let text = " né 🙂, 世界";
        let (said, pieces) = speak(text, 100, 512);
        assert_eq!((said.text.as_str(), said.stop), (text, Stop::EndOfText));
        assert_eq!(pieces.concat(), text);
        assert!(pieces.len() > 3 && said.tokens.len() > pieces.len(), "{pieces:?}");
    }

    #[test]
    fn every_reason_to_stop() {
        let (said, pieces) = speak("🙂", 2, 512);
        assert_eq!((said.tokens.len(), said.stop), (2, Stop::MaxTokens));
        assert_eq!(pieces, ["\u{fffd}"], "what is unfinished is shown as such");
        let (said, _) = speak("one two three four five", 100, 4);
        assert_eq!((said.tokens.len(), said.stop), (3, Stop::ContextFull));
        assert!(speak("one", 0, 512).0.tokens.is_empty());
        let mut script = Script { tokens: vec![1], read: 0, said: 0 };
        let mut sampler = Sampler::new(Sampling::default()).unwrap();
        let empty =
            generate(&mut script, &tokenizer(), &[], 1, 9, &mut sampler, &mut |_: &str| true);
        assert!(matches!(empty, Err(Error::Usage(_))));
    }

    #[test]
    fn special_tokens_are_text_or_markup() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.encode("<|endoftext|>", Markup::Parsed).unwrap(), [0]);
        assert!(!tokenizer.encode("<|endoftext|>", Markup::Literal).unwrap().contains(&0));
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, &[0][..]));
    }
}
