//! Tokens of a text, a piece at a time.
//!
//! Tokenising takes a hundred times the memory of the text, so a long one is cut into pieces that
//! overlap. What a tokenizer makes of a place depends on what is near it: tokens near the ends of a
//! piece are not trusted, and the next piece is joined on where it agrees with the last one on a run of
//! tokens, ids and places. Where two pieces do not agree, the overlap grows, up to the whole text. So
//! the tokens are those of the text as a whole.

use std::ops::Range;

use super::text::TextTokenizer;
use super::text_file::Text;
use crate::error::Result;

/// Bytes of a piece.
const PIECE: u64 = 1 << 16;
/// Bytes before the end of a piece in which its tokens are not trusted.
const MARGIN: u64 = 1 << 11;
/// Bytes before a cut from which the next piece starts.
const OVERLAP: u64 = 1 << 12;
/// Tokens on which two pieces agree before they are joined.
const RUN: usize = 32;

/// A token and the bytes of the text that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlacedToken {
    pub(super) id: u32,
    pub(super) bytes: Range<u64>,
}

/// What is left to tokenise of a text.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    text: &'a Text,
    tokenizer: &'a TextTokenizer,
    piece: u64,
    /// The last tokens given; fewer than a run at the start.
    tail: Vec<PlacedToken>,
    given: usize,
    /// The text is at its end.
    done: bool,
}

impl<'a> Pieces<'a> {
    /// All of `text`.
    pub(super) fn new(text: &'a Text, tokenizer: &'a TextTokenizer) -> Self {
        Self { text, tokenizer, piece: PIECE, tail: Vec::new(), given: 0, done: false }
    }

    /// The tokens that follow; none at the end.
    ///
    /// # Errors
    /// As reading and tokenising.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u32>>> {
        if self.done {
            return Ok(None);
        }
        let cut = self.tail.last().map_or(0, |token| token.bytes.end);
        let (mut overlap, mut piece) = (OVERLAP, self.piece);
        loop {
            let from = cut.saturating_sub(overlap);
            let whole = from == 0 && piece >= self.text.bytes();
            let found = self.tokenizer.encode_placed(self.text, from, piece)?;
            let end = if from + piece >= self.text.bytes() {
                found.len()
            } else {
                let trusted = (from + piece).saturating_sub(MARGIN);
                found.iter().position(|token| token.bytes.end > trusted).unwrap_or(found.len())
            };
            let start = match self.join(&found[..end]) {
                // The whole text agrees with itself.
                None if whole => Some(self.given.min(end)),
                start => start,
            };
            let last = end == found.len() && from + piece >= self.text.bytes();
            if let Some(start) = start.filter(|&start| last || end >= start + RUN) {
                self.done = last;
                self.tail = found[end.saturating_sub(RUN)..end].to_vec();
                self.given += end - start;
                return Ok(Some(found[start..end].iter().map(|token| token.id).collect()));
            }
            (overlap, piece) = (overlap * 8, (overlap * 32).max(piece * 2));
        }
    }

    /// Where in `found` the tokens after those of the tail start.
    fn join(&self, found: &[PlacedToken]) -> Option<usize> {
        if self.given == 0 {
            return Some(0);
        }
        let ends = found.windows(self.tail.len()).position(|run| run == self.tail)?;
        Some(ends + self.tail.len())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::super::text::{Markup, TOKENIZER_FILE};
    use super::*;

    fn tokenizer(json: &Value) -> TextTokenizer {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(TOKENIZER_FILE), json.to_string()).unwrap();
        TextTokenizer::open(folder.path()).unwrap()
    }

    fn fixture(name: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        std::fs::read_to_string(folder.join(name)).unwrap()
    }

    /// Pieces of a text are the text.
    fn check(tokenizer: &TextTokenizer, text: &str) -> usize {
        let whole = tokenizer.encode(text, Markup::Literal).unwrap();
        let text = Text::in_memory(Path::new("t"), text.to_owned());
        let mut pieces = Pieces::new(&text, tokenizer);
        let (mut found, mut count) = (Vec::new(), 0);
        while let Some(piece) = pieces.next().unwrap() {
            found.extend(piece);
            count += 1;
        }
        assert!(found == whole, "{} tokens of {}", found.len(), whole.len());
        count
    }

    fn model(model: &Value, normalizer: &Value, pre_tokenizer: &Value) -> TextTokenizer {
        tokenizer(&json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null,
            "decoder": null, "model": model,
        }))
    }

    fn letters() -> impl Iterator<Item = char> {
        "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,.'-;:?!\"()$%&0123456789\n".chars()
    }

    #[test]
    fn tokens_are_those_of_the_whole_text() {
        let text: String = fixture("calib_cc0.txt").chars().take(300_000).collect();
        let bytes = serde_json::from_str(&fixture("tiny-llama/tokenizer.json")).unwrap();
        let bytes = tokenizer(&bytes);
        assert!(check(&bytes, &text) > 3);
        assert_eq!(check(&bytes, &text[..1000]), 1);
        assert_eq!(check(&bytes, ""), 1);
        // Long runs of one character, digits, and characters of several bytes.
        let runs = ["a".repeat(100_000), "7".repeat(90_001), " \n".repeat(50_000)].concat();
        check(&bytes, &runs);
        check(&bytes, &"é€😀ß".repeat(20_000));

        // All of the text is one word, as in Llama 2.
        let merges = ["t h", "th e", "▁ the", "i n", "▁ a", "▁a n", "e r", "o n", "▁ o", "▁o f"];
        let merged = merges.iter().map(|merge| merge.replace(' ', ""));
        let symbols: Vec<String> = std::iter::once("?unk".to_owned())
            .chain(letters().map(String::from))
            .chain(merged)
            .collect();
        let vocab: serde_json::Map<String, Value> =
            symbols.iter().enumerate().map(|(i, symbol)| (symbol.clone(), i.into())).collect();
        let one_word = model(
            &json!({ "type": "BPE", "vocab": vocab, "merges": merges, "unk_token": "?unk" }),
            &json!({ "type": "Sequence", "normalizers": [
                { "type": "Prepend", "prepend": "▁" },
                { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
            ] }),
            &Value::Null,
        );
        assert!(check(&one_word, &text[..200_000]) > 2);

        // The likeliest cut, as SentencePiece has it.
        let scored: Vec<Value> = symbols
            .iter()
            .map(|symbol| json!([symbol, -6.0 + symbol.chars().count() as f64]))
            .collect();
        let likeliest = model(
            &json!({ "type": "Unigram", "unk_id": 0, "vocab": scored, "byte_fallback": false }),
            &Value::Null,
            &json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false }),
        );
        assert!(check(&likeliest, &text[..200_000]) > 2);
    }
}
