//! Layer after layer, each solved on what the compressed layers before it make of the text.

use std::collections::HashMap;
use std::time::Instant;

use compress_model_feedback::CrossGram;

use super::layers::{AtSite, LayerSolver, Seen};
use super::options::SolveOptions;
use crate::calibrate::{
    CalibrationText, Moments, Stream, collect_experts, collect_head, collect_site, pass_site,
    with_fallback,
};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::Result;
use crate::memory;
use crate::model::{HeldBlock, Model, ModelOptions, Site, SiteLayers};
use crate::pipeline::{Plan, Progress, SolveReport, Solver, Spool};

/// Arrays of a batch of the widest activations that are there at the same time: two passages, the
/// arrays of an operation, and what the allocator keeps of the last one.
const ACTIVATION_COPIES: u64 = 16;

/// Solves the linear layers of a model in the order in which they run.
#[derive(Debug)]
pub struct Sequential<'a> {
    /// The original model.
    pub checkpoint: &'a Checkpoint,
    /// What it reads.
    pub text: CalibrationText,
    /// How each layer is solved.
    pub options: SolveOptions,
    /// Most bytes of hidden states that stay in memory. Where all of them would take more, they lie
    /// in files beside the output, and writing those can hold up the run.
    pub states_memory: u64,
}

impl<'a> Sequential<'a> {
    /// Hidden states stay in memory up to a quarter of what is available now.
    #[must_use]
    pub fn new(checkpoint: &'a Checkpoint, text: CalibrationText, options: SolveOptions) -> Self {
        let states_memory = memory::available().unwrap_or(0) / 4;
        Self { checkpoint, text, options, states_memory }
    }

    /// The widest input of a matrix.
    fn widest(&self) -> u64 {
        let matrices = self.checkpoint.tensors().iter().filter_map(Tensor::as_matrices);
        matrices.map(|(_, _, cols)| cols as u64).max().unwrap_or(0)
    }

    /// Bytes of the hidden states that stay in memory: those of all tokens in every stream, or none.
    fn states_in_memory(&self) -> u64 {
        let streams = if self.options.drift == 0.0 { 1 } else { 2 };
        // The residual stream and what the last linear layers saw.
        let bytes = streams * 2 * 4 * self.text.tokens() as u64 * self.widest();
        if bytes <= self.states_memory { bytes } else { 0 }
    }
}

impl Solver for Sequential<'_> {
    fn peak_memory(&self, plan: &Plan) -> u64 {
        let tensors = self.checkpoint.tensors();
        let block_of = |name: &str| name.split('.').find_map(|part| part.parse::<u32>().ok());
        let mut blocks: HashMap<Option<u32>, u64> = HashMap::new();
        for tensor in tensors {
            *blocks.entry(block_of(&tensor.name)).or_default() += 4 * tensor.elements();
        }
        blocks.remove(&None);
        let block = blocks.into_values().max().unwrap_or(0);
        let batch = self.text.tokens().min(self.text.batch_tokens()) as u64;
        let activations = ACTIVATION_COPIES * 4 * batch * self.widest() + self.states_in_memory();
        let layers = super::memory::layers(self.checkpoint, plan);
        2 * block + activations + layers + self.text.memory()
    }

    fn identity(&self) -> String {
        let texts: Vec<&str> = self.text.files.iter().map(|(_, hash)| hash.as_str()).collect();
        let (windows, ctx) = (self.text.windows().len(), self.text.ctx);
        format!("{windows} windows of {ctx} of {}: {:?}", texts.join(", "), self.options)
    }

    fn solve(
        &self,
        plan: &Plan,
        seed: u64,
        spool: &mut Spool,
        progress: &dyn Progress,
    ) -> Result<SolveReport> {
        let start = Instant::now();
        let model = Model::open(self.checkpoint.origin(), ModelOptions::default())?;
        let folder = spool.folder().to_path_buf();
        let files = |name| (self.states_in_memory() == 0).then_some((folder.as_path(), name));
        let student = Stream::start(&model, &self.text, files("student"))?;
        let teacher = if self.options.drift == 0.0 {
            None
        } else {
            Some(Stream::start(&model, &self.text, files("teacher"))?)
        };
        let layers = LayerSolver::new(self.checkpoint, plan, self.options, seed, spool, progress);
        let mut run = Run { drift: self.options.drift, model: &model, layers };
        for block in 0..model.block_count() {
            run.block(block, &student, teacher.as_ref())?;
        }
        run.head(&student)?;
        let (layers, resumed_tensors) = run.layers.into_reports();
        Ok(SolveReport {
            mode: "sequential",
            tokens: self.text.tokens(),
            seconds: start.elapsed().as_secs_f64(),
            resumed_tensors,
            layers,
            unsolved: Vec::new(),
        })
    }
}

