//! Layer after layer, each solved on what the compressed layers before it make of the text.

use std::collections::HashMap;
use std::time::Instant;

use compress_model_feedback::{CrossGram, Gram, Hessian};

use super::matrix::{Factors, Matrix, unit_width};
use super::options::SolveOptions;
use super::target::reproducing;
use crate::calibrate::{
    CalibrationText, Moments, Stream, collect_experts, collect_head, collect_site,
};
use crate::checkpoint::dtype::AlignedBytes;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::codec::WorkerPools;
use crate::error::{Error, Result};
use crate::model::{HeldBlock, Model, ModelOptions, Site, SiteLayers};
use crate::pipeline::{Fate, Plan, Progress, SolveReport, SolvedLayer, Solver, Spool};

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
        let student = Stream::start(&model, &self.text, spool.folder(), "student")?;
        let teacher = if self.options.drift == 0.0 {
            None
        } else {
            Some(Stream::start(&model, &self.text, spool.folder(), "teacher")?)
        };
        let mut run = Run {
            solver: self,
            plan,
            seed,
            model: &model,
            by_name: names(self.checkpoint, plan),
            pools: WorkerPools::default(),
            spool,
            progress,
            layers: Vec::new(),
        };
        progress.begin("calibrating", model.block_count() as u64);
        for block in 0..model.block_count() {
            run.block(block, &student, teacher.as_ref())?;
            progress.advance(1);
        }
        run.head(&student)?;
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
    spool: &'a mut Spool,
    progress: &'a dyn Progress,
    layers: Vec<SolvedLayer>,
}

impl Run<'_> {
    /// Solves the layers of one block, site by site, and takes the text through the result.
    fn block(
        &mut self,
        index: usize,
        student: &Stream<'_>,
        teacher: Option<&Stream<'_>>,
    ) -> Result<()> {
        let mut held = self.model.hold_block(index)?;
        let original = match teacher {
            Some(_) => Some(self.model.hold_block(index)?),
            None => None,
        };
        let teacher = teacher.zip(original.as_ref());
        let layers = self.model.site_layers(index);
        for site in [Site::Attention, Site::Output, Site::FeedForward, Site::Down] {
            let moments = collect_site(site, (student, &held), teacher)?;
            if let Some(layers) = layers.iter().find(|layers| layers.site == site) {
                self.site(layers, &moments, &mut held)?;
            }
        }
        if layers.iter().any(|layers| matches!(layers.site, Site::Expert(_))) {
            self.experts(&layers, student, &mut held)?;
        }
        for batch in 0..student.batches() {
            student.leave(&held, batch)?;
            if let Some((stream, original)) = teacher {
                stream.leave(original, batch)?;
            }
        }
        Ok(())
    }

    fn site(&mut self, layers: &SiteLayers, moments: &Moments, held: &mut HeldBlock) -> Result<()> {
        let model = self.model;
        self.solve_layers(&layers.weights, moments, |position, weights| {
            model.replace(held, layers.site, position, weights)
        })
    }

    /// Solves the experts of a block, all on what the block's experts see before any is coded.
    fn experts(
        &mut self,
        layers: &[SiteLayers],
        student: &Stream<'_>,
        held: &mut HeldBlock,
    ) -> Result<()> {
        let mut grams = collect_experts(student, held)?;
        for layers in layers {
            if !matches!(layers.site, Site::Expert(_) | Site::ExpertDown(_)) {
                continue;
            }
            match grams.remove(&layers.site) {
                Some(gram) => {
                    let moments = Moments { gram, drift: None, residual_drift: None };
                    self.site(layers, &moments, held)?;
                }
                None => {
                    let name = &layers.weights[0];
                    self.progress.tensor(&format!("{name}: no token came here, coded plainly"));
                }
            }
        }
        Ok(())
    }

    /// Solves the head, unless it is the embedding table too: rows that are looked up have no
    /// inputs to weigh them by.
    fn head(&mut self, student: &Stream<'_>) -> Result<()> {
        let Some(name) = self.model.own_head().map(str::to_owned) else { return Ok(()) };
        if !self.is_coded(&name) {
            return Ok(());
        }
        let gram = collect_head(student)?;
        let moments = Moments { gram, drift: None, residual_drift: None };
        self.solve_layers(&[name], &moments, |_, _| Ok(()))
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
        moments: &Moments,
        mut solved: impl FnMut(usize, Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        let gram = &moments.gram;
        if !names.iter().any(|name| self.is_coded(name)) {
            return Ok(());
        }
        let hessian = self.damped(&names[0], gram)?;
        let share = |drift: &CrossGram| -> Vec<f32> {
            drift.mean().iter().map(|mean| mean * self.solver.options.drift).collect()
        };
        let drift = moments.drift.as_ref().map(share);
        let residual_drift = moments.residual_drift.as_ref().map(share);
        let mut factors = Factors::default();
        for (position, name) in names.iter().enumerate() {
            let Some(&number) = self.by_name.get(name.as_str()) else { continue };
            let Fate::Coded { codec, rank } = &self.plan.tensors[number].fate else { continue };
            let pool = self.pools.of(codec);
            let fault = |e: &dyn std::fmt::Display| self.fault(name, e);
            let options = &self.solver.options;
            let width = unit_width(&**codec, gram.width()).map_err(|e| fault(&e))?;
            let factor = factors.of(&hessian, width, options);
            let weights = self.read(number)?;
            let target = drift
                .as_ref()
                .map(|drift| reproducing(&weights, &factor, drift, residual_drift.as_deref()));
            let (cols, rank, seed) = (gram.width(), *rank, self.seed);
            let matrix = |weights| Matrix { weights, cols, pool: &pool, rank, seed };
            let original = matrix(weights.as_slice());
            let wanted = matrix(target.as_deref().unwrap_or(&weights));
            let solution = wanted.solve(&hessian, &factor, options).map_err(|e| fault(&e))?;
            let plain = original.plain().map_err(|e| fault(&e))?;
            let layer = SolvedLayer {
                name: name.clone(),
                plain_db: original.output_sqnr_db(&plain, &hessian),
                solved_db: wanted.output_sqnr_db(&solution.decoded, &hessian),
                damping: hessian.damping(),
                dead: hessian.dead(),
                tokens: gram.tokens(),
            };
            self.progress.tensor(&format!(
                "{name}: output {:.2} dB plain, {:.2} dB solved",
                layer.plain_db, layer.solved_db
            ));
            self.layers.push(layer);
            self.spool.put(number, &solution.parts, solution.adapter)?;
            solved(position, solution.decoded)?;
        }
        Ok(())
    }

    fn damped(&self, name: &str, gram: &Gram) -> Result<Hessian> {
        Hessian::new(gram.mean(), gram.width(), self.solver.options.damping)
            .map_err(|e| self.fault(name, &format!("calibration: {e}")))
    }

    fn fault(&self, name: &str, e: &dyn std::fmt::Display) -> Error {
        let tensor = self.source(self.by_name[name]);
        Error::tensor(self.solver.checkpoint.file_of(tensor), name, e.to_string())
    }

    fn source(&self, number: usize) -> &Tensor {
        &self.solver.checkpoint.tensors()[self.plan.tensors[number].source]
    }

    fn read(&self, number: usize) -> Result<Vec<f32>> {
        let tensor = self.source(number);
        let mut weights = vec![0.0; tensor.elements() as usize];
        let scratch = &mut AlignedBytes::default();
        self.solver.checkpoint.read_weights(tensor, 0, scratch, &mut weights)?;
        Ok(weights)
    }
}
