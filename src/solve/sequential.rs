//! Layer after layer, each solved on what the compressed layers before it make of the text.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use compress_model_feedback::{Gram, Hessian};

use super::matrix::{Factors, Matrix};
use super::options::SolveOptions;
use crate::calibrate::{Activations, CalibrationText, collect, collect_head, step_all};
use crate::checkpoint::dtype::AlignedBytes;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::codec::WorkerPools;
use crate::error::{Error, Result};
use crate::model::{FedLayers, Model, ModelOptions};
use crate::pipeline::{Fate, Plan, Progress, SolveReport, SolvedLayer, Solver, Spool};

/// Tokens that run through a block at once.
const BATCH_TOKENS: usize = 4096;

/// Solves the linear layers of a model in the order in which they run.
#[derive(Debug)]
pub struct Sequential<'a> {
    /// The original model.
    pub checkpoint: &'a Checkpoint,
    /// What it reads.
    pub text: CalibrationText,
    /// How each layer is solved.
    pub options: SolveOptions,
}

impl Solver for Sequential<'_> {
    fn solve(
        &self,
        plan: &Plan,
        seed: u64,
        spool: &mut Spool,
        progress: &dyn Progress,
    ) -> Result<SolveReport> {
        let start = Instant::now();
        let model = Model::open(self.checkpoint.folder(), ModelOptions::default())?;
        let mut run = Run {
            solver: self,
            plan,
            seed,
            model: &model,
            by_name: names(self.checkpoint, plan),
            pools: WorkerPools::default(),
            layers: Vec::new(),
        };
        let stream = run.embed(&spool.folder().join("hidden"))?;
        progress.begin("calibrating", model.block_count() as u64);
        for block in 0..model.block_count() {
            run.block(block, &stream, spool, progress)?;
            progress.advance(1);
        }
        run.head(&stream, spool, progress)?;
        let (tokens, seconds) = (self.text.tokens(), start.elapsed().as_secs_f64());
        Ok(SolveReport { tokens, seconds, layers: run.layers })
    }
}

fn names<'a>(checkpoint: &'a Checkpoint, plan: &Plan) -> HashMap<&'a str, usize> {
    let tensors = plan.tensors.iter().enumerate();
    tensors.map(|(i, t)| (checkpoint.tensors()[t.source].name.as_str(), i)).collect()
}

struct Run<'a> {
    solver: &'a Sequential<'a>,
    plan: &'a Plan,
    seed: u64,
    model: &'a Model,
    /// Name of a weight to its number in the plan.
    by_name: HashMap<&'a str, usize>,
    pools: WorkerPools,
    layers: Vec<SolvedLayer>,
}

impl Run<'_> {
    fn embed(&self, path: &Path) -> Result<Activations> {
        let text = &self.solver.text;
        let windows = (BATCH_TOKENS / text.ctx).max(1);
        let width = self.model.architecture().hidden_size;
        let stream = Activations::create(path, text.tokens(), width, windows * text.ctx)?;
        for (batch, windows) in text.windows().chunks(windows).enumerate() {
            stream.write(batch, &self.model.embeddings(&windows.concat())?)?;
        }
        Ok(stream)
    }

    /// Solves the layers of one block and runs the text through the result.
    fn block(
        &mut self,
        index: usize,
        stream: &Activations,
        spool: &mut Spool,
        progress: &dyn Progress,
    ) -> Result<()> {
        let window = self.solver.text.ctx;
        let model = self.model;
        let mut held = model.hold_block(index)?;
        let fed = self.model.fed_layers(index);
        let coded = |fed: &FedLayers| fed.weights.iter().any(|name| self.is_coded(name));
        let wanted: Vec<_> = fed.iter().filter(|fed| coded(fed)).collect();
        let inputs: Vec<_> = wanted.iter().map(|fed| fed.input).collect();
        let grams = collect(self.model, &held, stream, window, |input| inputs.contains(&input))?;
        for fed in wanted {
            match grams.get(&fed.input) {
                Some(gram) => {
                    let replace =
                        |position, weights| held.replace(model, fed.input, position, weights);
                    self.solve_layers(&fed.weights, gram, spool, progress, replace)?;
                }
                None => progress.tensor(&format!("{}: no token came here", fed.weights[0])),
            }
        }
        step_all(self.model, &held, stream, window)
    }

    /// Solves the head, unless it is the embedding table too: rows that are looked up have no
    /// inputs to weigh them by.
    fn head(
        &mut self,
        stream: &Activations,
        spool: &mut Spool,
        progress: &dyn Progress,
    ) -> Result<()> {
        let Some(name) = self.model.own_head().map(str::to_owned) else { return Ok(()) };
        if !self.is_coded(&name) {
            return Ok(());
        }
        let gram = collect_head(self.model, stream)?;
        self.solve_layers(&[name], &gram, spool, progress, |_, _| Ok(()))
    }

    fn is_coded(&self, name: &str) -> bool {
        let planned = self.by_name.get(name).map(|&i| &self.plan.tensors[i].fate);
        matches!(planned, Some(Fate::Coded { .. }))
    }

    /// Solves the layers `names`, which see the same inputs; `solved` gets the position in `names`
    /// and what a reader gets for the weight.
    fn solve_layers(
        &mut self,
        names: &[String],
        gram: &Gram,
        spool: &mut Spool,
        progress: &dyn Progress,
        mut solved: impl FnMut(usize, Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        let mut factors = Factors::default();
        let mut damped: Option<Hessian> = None;
        for (position, name) in names.iter().enumerate() {
            let Some(&number) = self.by_name.get(name.as_str()) else { continue };
            let Fate::Coded { codec, rank } = &self.plan.tensors[number].fate else { continue };
            let pool = self.pools.of(codec);
            let tensor = self.source(number);
            let fault = |e: &dyn std::fmt::Display| {
                Error::tensor(self.solver.checkpoint.file_of(tensor), name, e.to_string())
            };
            if damped.is_none() {
                let hessian = Hessian::new(gram.mean(), gram.width(), self.solver.options.damping);
                damped = Some(hessian.map_err(|e| fault(&e))?);
            }
            let hessian = damped.as_ref().expect("invariant: set above");
            let weights = self.read(tensor)?;
            let matrix = Matrix {
                weights: &weights,
                cols: gram.width(),
                pool: &pool,
                rank: *rank,
                seed: self.seed,
            };
            let solution =
                matrix.solve(hessian, &mut factors, &self.solver.options).map_err(|e| fault(&e))?;
            let plain = matrix.plain().map_err(|e| fault(&e))?;
            let layer = SolvedLayer {
                name: name.clone(),
                plain_db: matrix.output_sqnr_db(&plain, hessian),
                solved_db: matrix.output_sqnr_db(&solution.decoded, hessian),
                damping: hessian.damping(),
                dead: hessian.dead(),
                tokens: gram.tokens(),
            };
            progress.tensor(&format!(
                "{name}: output {:.2} dB plain, {:.2} dB solved",
                layer.plain_db, layer.solved_db
            ));
            self.layers.push(layer);
            spool.put(number, &solution.parts, solution.adapter)?;
            solved(position, solution.decoded)?;
        }
        Ok(())
    }

    fn source(&self, number: usize) -> &Tensor {
        &self.solver.checkpoint.tensors()[self.plan.tensors[number].source]
    }

    fn read(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let mut weights = vec![0.0; tensor.elements() as usize];
        let scratch = &mut AlignedBytes::default();
        self.solver.checkpoint.read_weights(tensor, 0, scratch, &mut weights)?;
        Ok(weights)
    }
}
