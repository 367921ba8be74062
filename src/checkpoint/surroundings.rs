//! What a checkpoint is beside its weights: its configuration, its tokenizer, and the other files
//! that go into every copy of the model. Work that is gone on with, or that others did, is of one
//! checkpoint only if these are the same too.

use std::fs;

use blake3::Hasher;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Dependency, find_sidecars};
use crate::error::{IoContext, Result};

/// Files that decide what a text is in tokens.
const TOKENIZER: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

/// BLAKE3 of what is beside the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    /// Of `config.json`, without regard to how it is spaced; empty where there is none.
    config: String,
    /// Of the files that decide what a text is in tokens.
    tokenizer: String,
    /// Of the other files that are copied: templates, generation settings, licences.
    others: String,
}

const CONFIG: &str = "config.json";
const TOKENS: &str = "the tokenizer";
const OTHERS: &str = "one of the files beside the weights";

impl Surroundings {
    /// Those of `checkpoint`.
    ///
    /// # Errors
    /// As [`find_sidecars`]; [`crate::Error::Io`] if a file cannot be read.
    pub(crate) fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let config = checkpoint.config().map_or_else(String::new, |config| {
            let text = serde_json::to_vec(config.json()).expect("invariant: it was JSON");
            blake3::hash(&text).to_hex().to_string()
        });
        let folder = checkpoint.folder();
        let (mut tokenizer, mut others) = (Hasher::new(), Hasher::new());
        for name in find_sidecars(folder)? {
            let path = folder.join(&name);
            let contents = blake3::hash(&fs::read(&path).at("read", &path)?);
            let of = if TOKENIZER.contains(&&*name) { &mut tokenizer } else { &mut others };
            of.update(format!("{name} {contents}\n").as_bytes());
        }
        let text = |hasher: &Hasher| hasher.finalize().to_hex().to_string();
        Ok(Self { config, tokenizer: text(&tokenizer), others: text(&others) })
    }

    /// What a run depends on.
    pub(crate) fn dependencies(&self) -> [Dependency; 3] {
        [
            (CONFIG, self.config.clone()),
            (TOKENS, self.tokenizer.clone()),
            (OTHERS, self.others.clone()),
        ]
    }

    /// The first thing that is not as in `other`.
    pub(crate) fn difference(&self, other: &Self) -> Option<&'static str> {
        let mut pairs = self.dependencies().into_iter().zip(other.dependencies());
        pairs.find(|(own, theirs)| own != theirs).map(|((what, _), _)| what)
    }

    /// The same, for what decides what a model makes of a text.
    #[cfg(feature = "model")]
    pub(crate) fn difference_to_a_reader(&self, other: &Self) -> Option<&'static str> {
        self.difference(other).filter(|what| *what != OTHERS)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_kind_of_change_is_named() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-llama");
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(source).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        let of = || Surroundings::of(&Checkpoint::open(folder.path()).unwrap()).unwrap();
        let before = of();
        let edit = |name: &str, from: &str, to: &str| {
            let path = folder.path().join(name);
            let text = fs::read_to_string(&path).unwrap_or_default();
            fs::write(&path, text.replace(from, to) + "\n").unwrap();
            before.difference(&of())
        };
        assert_eq!(edit("config.json", "x-no-such-text", ""), None, "spaces do not count");
        assert_eq!(edit("LICENSE", "", ""), Some(OTHERS));
        #[cfg(feature = "model")]
        assert_eq!(before.difference_to_a_reader(&of()), None);
        assert_eq!(edit("tokenizer_config.json", "{", "{ "), Some(TOKENS));
        assert_eq!(edit("config.json", "\"rope_theta\"", "\"rope_thetta\""), Some(CONFIG));
        #[cfg(feature = "model")]
        assert_eq!(before.difference_to_a_reader(&of()), Some(CONFIG));
    }
}
