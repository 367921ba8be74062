//! Stand-in models for tests: the next token depends on the last one alone.

use std::ops::Range;
use std::path::PathBuf;

use super::subject::{Identity, Subject};
use super::text::TextTokenizer;
use crate::error::Result;
use crate::model::CausalModel;

/// Row t of the table [vocabulary, vocabulary] holds the logits after token t.
#[derive(Debug, Clone)]
pub(super) struct TableModel {
    pub(super) table: Vec<f32>,
    pub(super) vocabulary: usize,
    pub(super) max_positions: usize,
}

impl TableModel {
    /// A table of the fixture's vocabulary, different for every `seed`.
    pub(super) fn noise(seed: u64) -> Self {
        let value = |index: u64| {
            let mixed = (index ^ (seed << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ((mixed ^ (mixed >> 29)) % 8191) as f32 / 1024.0
        };
        Self { table: (0..1 << 20).map(value).collect(), vocabulary: 1024, max_positions: 512 }
    }

    /// As a subject with the fixture's tokenizer.
    pub(super) fn subject(self, name: &str) -> Subject {
        let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-llama");
        let identity = Identity {
            folder: PathBuf::from(name),
            fingerprint: name.to_owned(),
            recipe: None,
            bits_per_weight: None,
        };
        let tokenizer = TextTokenizer::open(&fixture).unwrap();
        Subject { identity, tokenizer, network: Box::new(self) }
    }
}

impl CausalModel for TableModel {
    fn vocab_size(&self) -> usize {
        self.vocabulary
    }

    fn hidden_size(&self) -> usize {
        1
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }

    fn hidden(&mut self, windows: &[&[u32]], scored: Range<usize>) -> Result<Vec<f32>> {
        let last = |window: &&[u32]| window[scored.clone()].to_vec();
        Ok(windows.iter().flat_map(last).map(|token| token as f32).collect())
    }

    fn logits(&self, hidden: &[f32], logits: &mut [f32]) -> Result<()> {
        for (token, row) in hidden.iter().zip(logits.chunks_mut(self.vocabulary)) {
            row.copy_from_slice(&self.table[*token as usize * self.vocabulary..][..row.len()]);
        }
        Ok(())
    }
}
