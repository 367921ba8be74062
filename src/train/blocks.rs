//! Block by block: each block is trained on its own to give what the original block gives.
//!
//! The original block reads what the original model gives it, the trained one what the trained
//! blocks before it give: it learns to make up for their errors. Hidden states of all windows wait
//! in files, trained blocks too, and memory holds one block of each model.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use compress_model_qat::train::{Losses, RunSettings, WindowOrder};
use rayon::prelude::*;

use super::layer::{Layers, Parameters, Place};
use super::loss::{Sides, next_tokens};
use super::options::TrainOptions;
use super::run::places_of;
use super::state;
use super::text::TrainingText;
use crate::calibrate::ActivationFile;
use crate::error::{Error, Result};
use crate::model::{HeldBlock, Model};

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct BlockReport {
    /// Which block.
    pub block: usize,
    /// Squared difference of its outputs, as exported, from the original's over their square, on
    /// the first windows of the text and before training.
    pub before: f64,
    /// The same after training.
    pub after: f64,
    /// Training made it worse, and it stays as it was.
    pub undone: bool,
}

/// What of a layer is trained, as it starts; none for a layer that is not.
pub(super) type Load<'a> = &'a dyn Fn(&Place) -> Result<Option<Parameters>>;

/// Windows that a block's error is measured on.
const MEASURED: usize = 16;

/// A model that is trained block by block.
pub(super) struct Blocks<'a> {
    /// The compressed model that training starts from.
    pub(super) model: &'a Model,
    pub(super) original: &'a Model,
    pub(super) text: &'a TrainingText,
    pub(super) options: &'a TrainOptions,
    pub(super) seed: u64,
    pub(super) load: Load<'a>,
    /// Where trained blocks are stored.
    pub(super) folder: &'a Path,
}

/// Hidden states of windows on their way through the blocks, a window a batch: those to train on,
/// then those held out.
struct States {
    original: ActivationFile,
    trained: ActivationFile,
    /// Of the held-out windows alone, through the blocks as they start.
    before: ActivationFile,
}

impl Blocks<'_> {
    /// Trains the blocks that are not trained yet. After each, `done` is told and says whether to
    /// stop. Gives the losses on held-out windows before and after, of no token where training end
    /// to end follows, which evaluates them itself; or nothing if it was stopped.
    ///
    /// # Errors
    /// [`Error::Model`] where a block's loss is not finite; what running blocks gives; I/O.
    pub(super) fn train(
        &self,
        done: &mut dyn FnMut(BlockReport) -> bool,
    ) -> Result<Option<[Losses; 2]>> {
        let states = self.states()?;
        let windows = self.text.windows.len();
        for block in 0..self.model.block_count() {
            self.open(self.original, block, Vec::new())?.advance(&states.original)?;
            let mut open = self.open(self.model, block, self.starting(block)?)?;
            open.install(true)?;
            open.advance(&states.before)?;
            if self.file(block).exists() {
                state::read(&self.file(block), &mut open.layers, self.options.spike)?;
                open.install(true)?;
            } else {
                let before = open.error(&states, windows)?;
                self.train_block(&mut open, &states)?;
                open.install(true)?;
                let after = open.error(&states, windows)?;
                // An error that is not a number is worse than any.
                let worse = after.partial_cmp(&before).is_none_or(Ordering::is_gt);
                let undone = worse && !self.options.keep_last;
                if undone {
                    open.layers = self.starting(block)?;
                    open.install(true)?;
                }
                state::write(&self.file(block), &open.layers, None)?;
                if done(BlockReport { block, before, after, undone }) {
                    return Ok(None);
                }
            }
            open.advance(&states.trained)?;
        }
        let losses = |found: &ActivationFile, first: usize| -> Result<Losses> {
            let mut sum = Losses::default();
            for (i, window) in self.held_out().iter().enumerate() {
                let (h, original) = (found.read(first + i)?, states.original.read(windows + i)?);
                sum.absorb(&self.losses(window, &h, &original)?);
            }
            Ok(sum)
        };
        Ok(Some([losses(&states.before, 0)?, losses(&states.trained, windows)?]))
    }

    /// Windows to evaluate on.
    fn held_out(&self) -> &[Vec<u32>] {
        if self.options.only_blocks() { &self.text.held_out } else { &[] }
    }

    /// The layers of `block` as they were trained, or as they start if they were not.
    ///
    /// # Errors
    /// What reading weights and states gives.
    pub(super) fn layers(&self, block: usize) -> Result<Layers> {
        let mut layers = self.starting(block)?;
        if self.file(block).exists() {
            state::read(&self.file(block), &mut layers, self.options.spike)?;
        }
        Ok(layers)
    }

    fn starting(&self, block: usize) -> Result<Layers> {
        let places = places_of(self.model, block).into_iter();
        let loaded = places.map(|place| Ok((self.load)(&place)?.map(|found| (place, found))));
        loaded.filter_map(Result::transpose).collect()
    }

    /// Blocks that are trained already.
    pub(super) fn trained(&self) -> usize {
        (0..self.model.block_count()).take_while(|&block| self.file(block).exists()).count()
    }

    fn file(&self, block: usize) -> PathBuf {
        self.folder.join(format!("block-{block}.safetensors"))
    }

    /// Embeddings of all windows.
    fn states(&self) -> Result<States> {
        let (windows, held_out) = (&self.text.windows, self.held_out());
        let (ctx, width) = (self.text.ctx, self.model.architecture().hidden_size);
        let file = |name: &str, count: usize| {
            ActivationFile::create(&self.folder.join(name), count * ctx, width, ctx)
        };
        let all = windows.len() + held_out.len();
        let states = States {
            original: file("blocks-original", all)?,
            trained: file("blocks-trained", all)?,
            before: file("blocks-before", held_out.len())?,
        };
        for (i, window) in windows.iter().chain(held_out).enumerate() {
            states.original.write(i, &self.original.embeddings(window)?)?;
            let x = self.model.embeddings(window)?;
            states.trained.write(i, &x)?;
            if i >= windows.len() {
                states.before.write(i - windows.len(), &x)?;
            }
        }
        Ok(states)
    }

    fn open<'m>(&self, model: &'m Model, block: usize, layers: Layers) -> Result<OpenBlock<'m>> {
        let mut held = model.hold_block(block)?;
        for (place, parameters) in &layers {
            parameters.attach(model, &mut held, place)?;
        }
        Ok(OpenBlock { model, block, held: [held], layers, ctx: self.text.ctx })
    }

    fn train_block(&self, open: &mut OpenBlock<'_>, states: &States) -> Result<()> {
        let (options, block) = (self.options, open.block);
        let windows = self.text.windows.len();
        let order = WindowOrder { count: windows, seed: self.seed.wrapping_add(block as u64) };
        let steps = (options.block_epochs * windows as u64).div_ceil(options.batch as u64);
        let settings = RunSettings {
            schedule: options.schedule(steps),
            accumulate: 1,
            ..options.run(windows, self.seed)
        };
        for number in 1..=steps {
            open.install(false)?;
            let batch = order.take((number - 1) * options.batch as u64, options.batch);
            let read = |file: &ActivationFile| -> Result<Vec<f32>> {
                Ok(batch.iter().map(|&i| file.read(i)).collect::<Result<Vec<_>>>()?.concat())
            };
            let (x, target) = (read(&states.trained)?, read(&states.original)?);
            let pass = open.model.pass(&open.held, &x, open.ctx, false, true)?;
            let y = pass.hidden().map_err(|e| fault(open.model, &e.to_string()))?;
            let (loss, gradient) = difference(&y, &target);
            if !loss.is_finite() {
                let message = format!("training block {block} diverged; lower the rate");
                return Err(fault(open.model, &message));
            }
            open.model.backward(&open.held, pass, &gradient)?;
            let norms = open.layers.par_iter_mut().map(|(_, p)| p.squared_norm());
            let norm = norms.collect::<Vec<f64>>().iter().sum::<f64>().sqrt();
            let (rates, step) = settings.step(number, norm, settings.schedule.share(number));
            open.layers.par_iter_mut().for_each(|(_, p)| p.step(&rates, &step));
        }
        Ok(())
    }

    /// Losses of a window whose hidden states after the last block are `hidden` and `original`.
    fn losses(&self, window: &[u32], hidden: &[f32], original: &[f32]) -> Result<Losses> {
        let sides = Sides {
            model: self.model,
            original: self.original,
            hidden: &self.model.head_input(hidden)?,
            hidden_original: &self.original.head_input(original)?,
            next: &next_tokens(&[window]),
        };
        Ok(sides.losses(self.options.loss(), false)?.0)
    }
}

