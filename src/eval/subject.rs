//! A model under evaluation: its network, its tokenizer and what it is.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::text::{TOKENIZER_FILE, TextTokenizer};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::model::CausalModel;
use crate::pipeline::manifest::{MANIFEST_FILE, Manifest};
use crate::pipeline::source_fingerprint;

/// What a model folder is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Identity {
    /// The folder.
    pub folder: PathBuf,
    /// Fingerprint of the original weights: computed for an original, from the manifest for a
    /// folder that `compress` wrote.
    pub fingerprint: String,
    /// Of a compressed folder: the recipe's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Of a compressed folder: bits per weight, everything counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_weight: Option<f64>,
}

impl Identity {
    /// Reads the manifest of `folder`, or hashes its weights if it has none.
    ///
    /// # Errors
    /// What reading gives.
    pub fn of(folder: &Path) -> Result<Self> {
        if folder.join(MANIFEST_FILE).is_file() {
            let manifest = Manifest::read(folder)?;
            return Ok(Self {
                folder: folder.to_path_buf(),
                fingerprint: manifest.source_fingerprint,
                recipe: Some(manifest.recipe),
                bits_per_weight: Some(manifest.totals.bits_per_weight),
            });
        }
        let fingerprint = source_fingerprint(&Checkpoint::open(folder)?)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            fingerprint: fingerprint.to_hex().to_string(),
            recipe: None,
            bits_per_weight: None,
        })
    }
}

/// A model under evaluation.
pub struct Subject {
    /// What it is.
    pub identity: Identity,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// Its network.
    pub network: Box<dyn CausalModel>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("identity", &self.identity)
            .field("tokenizer", &self.tokenizer)
            .finish_non_exhaustive()
    }
}

impl Subject {
    /// The two must be comparable: as many logits, and the same beginning-of-text token.
    ///
    /// # Errors
    /// [`Error::Input`] naming both.
    pub(super) fn check_vocabulary(&self, against: &Self) -> Result<()> {
        let (ours, theirs) = (self.network.vocab_size(), against.network.vocab_size());
        if ours != theirs {
            let message = format!(
                "the vocabulary has {ours} tokens, but that of {} has {theirs}: their \
                 distributions cannot be compared",
                against.identity.folder.display()
            );
            return Err(Error::input(&self.identity.folder, message));
        }
        if self.tokenizer.bos() != against.tokenizer.bos() {
            return Err(self.other_tokens(against, "begins texts with another token"));
        }
        Ok(())
    }

    /// Both tokenizers must give the same ids for `text`.
    ///
    /// # Errors
    /// [`Error::Input`] naming both and the first difference.
    pub(super) fn check_same_tokens(
        &self,
        against: &Self,
        ours: &[u32],
        theirs: &[u32],
    ) -> Result<()> {
        if ours == theirs {
            return Ok(());
        }
        let shared = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
        let what = format!("cuts the text into other tokens, from token {shared} on");
        Err(self.other_tokens(against, &what))
    }

    /// Token ids must be rows of the network's output.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub(super) fn check_token(&self, largest: u32) -> Result<()> {
        let vocabulary = self.network.vocab_size();
        if (largest as usize) < vocabulary {
            return Ok(());
        }
        let message = format!("gives token {largest}, but the model knows only {vocabulary}");
        Err(Error::input(self.tokenizer.path(), message))
    }

    /// A window must fit what the model was made for.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub(super) fn check_ctx(&self, ctx: usize) -> Result<()> {
        let maximum = self.network.max_positions();
        if ctx <= maximum {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "a context of {ctx} tokens is over the {maximum} that {} was made for",
            self.identity.folder.display()
        )))
    }

    fn other_tokens(&self, against: &Self, what: &str) -> Error {
        let other = against.tokenizer.path().display();
        let message = format!("{what} than {other}; both folders need the same {TOKENIZER_FILE}");
        Error::input(self.tokenizer.path(), message)
    }
}
