//! A text on its way through a model, all windows site by site.

use std::path::Path;

use super::activations::{ActivationFile, Activations};
use super::text::CalibrationText;
use crate::error::Result;
use crate::model::{HeldBlock, Model, Observer, Passage, Site};

/// The hidden states of every token of a text: the residual stream, and what the linear layers at
/// the last site saw.
#[derive(Debug)]
pub(crate) struct Stream<'m> {
    model: &'m Model,
    window: usize,
    residual: Activations,
    input: Activations,
}

/// Writes the embeddings of `text` to `hidden`, batch by batch.
///
/// # Errors
/// A token outside the vocabulary; I/O.
pub(super) fn embed(model: &Model, text: &CalibrationText, hidden: &Activations) -> Result<()> {
    for (batch, tokens) in text.batches().enumerate() {
        hidden.write(batch, &model.embeddings(&tokens)?)?;
    }
    Ok(())
}

impl<'m> Stream<'m> {
    /// The embeddings of `text`. Hidden states stay in memory, or go to `files`: a folder, and what
    /// their names start with.
    ///
    /// # Errors
    /// A token outside the vocabulary; I/O.
    pub(crate) fn start(
        model: &'m Model,
        text: &CalibrationText,
        files: Option<(&Path, &str)>,
    ) -> Result<Self> {
        let (tokens, batch) = (text.tokens(), text.batch_tokens());
        let states = |part: &str, width: usize| -> Result<Activations> {
            let Some((folder, name)) = files else {
                return Ok(Activations::in_memory(tokens, batch));
            };
            let path = folder.join(format!("{name}-{part}"));
            Ok(Activations::File(ActivationFile::create(&path, tokens, width, batch)?))
        };
        let residual = states("residual", model.architecture().hidden_size)?;
        let input = states("input", model.widest_input())?;
        embed(model, text, &residual)?;
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

    /// The residual stream of all batches.
    pub(crate) fn residual(&self) -> &Activations {
        &self.residual
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
