//! The layers of one site, solved side by side.

use std::collections::HashMap;
use std::sync::Arc;

use compress_model_feedback::{Factor, Hessian};
use rayon::prelude::*;

use super::matrix::{Factors, Matrix, Solution};
use super::options::SolveOptions;
use super::stack::Stacks;
use super::target::reproducing;
use crate::checkpoint::dtype::AlignedBytes;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::codec::{WorkerPool, WorkerPools};
use crate::error::{Error, Result};
use crate::pipeline::{Fate, Plan, Progress, SolvedLayer, Spool, decibels};

/// Solves layers of a plan and keeps the results.
pub(super) struct LayerSolver<'a> {
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    options: SolveOptions,
    seed: u64,
    /// Name of a weight to its number in the plan.
    by_name: HashMap<&'a str, usize>,
    pools: WorkerPools,
    spool: &'a mut Spool,
    stacks: Stacks,
    progress: &'a dyn Progress,
    solved: Vec<SolvedLayer>,
    /// How many of those an earlier run solved.
    resumed: usize,
}

/// The weights of one site: one tensor each, or all in one matrix of a stack.
#[derive(Clone, Copy)]
pub(super) struct AtSite<'a> {
    pub(super) names: &'a [String],
    pub(super) matrix: Option<usize>,
}

impl<'a> AtSite<'a> {
    /// Weights that are tensors of their own.
    pub(super) fn whole(names: &'a [String]) -> Self {
        Self { names, matrix: None }
    }
}

/// What the layers of a site see, and should make up for.
pub(super) struct Seen {
    /// Mean of x·xᵀ [n, n].
    pub(super) mean: Vec<f32>,
    /// Width of the inputs.
    pub(super) width: usize,
    /// Tokens that the mean is over.
    pub(super) tokens: u64,
    /// Mean of (x' - x)·xᵀ for the inputs x' of the original model.
    pub(super) drift: Option<Vec<f32>>,
    /// Mean of (r' - r)·xᵀ for the residual streams that the outputs are added to.
    pub(super) residual_drift: Option<Vec<f32>>,
}

impl Seen {
    /// Brings what is seen into units in which f32 holds it, its squares and its inverse.
    fn rescale(&mut self) {
        let unit = Hessian::unit(&self.mean, self.width);
        if unit == 1.0 {
            return;
        }
        let arrays = [Some(&mut self.mean), self.drift.as_mut(), self.residual_drift.as_mut()];
        for value in arrays.into_iter().flatten().flatten() {
            *value = (f64::from(*value) / unit) as f32;
        }
    }
}

/// A layer to solve.
struct Layer<'a> {
    /// Among the layers of its site.
    position: usize,
    name: &'a str,
    /// In the plan.
    number: usize,
    /// Which matrix of the tensor.
    matrix: usize,
    rank: usize,
    pool: WorkerPool,
    factor: Arc<Factor>,
}

