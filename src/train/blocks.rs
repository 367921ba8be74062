//! Block by block: each block is trained on its own to give what the original block gives.
//!
//! The original block reads what the original model gives it, the trained one what the trained
//! blocks before it give: it learns to make up for their errors. Hidden states of all windows wait
//! in files, and only one block has gradients at a time.

use std::path::Path;

use compress_model_qat::train::{RunSettings, WindowOrder};
use rayon::prelude::*;

use super::layer::{Parameters, Place};
use super::network::Network;
use crate::calibrate::ActivationFile;
use crate::error::{Error, Result};
use crate::model::Model;

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
}

/// Windows that a block's error is measured on.
const MEASURED: usize = 16;

/// Hidden states of all windows, one window a batch.
struct States {
    student: ActivationFile,
    teacher: ActivationFile,
}

/// Trains the blocks that are not trained yet, each for `epochs` passes over the text. After each,
/// `done` is told and the run is stored.
///
/// # Errors
/// [`Error::Model`] where a block's loss is not finite; what running blocks gives; I/O.
pub(super) fn train_blocks(
    network: &mut Network<'_>,
    original: &Model,
    epochs: u64,
    seed: u64,
    done: &mut dyn FnMut(&Network<'_>, BlockReport) -> Result<bool>,
) -> Result<bool> {
    let (windows, ctx) = (network.text.windows.len(), network.text.ctx);
    let width = network.model.architecture().hidden_size;
    let folder = network.folder.clone();
    let file = |name: &str| ActivationFile::create(&folder.join(name), windows * ctx, width, ctx);
    let states = States { student: file("blocks-student")?, teacher: file("blocks-teacher")? };
    for (i, window) in network.text.windows.iter().enumerate() {
        states.student.write(i, &network.model.embeddings(window)?)?;
        states.teacher.write(i, &original.embeddings(window)?)?;
    }
    for block in 0..network.blocks.len() {
        let held = original.hold_block(block)?;
        let targets = Outputs { model: original, held: std::slice::from_ref(&held), ctx };
        for i in 0..windows {
            states.teacher.write(i, &targets.of(&states.teacher.read(i)?)?)?;
        }
        let fresh = block >= network.trained_blocks;
        let report =
            if fresh { Some(train_block(network, block, &states, epochs, seed)?) } else { None };
        install(network, block, true)?;
        let held = &network.blocks[block..=block];
        let outputs = Outputs { model: network.model, held, ctx };
        for i in 0..windows {
            states.student.write(i, &outputs.of(&states.student.read(i)?)?)?;
        }
        if let Some(report) = report {
            network.trained_blocks = block + 1;
            if done(network, report)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What blocks give, without gradients.
struct Outputs<'a> {
    model: &'a Model,
    held: &'a [crate::model::HeldBlock],
    ctx: usize,
}

impl Outputs<'_> {
    fn of(&self, x: &[f32]) -> Result<Vec<f32>> {
        let pass = self.model.pass(self.held, x, self.ctx, false, false)?;
        pass.hidden().map_err(|e| fault(self.model.folder(), &e.to_string()))
    }
}

fn fault(folder: &Path, message: &str) -> Error {
    Error::Model { folder: folder.to_path_buf(), message: message.to_owned() }
}

/// The layers of a block, which stand next to each other.
fn own(layers: &mut [(Place, Parameters)], block: usize) -> &mut [(Place, Parameters)] {
    let start = layers.partition_point(|(place, _)| place.block < block);
    let end = layers.partition_point(|(place, _)| place.block <= block);
    &mut layers[start..end]
}

fn install(network: &mut Network<'_>, block: usize, exported: bool) -> Result<()> {
    let held = &mut network.blocks[block];
    own(&mut network.layers, block).iter().try_for_each(|(place, parameters)| {
        parameters.install(network.model, held, place, exported)
    })
}

fn train_block(
    network: &mut Network<'_>,
    block: usize,
    states: &States,
    epochs: u64,
    seed: u64,
) -> Result<BlockReport> {
    let options = network.options;
    let windows = network.text.windows.len();
    let order = WindowOrder { count: windows, seed: seed.wrapping_add(block as u64) };
    let steps = (epochs * windows as u64).div_ceil(options.batch as u64);
    let settings = RunSettings {
        schedule: options.schedule(steps),
        accumulate: 1,
        ..options.run(windows, seed)
    };
    let before = measure(network, block, states)?;
    for number in 1..=steps {
        install(network, block, false)?;
        let batch = order.take((number - 1) * options.batch as u64, options.batch);
        let read = |file: &ActivationFile| -> Result<Vec<f32>> {
            Ok(batch.iter().map(|&i| file.read(i)).collect::<Result<Vec<_>>>()?.concat())
        };
        let (x, target) = (read(&states.student)?, read(&states.teacher)?);
        let held = &network.blocks[block..=block];
        let pass = network.model.pass(held, &x, network.text.ctx, false, true)?;
        let folder = network.model.folder();
        let y = pass.hidden().map_err(|e| fault(folder, &e.to_string()))?;
        let (loss, gradient) = difference(&y, &target);
        if !loss.is_finite() {
            return Err(fault(folder, &format!("training block {block} diverged; lower the rate")));
        }
        network.model.backward(held, pass, &gradient)?;
        let layers = own(&mut network.layers, block);
        let norms: Vec<f64> = layers.par_iter_mut().map(|(_, p)| p.squared_norm()).collect();
        let norm = norms.iter().sum::<f64>().sqrt();
        let (rates, step) = settings.step(number, norm, settings.schedule.share(number));
        layers.par_iter_mut().for_each(|(_, p)| p.step(&rates, &step));
    }
    // End-to-end training starts with fresh moments.
    own(&mut network.layers, block).iter_mut().for_each(|(_, p)| p.forget_moments());
    Ok(BlockReport { block, before, after: measure(network, block, states)? })
}

/// Mean error of a block as it is exported.
fn measure(network: &mut Network<'_>, block: usize, states: &States) -> Result<f64> {
    install(network, block, true)?;
    let held = &network.blocks[block..=block];
    let outputs = Outputs { model: network.model, held, ctx: network.text.ctx };
    let windows = network.text.windows.len().min(MEASURED);
    let errors = (0..windows).map(|i| {
        let y = outputs.of(&states.student.read(i)?)?;
        Ok(difference(&y, &states.teacher.read(i)?).0)
    });
    Ok(errors.sum::<Result<f64>>()? / windows as f64)
}

/// ‖y - target‖² / ‖target‖² and its gradient.
fn difference(y: &[f32], target: &[f32]) -> (f64, Vec<f32>) {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let norm: f64 = target.iter().map(|&t| square(t)).sum::<f64>().max(1e-30);
    let distance: f64 = y.iter().zip(target).map(|(y, t)| square(y - t)).sum();
    let factor = (2.0 / norm) as f32;
    (distance / norm, y.iter().zip(target).map(|(y, t)| factor * (y - t)).collect())
}
