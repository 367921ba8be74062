//! A text on its way through a model, all windows site by site.

use std::path::Path;

use super::activations::Activations;
use super::text::CalibrationText;
use crate::error::Result;
use crate::model::{HeldBlock, Model, Observer, Passage, Site};

/// Tokens that run at once.
pub(crate) const BATCH_TOKENS: usize = 4096;

/// The hidden states of every token of a text, in two files: the residual stream, and what the
/// linear layers at the last site saw.
#[derive(Debug)]
pub(crate) struct Stream<'m> {
    model: &'m Model,
    window: usize,
    residual: Activations,
    input: Activations,
}

impl<'m> Stream<'m> {
    /// The embeddings of `text`; files go to `folder` under names that start with `name`.
    ///
    /// # Errors
    /// A token outside the vocabulary; I/O.
    pub(crate) fn start(
        model: &'m Model,
        text: &CalibrationText,
        folder: &Path,
        name: &str,
    ) -> Result<Self> {
        let windows = (BATCH_TOKENS / text.ctx).max(1);
        let (tokens, batch) = (text.tokens(), windows * text.ctx);
        let file = |part: &str, width: usize| {
            Activations::create(&folder.join(format!("{name}-{part}")), tokens, width, batch)
        };
        let residual = file("residual", model.architecture().hidden_size)?;
        let input = file("input", model.widest_input())?;
        for (batch, windows) in text.windows().chunks(windows).enumerate() {
            residual.write(batch, &model.embeddings(&windows.concat())?)?;
        }
        Ok(Self { model, window: text.ctx, residual, input })
    }

    /// The model.
    pub(crate) fn model(&self) -> &'m Model {
        self.model
    }

    /// Number of batches.
    pub(crate) fn batches(&self) -> usize {
        self.residual.batches()
    }

    /// The residual stream of batch `index`.
    pub(crate) fn residual(&self, index: usize) -> Result<Vec<f32>> {
        self.residual.read(index)
    }

    /// Takes batch `index` to `site` of `held`, and gives the residual stream that the outputs of
    /// the site's layers will be added to and what the layers see.
    ///
    /// # Errors
    /// As running the block; I/O.
    pub(crate) fn reach(&self, held: &HeldBlock, site: Site, index: usize) -> Result<Passage> {
        let residual = self.residual.read(index)?;
        // Only the output projection's input is needed again.
        let input = if site == Site::FeedForward { self.input.read(index)? } else { Vec::new() };
        let mut passage = Passage { residual, input };
        self.model.reach(held, site, self.window, &mut passage)?;
        match site {
            Site::FeedForward => self.residual.write(index, &passage.residual)?,
            Site::Output | Site::Down => self.input.write(index, &passage.input)?,
            _ => {}
        }
        Ok(passage)
    }

    /// Takes batch `index` from the last site to the end of the block.
    ///
    /// # Errors
    /// As running the block; I/O.
    pub(crate) fn leave(&self, held: &HeldBlock, index: usize) -> Result<()> {
        let mut passage = self.at_last_site(index)?;
        self.model.leave(held, self.window, &mut passage, None)?;
        self.residual.write(index, &passage.residual)
    }

    /// Runs the experts of batch `index` for `observer` and goes nowhere.
    ///
    /// # Errors
    /// As running the block; I/O.
    pub(crate) fn watch_experts(
        &self,
        held: &HeldBlock,
        index: usize,
        observer: Observer<'_>,
    ) -> Result<()> {
        let mut passage = self.at_last_site(index)?;
        self.model.leave(held, self.window, &mut passage, Some(observer))
    }

    fn at_last_site(&self, index: usize) -> Result<Passage> {
        Ok(Passage { residual: self.residual.read(index)?, input: self.input.read(index)? })
    }
}
