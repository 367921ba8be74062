//! How far a model moves when one weight is coded.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use compress_model_feedback::{Gram, difference, squared_norm};

use super::seen::Seen;
use crate::calibrate::{ActivationFile, CalibrationText};
use crate::checkpoint::Checkpoint;
use crate::codec::WorkerPools;
use crate::error::{Error, Result};
use crate::eval::mean_divergence;
use crate::model::{HeldBlock, Model, ModelOptions, Passage, Site};
use crate::pipeline::{ErrorSums, Fate, Plan, PlannedTensor, Progress};
use crate::solve::plain_codes;

/// Windows that are read; more of them cost time in proportion.
const WINDOWS: usize = 2;

/// What is known of one weight.
pub(super) struct Sensitivity {
    /// In the plan.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Bytes of the source.
    pub(super) bytes: u64,
    /// KLD in nats when it alone is coded as planned.
    pub(super) alone_kld: f64,
    /// Nats for each unit of output error.
    pub(super) rate: f64,
    /// What it sees, shared with the other layers of its site.
    pub(super) seen: Arc<Seen>,
}

impl Sensitivity {
    /// Lets go of what the layer sees.
    pub(super) fn forget_inputs(&mut self) {
        self.seen = Arc::new(Seen::new(self.cols, None));
    }
}

/// A weight that has been coded, on its way to the end of the model.
struct Variant {
    number: usize,
    /// Output error of its coding.
    error: f64,
    seen: Arc<Seen>,
    /// What it decodes to, where the end of the model needs it again.
    table: Option<Vec<f32>>,
}

/// Codes each matrix of `plan` alone and measures what that does to a few windows of `text`. All
/// variants run through the model side by side, so that each block is read once; their hidden
/// states wait in a file in `folder`.
///
/// # Errors
/// [`Error::StoppedEarly`]; as running the model and coding.
pub(super) fn sensitivities(
    checkpoint: &Checkpoint,
    plan: &Plan,
    text: &CalibrationText,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<Vec<Sensitivity>> {
    let model = Model::open(checkpoint.origin(), ModelOptions::default())?;
    let name = |planned: &PlannedTensor| checkpoint.tensors()[planned.source].name.as_str();
    let planned = plan.tensors.iter().enumerate();
    let wanted: HashMap<&str, usize> = planned
        .filter(|(_, planned)| is_coded_matrix(checkpoint, planned))
        .map(|(number, planned)| (name(planned), number))
        .collect();
    let windows = &text.windows()[..WINDOWS.min(text.windows().len())];
    let tokens = windows.concat();
    let width = model.architecture().hidden_size;
    let states = ActivationFile::create(
        &folder.join("variants"),
        tokens.len() * (1 + wanted.len()),
        width,
        tokens.len(),
    )?;
    let mut run = Run {
        checkpoint,
        plan,
        model: &model,
        window: text.ctx,
        wanted,
        states,
        pools: RefCell::default(),
        variants: Vec::new(),
    };
    run.states.write(0, &model.embeddings(&tokens)?)?;
    progress.begin("probing", model.block_count() as u64 + 1);
    run.embedding(&tokens)?;
    for block in 0..model.block_count() {
        progress.check_stopped()?;
        run.block(block)?;
        progress.advance(1);
    }
    run.head()?;
    let found = run.finish(windows.len())?;
    progress.advance(1);
    Ok(found)
}

struct Run<'a> {
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    model: &'a Model,
    window: usize,
    wanted: HashMap<&'a str, usize>,
    /// Hidden states: of the original in batch 0, of variant i in batch i + 1.
    states: ActivationFile,
    pools: RefCell<WorkerPools>,
    variants: Vec<Variant>,
}