/// Where the weights of `layers` are.
fn weights_of(layers: &SiteLayers) -> AtSite<'_> {
    AtSite { names: &layers.weights, matrix: layers.matrix }
}

struct Run<'a> {
    drift: f32,
    model: &'a Model,
    layers: LayerSolver<'a>,
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
        let sites = self.model.site_layers(index);
        for site in Site::DENSE {
            let layers = sites.iter().find(|layers| layers.site == site);
            if let Some(layers) = layers.filter(|layers| self.layers.has_work(weights_of(layers))) {
                let moments = collect_site(site, (student, &held), teacher)?;
                self.site(layers, &moments, &mut held)?;
                continue;
            }
            // The streams must pass every site; the attention's norm leaves no trace in them.
            if site != Site::Attention {
                pass_site(site, (student, &held), teacher)?;
            }
            if let Some(layers) = layers {
                self.known(layers, &mut held)?;
            }
        }
        let experts: Vec<&SiteLayers> = sites.iter().filter(|s| s.site.is_expert()).collect();
        if experts.iter().any(|layers| self.layers.has_work(weights_of(layers))) {
            self.experts(&experts, student, &mut held)?;
        } else {
            experts.iter().try_for_each(|layers| self.known(layers, &mut held))?;
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
        let seen = self.seen(moments);
        self.layers.solve(weights_of(layers), seen, |position, weights| {
            model.set_site_weight(held, layers, position, weights)
        })
    }

    /// Takes layers that need no solving as they are known.
    fn known(&mut self, layers: &SiteLayers, held: &mut HeldBlock) -> Result<()> {
        let model = self.model;
        self.layers.known(weights_of(layers), |position, weights| {
            model.set_site_weight(held, layers, position, weights)
        })
    }

    fn seen(&self, moments: &Moments) -> Seen {
        let share = |drift: &CrossGram| -> Vec<f32> {
            drift.mean().iter().map(|mean| mean * self.drift).collect()
        };
        Seen {
            mean: moments.gram.mean(),
            width: moments.gram.width(),
            tokens: moments.gram.tokens(),
            drift: moments.drift.as_ref().map(share),
            residual_drift: moments.residual_drift.as_ref().map(share),
        }
    }

    /// Solves the experts of a block, all on what the block's experts see before any is coded.
    fn experts(
        &mut self,
        sites: &[&SiteLayers],
        student: &Stream<'_>,
        held: &mut HeldBlock,
    ) -> Result<()> {
        let expert_sites: Vec<Site> = sites.iter().map(|layers| layers.site).collect();
        let (grams, rare) = with_fallback(collect_experts(student, held)?, &expert_sites);
        for layers in sites {
            let Some(gram) = grams.get(&layers.site) else { continue };
            if rare.contains(&layers.site) {
                let (name, stack) = (&layers.weights[0], layers.matrix);
                let name = stack.map_or(name.clone(), |matrix| format!("{name}[{matrix}]"));
                self.layers.say(&format!("{name}: too few tokens came here, all experts' used"));
            }
            let moments = Moments { gram: gram.clone(), drift: None, residual_drift: None };
            self.site(layers, &moments, held)?;
        }
        Ok(())
    }

    /// Solves the head. Where it is the embedding table too, errors count in both places: in the
    /// norm of what the head sees and, with the same weight, as they are.
    fn head(&mut self, student: &Stream<'_>) -> Result<()> {
        let (name, tied) = match self.model.own_head() {
            Some(name) => (name.to_owned(), false),
            None => (self.model.embedding().to_owned(), true),
        };
        let names = [name];
        let weights = AtSite::whole(&names);
        if !self.layers.has_work(weights) {
            return self.layers.known(weights, |_, _| Ok(()));
        }
        let moments = Moments {
            gram: collect_head(self.model, student.residual())?,
            drift: None,
            residual_drift: None,
        };
        let mut seen = self.seen(&moments);
        if tied {
            let n = seen.width;
            let trace: f64 = (0..n).map(|i| f64::from(seen.mean[i * n + i])).sum();
            (0..n).for_each(|i| seen.mean[i * n + i] += (trace / n as f64) as f32);
        }
        self.layers.solve(weights, seen, |_, _| Ok(()))
    }
}
