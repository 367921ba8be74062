//! The compressed model in training, end to end.

use std::path::PathBuf;

use compress_model_qat::train::{Losses, Position, Rates, Step, Trainee};
use rayon::prelude::*;

use super::layer::{Layers, Parameters, Place};
use super::loss::{Sides, next_tokens};
use super::options::TrainOptions;
use super::state;
use super::teacher::Teacher;
use super::text::TrainingText;
use crate::error::{Error, Result};
use crate::model::{HeldBlock, Model, Pass};

/// File of the state in the work folder.
pub(super) const STATE_FILE: &str = "state.safetensors";

/// Windows of training that stand in for held-out ones where there are none.
const EVALUATED: usize = 8;

/// A model, what of it is trained, and what it learns from.
pub(super) struct Network<'a> {
    pub(super) model: &'a Model,
    pub(super) teacher: &'a Teacher,
    pub(super) text: &'a TrainingText,
    pub(super) options: &'a TrainOptions,
    pub(super) blocks: Vec<HeldBlock>,
    pub(super) layers: Layers,
    /// Where the state is stored.
    pub(super) folder: PathBuf,
    /// What the layers hold: as training sees it, as it is exported, or neither any more.
    installed: Option<Installed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Installed {
    Training,
    Exported,
}

impl<'a> Network<'a> {
    /// Holds all blocks of `model` and makes `layers` take part in backward passes.
    ///
    /// # Errors
    /// What reading weights gives.
    pub(super) fn new(
        model: &'a Model,
        teacher: &'a Teacher,
        text: &'a TrainingText,
        options: &'a TrainOptions,
        layers: Layers,
        folder: PathBuf,
    ) -> Result<Self> {
        let mut blocks: Vec<HeldBlock> =
            (0..model.block_count()).map(|i| model.hold_block(i)).collect::<Result<_>>()?;
        for (place, parameters) in &layers {
            parameters.attach(model, &mut blocks[place.block], place)?;
        }
        let installed = None;
        Ok(Self { model, teacher, text, options, blocks, layers, folder, installed })
    }

    fn install(&mut self, wanted: Installed) -> Result<()> {
        if self.installed == Some(wanted) {
            return Ok(());
        }
        let mut layers = self.layers.iter().peekable();
        let mut of_block: Vec<Vec<&(Place, Parameters)>> = Vec::new();
        for index in 0..self.blocks.len() {
            let mut own = Vec::new();
            while let Some(layer) = layers.next_if(|(place, _)| place.block == index) {
                own.push(layer);
            }
            of_block.push(own);
        }
        let model = self.model;
        self.blocks.par_iter_mut().zip(of_block).try_for_each(|(held, layers)| {
            let exported = wanted == Installed::Exported;
            layers.iter().try_for_each(|(place, parameters)| {
                parameters.install(model, held, place, exported)
            })
        })?;
        self.installed = Some(wanted);
        Ok(())
    }

    /// Runs windows, which have these numbers for the teacher.
    fn run(&self, windows: &[&[u32]], keep: bool) -> Result<(Pass, Vec<f32>)> {
        let x = self.model.embeddings(&windows.concat())?;
        let pass = self.model.pass(&self.blocks, &x, self.text.ctx, true, keep)?;
        let hidden = pass.hidden().map_err(|e| self.fault(&e.to_string()))?;
        Ok((pass, hidden))
    }

    fn losses(
        &self,
        numbers: &[usize],
        windows: &[&[u32]],
        hidden: &[f32],
        gradient: bool,
    ) -> Result<(Losses, Vec<f32>)> {
        let original = self.teacher.hidden(numbers, windows)?;
        let next = next_tokens(windows);
        self.teacher.with_model(|teacher| {
            let sides = Sides {
                model: self.model,
                original: teacher,
                hidden,
                hidden_original: &original,
                next: &next,
            };
            sides.losses(self.options.loss(), gradient)
        })
    }

    /// [`Error::Model`] about the model in training.
    pub(super) fn fault(&self, message: &str) -> Error {
        Error::Model { folder: self.model.folder().to_path_buf(), message: message.to_owned() }
    }

    /// Stores everything.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn store(&self, position: &Position) -> Result<()> {
        state::write(&self.folder.join(STATE_FILE), &self.layers, Some(position))
    }

    fn best_file(&self) -> PathBuf {
        self.folder.join("best.safetensors")
    }
}

impl Trainee for Network<'_> {
    type Error = Error;

    fn accumulate(&mut self, numbers: &[usize]) -> Result<Losses> {
        self.install(Installed::Training)?;
        let windows: Vec<&[u32]> =
            numbers.iter().map(|&i| self.text.windows[i].as_slice()).collect();
        let (pass, hidden) = self.run(&windows, !self.options.recompute)?;
        if hidden.iter().any(|h| !h.is_finite()) {
            return Ok(Losses { total: f64::NAN, tokens: 1, ..Losses::default() });
        }
        let (losses, gradient) = self.losses(numbers, &windows, &hidden, true)?;
        if losses.total.is_finite() {
            self.model.backward(&self.blocks, pass, &gradient)?;
        }
        Ok(losses)
    }

    fn squared_norm(&mut self) -> f64 {
        let norms: Vec<f64> =
            self.layers.par_iter_mut().map(|(_, parameters)| parameters.squared_norm()).collect();
        norms.iter().sum()
    }

    fn step(&mut self, rates: &Rates, step: &Step) {
        self.layers.par_iter_mut().for_each(|(_, parameters)| parameters.step(rates, step));
        self.installed = None;
    }

    fn clear(&mut self) {
        self.layers.iter().for_each(|(_, parameters)| parameters.clear());
    }

    fn evaluate(&mut self) -> Result<Losses> {
        self.install(Installed::Exported)?;
        let mut sum = Losses::default();
        let (first, evaluated) = if self.holds_out() {
            (self.text.windows.len(), &self.text.held_out[..])
        } else {
            (0, &self.text.windows[..self.text.windows.len().min(EVALUATED)])
        };
        for (i, windows) in evaluated.chunks(self.options.batch).enumerate() {
            let start = first + i * self.options.batch;
            let numbers: Vec<usize> = (start..start + windows.len()).collect();
            let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
            let (_, hidden) = self.run(&windows, false)?;
            sum.absorb(&self.losses(&numbers, &windows, &hidden, false)?.0);
        }
        Ok(sum)
    }

    fn holds_out(&self) -> bool {
        !self.text.held_out.is_empty()
    }

    fn save(&mut self, position: &Position) -> Result<()> {
        self.store(position)
    }

    fn restore(&mut self) -> Result<Option<Position>> {
        self.installed = None;
        state::read(&self.folder.join(STATE_FILE), &mut self.layers, self.options.spike)
    }

    fn save_best(&mut self) -> Result<()> {
        state::write(&self.best_file(), &self.layers, None)
    }

    fn restore_best(&mut self) -> Result<()> {
        self.installed = None;
        state::read(&self.best_file(), &mut self.layers, self.options.spike).map(|_| ())
    }
}