impl<'a> LayerSolver<'a> {
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        plan: &'a Plan,
        options: SolveOptions,
        seed: u64,
        spool: &'a mut Spool,
        progress: &'a dyn Progress,
    ) -> Self {
        let tensors = plan.tensors.iter().enumerate();
        let by_name =
            tensors.map(|(i, t)| (checkpoint.tensors()[t.source].name.as_str(), i)).collect();
        let (pools, solved, resumed) = (WorkerPools::default(), Vec::new(), 0);
        let this = Self {
            checkpoint,
            plan,
            options,
            seed,
            by_name,
            pools,
            spool,
            stacks: Stacks::default(),
            progress,
            solved,
            resumed,
        };
        let coded = (0..plan.tensors.len()).filter(|&i| this.is_coded_number(i));
        let bytes = coded.map(|i| this.source(i).byte_len).sum();
        this.progress.begin("solving", bytes);
        this
    }

    /// What was solved, in order, and how much of it by an earlier run.
    pub(super) fn into_reports(self) -> (Vec<SolvedLayer>, usize) {
        (self.solved, self.resumed)
    }

    /// Says something about the run.
    pub(super) fn say(&self, line: &str) {
        self.progress.tensor(line);
    }

    /// Whether the plan codes one of `weights` that is not solved yet.
    pub(super) fn has_work(&self, weights: AtSite<'_>) -> bool {
        weights.names.iter().any(|name| self.to_solve(name).is_some())
    }

    /// Number of the weight `name` in the plan, if it is to be coded and not solved yet.
    fn to_solve(&self, name: &str) -> Option<usize> {
        let number = *self.by_name.get(name)?;
        (self.is_coded_number(number) && !self.spool.has(number)).then_some(number)
    }

    /// Gives `solved` those of `weights` that a run before solved, with their position and what a
    /// reader gets for them.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn known(
        &mut self,
        weights: AtSite<'_>,
        mut solved: impl FnMut(usize, Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        let matrix = weights.matrix.unwrap_or(0);
        for (position, name) in weights.names.iter().enumerate() {
            let Some(&number) = self.by_name.get(name.as_str()) else { continue };
            let Fate::Coded { codec, .. } = &self.plan.tensors[number].fate else { continue };
            let source = self.source(number);
            let shape = source.as_matrices().expect("invariant: codes are of matrices");
            let Some(parts) = self.spool.matrix(number, &**codec, shape, matrix)? else { continue };
            let (matrices, rows, cols) = shape;
            let mut decoded = vec![0.0; rows * cols];
            let pool = self.pools.of(codec);
            let done = pool.with(|worker| worker.decode(&parts, cols, &mut decoded));
            done.map_err(|e| self.fault(name, &e))?;
            if let Some(adapter) = self.spool.adapter(number) {
                adapter.add_to(0, &mut decoded);
            }
            self.progress.advance(source.byte_len / matrices as u64);
            self.solved.extend(self.spool.report(number, matrix).cloned());
            self.resumed += usize::from(matrix == 0);
            solved(position, decoded)?;
        }
        Ok(())
    }

    fn is_coded_number(&self, number: usize) -> bool {
        matches!(self.plan.tensors[number].fate, Fate::Coded { .. })
    }

    /// Solves those of `weights`, which all see `seen`, that the plan codes; `solved` gets the position
    /// in their names and what a reader gets for the weight.
    ///
    /// # Errors
    /// [`Error::Tensor`] for inputs that are not finite, and weights that a codec cannot hold.
    pub(super) fn solve(
        &mut self,
        weights: AtSite<'_>,
        mut seen: Seen,
        mut solved: impl FnMut(usize, Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        self.known(weights, &mut solved)?;
        let AtSite { names, matrix } = weights;
        let Some(first) = names.iter().find(|name| self.to_solve(name).is_some()) else {
            return Ok(());
        };
        if self.progress.stopped() {
            let folder = self.spool.folder();
            return Err(Error::Stopped { folder: folder.parent().unwrap_or(folder).to_path_buf() });
        }
        seen.rescale();
        let mean = std::mem::take(&mut seen.mean);
        let hessian = Hessian::new(mean, seen.width, self.options.damping).map_err(|e| {
            self.fault(first, &format!("what it sees in the calibration text: {e}"))
        })?;
        let mut factors = Factors::default();
        let mut layers = Vec::new();
        for (position, name) in names.iter().enumerate() {
            let Some(number) = self.to_solve(name) else { continue };
            let Fate::Coded { codec, rank } = &self.plan.tensors[number].fate else { continue };
            let width = codec.column_unit().unwrap_or(1);
            let factor = factors.of(&hessian, width, &self.options);
            let pool = self.pools.of(codec);
            let matrix = matrix.unwrap_or(0);
            layers.push(Layer { position, name, number, matrix, rank: *rank, pool, factor });
        }
        let this = &*self;
        let solutions: Vec<Result<(SolvedLayer, Solution)>> =
            layers.par_iter().map(|layer| this.solve_layer(layer, &hessian, &seen)).collect();
        for (layer, solution) in layers.iter().zip(solutions) {
            let (report, solution) = solution?;
            let tensor = self.source(layer.number);
            let matrices = tensor.as_matrices().map_or(1, |(matrices, ..)| matrices);
            self.progress.advance(tensor.byte_len / matrices as u64);
            self.progress.tensor(&format!(
                "{}: output {} plain, {} solved",
                report.name,
                decibels::show(report.plain_db),
                decibels::show(report.solved_db)
            ));
            self.solved.push(report.clone());
            let whole = (layer.number, tensor);
            if matrices == 1 {
                self.spool.put(whole, &solution.parts, solution.adapter, vec![report])?;
            } else {
                let place = (layer.matrix, matrices);
                let stack = self.stacks.add(layer.number, place, (solution.parts, report));
                if let Some((parts, reports)) = stack {
                    self.spool.put(whole, &parts, None, reports)?;
                }
            }
            solved(layer.position, solution.decoded)?;
        }
        Ok(())
    }

    fn solve_layer(
        &self,
        layer: &Layer<'_>,
        hessian: &Hessian,
        seen: &Seen,
    ) -> Result<(SolvedLayer, Solution)> {
        let &Layer { name, ref factor, .. } = layer;
        let fault = |e: &dyn std::fmt::Display| self.fault(name, e);
        let source = self.source(layer.number);
        let (matrices, rows, cols) =
            source.as_matrices().expect("invariant: plans code matrices only");
        let mut weights = vec![0.0; rows * cols];
        let first = (layer.matrix * weights.len()) as u64;
        self.checkpoint.read_weights(source, first, &mut AlignedBytes::default(), &mut weights)?;
        let target = seen
            .drift
            .as_ref()
            .map(|drift| reproducing(&weights, factor, drift, seen.residual_drift.as_deref()));
        let matrix = |weights| Matrix {
            weights,
            cols,
            pool: &layer.pool,
            rank: layer.rank,
            seed: self.seed,
        };
        let original = matrix(weights.as_slice());
        let wanted = matrix(target.as_deref().unwrap_or(&weights));
        let solution = wanted.solve(hessian, factor, &self.options).map_err(|e| fault(&e))?;
        let plain = original.plain().map_err(|e| fault(&e))?;
        let report = SolvedLayer {
            name: name.to_owned(),
            matrix: (matrices > 1).then_some(layer.matrix),
            plain_db: original.output_sqnr_db(&plain, hessian),
            solved_db: wanted.output_sqnr_db(&solution.decoded, hessian),
            damping: hessian.damping(),
            dead: hessian.dead(),
            tokens: seen.tokens,
            few_tokens: seen.tokens < seen.width as u64,
        };
        Ok((report, solution))
    }

    fn fault(&self, name: &str, e: &dyn std::fmt::Display) -> Error {
        let tensor = self.source(self.by_name[name]);
        Error::tensor(self.checkpoint.file_of(tensor), name, e.to_string())
    }

    fn source(&self, number: usize) -> &'a Tensor {
        &self.checkpoint.tensors()[self.plan.tensors[number].source]
    }
}
