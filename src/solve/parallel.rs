//! Every layer on what the original model makes of the text, from stored statistics.

use std::time::Instant;

use super::layers::{AtSite, LayerSolver, Seen};
use super::options::SolveOptions;
use crate::calibrate::Statistics;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::pipeline::{Plan, Progress, SolveReport, Solver, Spool};

/// Solves the linear layers of a model independently of each other.
#[derive(Debug)]
pub struct Parallel<'a> {
    /// The original model.
    pub checkpoint: &'a Checkpoint,
    /// What its layers see.
    pub statistics: Statistics,
    /// How each layer is solved; [`SolveOptions::drift`] does not apply.
    pub options: SolveOptions,
}

impl Solver for Parallel<'_> {
    fn peak_memory(&self, plan: &Plan) -> u64 {
        super::memory::layers(self.checkpoint, plan)
    }

    fn identity(&self) -> String {
        format!("{}: {:?}", self.statistics.identity(), self.options)
    }

    fn solve(
        &self,
        plan: &Plan,
        seed: u64,
        spool: &mut Spool,
        progress: &dyn Progress,
    ) -> Result<SolveReport> {
        let start = Instant::now();
        self.statistics.check_source(self.checkpoint)?;
        let mut layers =
            LayerSolver::new(self.checkpoint, plan, self.options, seed, spool, progress);
        for site in self.statistics.sites() {
            let weights = AtSite { names: &site.weights, matrix: site.matrix };
            if !layers.has_work(weights) {
                layers.known(weights, |_, _| Ok(()))?;
                continue;
            }
            let seen = Seen {
                mean: self.statistics.mean(site)?,
                width: site.width,
                tokens: site.tokens,
                drift: None,
                residual_drift: None,
            };
            layers.solve(weights, seen, |_, _| Ok(()))?;
        }
        let (layers, resumed_tensors) = layers.into_reports();
        Ok(SolveReport {
            mode: "parallel",
            tokens: self.statistics.tokens(),
            seconds: start.elapsed().as_secs_f64(),
            resumed_tensors,
            layers,
            unsolved: Vec::new(),
        })
    }
}
