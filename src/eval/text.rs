//! From text to token ids and back: the tokenizer of a model folder.

use std::fmt;
use std::panic;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::Tokenizer;

use super::pieces::PlacedToken;
use super::text_file::Text;
use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::{check_given, read_json, read_member};
use crate::error::{Error, Result};

/// Name of the tokenizer in a model folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Largest tokenizer read.
const MAX_TOKENIZER: u64 = 512 << 20;

/// Whether names of special tokens in a text stand for those tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Markup {
    /// They are text like any other: for evaluation texts, as llama.cpp's perplexity tool has it.
    Literal,
    /// They become the special token: for prompts.
    Parsed,
}

/// The tokenizer of a model folder with what the folder says about its special tokens.
pub struct TextTokenizer {
    path: PathBuf,
    tokenizer: Tokenizer,
    literal: Tokenizer,
    bos: Option<u32>,
    eos: Vec<u32>,
}

impl fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("path", &self.path)
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

/// Parses a tokenizer. The library panics on some that are not whole; here that is an error too.
fn parse(bytes: &[u8]) -> tokenizers::Result<Tokenizer> {
    let report = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let parsed = panic::catch_unwind(|| Tokenizer::from_bytes(bytes));
    panic::set_hook(report);
    parsed.unwrap_or_else(|_| Err("the tokenizers library gives up on it".into()))
}

impl TextTokenizer {
    /// Reads `tokenizer.json` of `folder`, and from `tokenizer_config.json`,
    /// `generation_config.json` and `config.json` which tokens begin a text and end an answer.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the tokenizer is missing or not understood.
    pub fn open(folder: &Path) -> Result<Self> {
        check_given(folder)?;
        let path = folder.join(TOKENIZER_FILE);
        let bytes = read_member(&path, MAX_TOKENIZER)?.ok_or_else(|| {
            Error::checkpoint(
                folder,
                format!("has no {TOKENIZER_FILE}; copy the one of the original model into it"),
            )
        })?;
        let refused = |e: tokenizers::Error| {
            Error::checkpoint(&path, format!("is no tokenizer that can be read: {e}"))
        };
        let mut tokenizer = parse(&bytes).map_err(refused)?;
        // Some files carry the settings of the training run, which would cut the text.
        tokenizer.with_truncation(None).map_err(refused)?;
        tokenizer.with_padding(None);
        let mut literal = tokenizer.clone();
        literal.set_encode_special_tokens(true);
        let settings = read_json(&folder.join("tokenizer_config.json"))?;
        let bos = first_token(&tokenizer, &settings).map_err(refused)?;
        let eos = end_tokens(folder)?;
        Ok(Self { path, tokenizer, literal, bos, eos })
    }

    /// The file it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token that this model expects before every text, if it does.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Tokens that end an answer.
    #[must_use]
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Token ids of `text`, no special tokens added.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the tokenizer refuses the text.
    pub fn encode(&self, text: &str, markup: Markup) -> Result<Vec<u32>> {
        let tokenizer = match markup {
            Markup::Literal => &self.literal,
            Markup::Parsed => &self.tokenizer,
        };
        let encoding = tokenizer.encode_fast(text, false).map_err(|e| self.refused(&e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens of at most `len` bytes of `text` from byte `from` on, as a text of their own without
    /// special tokens.
    ///
    /// # Errors
    /// As [`Self::encode`] and [`Text::piece`].
    pub(super) fn encode_placed(
        &self,
        text: &Text,
        from: u64,
        len: u64,
    ) -> Result<Vec<PlacedToken>> {
        let (first, piece) = text.piece(from, len)?;
        let encoding = self.literal.encode(piece, false).map_err(|e| self.refused(&e))?;
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        let place = |(start, end): (usize, usize)| first + start as u64..first + end as u64;
        Ok(tokens.map(|(&id, &bytes)| PlacedToken { id, bytes: place(bytes) }).collect())
    }

    /// The text of `tokens`, special tokens left out; bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the tokenizer's decoder fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.tokenizer.decode(tokens, true).map_err(|e| self.refused(&e))
    }

    fn refused(&self, e: &tokenizers::Error) -> Error {
        Error::checkpoint(&self.path, e.to_string())
    }
}

/// The beginning-of-text token: as `add_bos_token` of `tokenizer_config.json` says, else what
/// the tokenizer's own post-processor puts before an empty text.
fn first_token(tokenizer: &Tokenizer, settings: &Value) -> tokenizers::Result<Option<u32>> {
    let named = &settings["bos_token"];
    let named = named.as_str().or_else(|| named["content"].as_str());
    match settings["add_bos_token"].as_bool() {
        Some(false) => Ok(None),
        Some(true) if named.is_some() => Ok(named.and_then(|name| tokenizer.token_to_id(name))),
        _ => {
            let with = tokenizer.encode_fast("a", true)?.get_ids().to_vec();
            let without = tokenizer.encode_fast("a", false)?.get_ids().to_vec();
            Ok(with.first().copied().filter(|first| without.first() != Some(first)))
        }
    }
}

/// `eos_token_id`, a number or a list, of `generation_config.json`, else of `config.json`.
fn end_tokens(folder: &Path) -> Result<Vec<u32>> {
    let generation = read_json(&folder.join("generation_config.json"))?;
    let config = ModelConfig::read(folder)?.map_or(Value::Null, |c| c.json().clone());
    let candidates = [
        &generation["eos_token_id"],
        &config["eos_token_id"],
        &config["text_config"]["eos_token_id"],
    ];
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let found = candidates.into_iter().find(|value| !value.is_null());
    Ok(match found {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    })
}