impl Run<'_> {
    /// The planned coding of weight `number`: the weights, and what plain coding makes of them.
    fn coded(&self, number: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let planned = &self.plan.tensors[number];
        let tensor = &self.checkpoint.tensors()[planned.source];
        let Fate::Coded { codec, .. } = &planned.fate else {
            unreachable!("invariant: wanted weights are coded")
        };
        let weights = self.checkpoint.read_all(tensor)?;
        let (_, _, cols) = tensor.as_matrices().expect("invariant: wanted weights are matrices");
        let pool = self.pools.borrow_mut().of(codec);
        let decoded = plain_codes(&weights, cols, &pool).map_err(|e| {
            Error::tensor(self.checkpoint.file_of(tensor), &tensor.name, e.to_string())
        })?;
        Ok((weights, decoded))
    }

    /// The embedding table, and the head where it is the same.
    fn embedding(&mut self, tokens: &[u32]) -> Result<()> {
        let name = self.model.embedding();
        let Some(&number) = self.wanted.get(name) else { return Ok(()) };
        let (weights, decoded) = self.coded(number)?;
        let width = self.model.architecture().hidden_size;
        let scale = self.model.architecture().embedding_scale;
        let rows = tokens.iter().flat_map(|&token| &decoded[token as usize * width..][..width]);
        let rows: Vec<f32> = rows.map(|x| x * scale).collect();
        let error = ErrorSums::of(&weights, &decoded).noise;
        let table = self.model.own_head().is_none().then_some(decoded);
        let seen = Arc::new(Seen::new(width, None));
        self.add(Variant { number, error, seen, table }, &rows)
    }

    fn add(&mut self, variant: Variant, states: &[f32]) -> Result<()> {
        self.variants.push(variant);
        self.states.write(self.variants.len(), states)
    }

    /// Takes all variants through a block, and starts those of its own weights.
    fn block(&mut self, index: usize) -> Result<()> {
        let mut held = self.model.hold_block(index)?;
        let before = self.states.read(0)?;
        let mut grams: HashMap<Site, Gram> = HashMap::new();
        let after = self.through(&held, before.clone(), |site, width, x| {
            grams.entry(site).or_insert_with(|| Gram::new(width)).add(x);
        })?;
        self.states.write(0, &after)?;
        for variant in 1..=self.variants.len() {
            let states = self.through(&held, self.states.read(variant)?, |_, _, _| {})?;
            self.states.write(variant, &states)?;
        }
        for layers in self.model.site_layers(index) {
            // Experts keep what the recipe says.
            let Some(gram) = grams.get(&layers.site) else { continue };
            let seen = Arc::new(Seen::new(gram.width(), Some(gram.mean())));
            for (position, name) in layers.weights.iter().enumerate() {
                let Some(&number) = self.wanted.get(name.as_str()) else { continue };
                let (weights, decoded) = self.coded(number)?;
                let errors = difference(&weights, &decoded);
                let mean = seen.mean().expect("invariant: set above");
                let error = squared_norm(&errors, mean, gram.width());
                self.model.set_weight(&mut held, layers.site, position, decoded)?;
                let states = self.through(&held, before.clone(), |_, _, _| {})?;
                self.model.set_weight(&mut held, layers.site, position, weights)?;
                let seen = Arc::clone(&seen);
                self.add(Variant { number, error, seen, table: None }, &states)?;
            }
        }
        Ok(())
    }

    fn through(
        &self,
        held: &HeldBlock,
        residual: Vec<f32>,
        mut see: impl FnMut(Site, usize, &[f32]),
    ) -> Result<Vec<f32>> {
        let tokens = residual.len() / self.model.architecture().hidden_size;
        let mut passage = Passage { residual, input: Vec::new() };
        for site in Site::DENSE {
            self.model.reach(held, site, self.window, &mut passage)?;
            see(site, passage.input.len() / tokens, &passage.input);
        }
        self.model.leave(held, self.window, &mut passage, None)?;
        Ok(passage.residual)
    }

    /// A head of its own.
    fn head(&mut self) -> Result<()> {
        let Some(&number) = self.model.own_head().and_then(|name| self.wanted.get(name)) else {
            return Ok(());
        };
        let (weights, decoded) = self.coded(number)?;
        let states = self.states.read(0)?;
        let mut gram = Gram::new(self.model.architecture().hidden_size);
        gram.add(&self.model.head_input(&states)?);
        let errors = difference(&weights, &decoded);
        let seen = Arc::new(Seen::new(gram.width(), Some(gram.mean())));
        let mean = seen.mean().expect("invariant: set above");
        let error = squared_norm(&errors, mean, gram.width());
        self.add(Variant { number, error, seen, table: Some(decoded) }, &states)
    }

    /// Compares the predictions of every variant with the original's.
    fn finish(self, windows: usize) -> Result<Vec<Sensitivity>> {
        let scored = |states: &[f32]| -> Result<Vec<f32>> {
            let hidden = self.model.head_input(states)?;
            // The second half of each window, as evaluation has it.
            let window = hidden.len() / windows;
            let halves = hidden.chunks_exact(window).flat_map(|w| &w[window / 2..]);
            Ok(halves.copied().collect())
        };
        let original = scored(&self.states.read(0)?)?;
        let mut found = Vec::new();
        for (index, variant) in self.variants.into_iter().enumerate() {
            let hidden = scored(&self.states.read(index + 1)?)?;
            let alone_kld =
                mean_divergence(self.model, &original, &hidden, variant.table.as_deref())?;
            let planned = &self.plan.tensors[variant.number];
            let tensor = &self.checkpoint.tensors()[planned.source];
            let (_, rows, cols) = tensor.as_matrices().expect("invariant: a matrix");
            found.push(Sensitivity {
                number: variant.number,
                name: tensor.name.clone(),
                rows,
                cols,
                bytes: tensor.byte_len,
                alone_kld,
                rate: if variant.error > 0.0 { alone_kld / variant.error } else { 0.0 },
                seen: variant.seen,
            });
        }
        Ok(found)
    }
}

/// Whether the plan codes it and it is one matrix, not a stack.
fn is_coded_matrix(checkpoint: &Checkpoint, planned: &PlannedTensor) -> bool {
    let shape = checkpoint.tensors()[planned.source].as_matrices();
    matches!(planned.fate, Fate::Coded { .. }) && matches!(shape, Some((1, _, _)))
}