/// A block in memory, and what of it is trained.
struct OpenBlock<'m> {
    model: &'m Model,
    block: usize,
    held: [HeldBlock; 1],
    layers: Layers,
    ctx: usize,
}

impl OpenBlock<'_> {
    fn install(&mut self, exported: bool) -> Result<()> {
        let Self { model, held: [held], layers, .. } = self;
        layers
            .iter()
            .try_for_each(|(place, parameters)| parameters.install(model, held, place, exported))
    }

    /// Takes all hidden states through the block.
    fn advance(&self, states: &ActivationFile) -> Result<()> {
        (0..states.batches()).try_for_each(|i| states.write(i, &self.run(&states.read(i)?)?))
    }

    fn run(&self, x: &[f32]) -> Result<Vec<f32>> {
        let pass = self.model.pass(&self.held, x, self.ctx, false, false)?;
        pass.hidden().map_err(|e| fault(self.model, &e.to_string()))
    }

    /// Mean error of the block as it is installed, on the first of `windows`.
    fn error(&self, states: &States, windows: usize) -> Result<f64> {
        let windows = windows.min(MEASURED);
        let errors = (0..windows).map(|i| {
            let y = self.run(&states.trained.read(i)?)?;
            Ok(difference(&y, &states.original.read(i)?).0)
        });
        Ok(errors.sum::<Result<f64>>()? / windows as f64)
    }
}

fn fault(model: &Model, message: &str) -> Error {
    Error::Model { folder: model.folder().to_path_buf(), message: message.to_owned() }
}

/// ‖y - target‖² / ‖target‖² and its gradient.
fn difference(y: &[f32], target: &[f32]) -> (f64, Vec<f32>) {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let norm: f64 = target.iter().map(|&t| square(t)).sum::<f64>().max(1e-30);
    let distance: f64 = y.iter().zip(target).map(|(y, t)| square(y - t)).sum();
    let factor = (2.0 / norm) as f32;
    (distance / norm, y.iter().zip(target).map(|(y, t)| factor * (y - t)).collect())
}
