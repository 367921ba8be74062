//! Flags that say how a model is run, and opening one by them.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::error::Result;
use crate::eval::{Identity, Subject, TextTokenizer};
use crate::model::{KvCache, Model, ModelOptions};

#[derive(Debug, Clone, Copy, Args, Serialize)]
pub(super) struct NetworkArgs {
    /// Precision of cached keys and values; the original always keeps f32
    #[arg(long, value_enum, default_value_t = KvCache::F32)]
    kv_cache: KvCache,
    /// Leave the adapters of a compressed folder out
    #[arg(long)]
    no_adapters: bool,
}

impl NetworkArgs {
    /// How the original runs: nothing taken away.
    pub(super) fn of_original(self) -> Self {
        Self { kv_cache: KvCache::F32, no_adapters: false }
    }

    /// How the model runs.
    pub(super) fn options(self) -> ModelOptions {
        let Self { kv_cache, no_adapters } = self;
        ModelOptions { kv_cache, adapters: !no_adapters, ..ModelOptions::default() }
    }

    /// Opens network and tokenizer of `folder`.
    pub(super) fn open(self, folder: &Path) -> Result<Subject> {
        // The cheap parts first: what is wrong with them should not take reading weights.
        let tokenizer = TextTokenizer::open(folder)?;
        let network = Box::new(Model::open(folder, self.options())?);
        Ok(Subject { identity: Identity::of(folder)?, tokenizer, network })
    }

    /// Opens the original beside it.
    pub(super) fn open_original(self, folder: &Path) -> Result<Subject> {
        self.of_original().open(folder)
    }
}
