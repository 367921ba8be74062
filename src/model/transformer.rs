//! A decoder-only transformer in a folder, original or compressed.

use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::{Arc, OnceLock};

use candle_core::{Device, Storage, Tensor};
use rayon::prelude::*;

use super::block::{Block, Tokens};
use super::cache::{KvCache, LayerCache, rounded};
use super::ops::{Linear, Path, linear, multiply_transposed, norm};
use super::plan::Plan;
use super::weights::Weights;
use super::{Architecture, CausalModel, Continuation};
use crate::error::{Error, Result};

/// How a model is run.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// How keys and values are kept. Default: f16.
    pub kv_cache: KvCache,
    /// Adapters of a compressed folder are added to its weights. Default: yes.
    pub adapters: bool,
    /// Layers stay decoded once they ran: more memory, less work a call. Default: no.
    pub resident: bool,
    /// Where it runs. Default: the CPU.
    pub device: Device,
    /// Which implementation runs. Default: the fast one on the CPU, else candle's.
    pub path: Option<Path>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            kv_cache: KvCache::default(),
            adapters: true,
            resident: false,
            device: Device::Cpu,
            path: None,
        }
    }
}

/// An open model. Layers are read, and decoded where they are coded, when they run; besides the
/// layer that runs, memory holds the head and the activations.
#[derive(Debug)]
pub struct Model {
    pub(super) weights: Weights,
    pub(super) architecture: Architecture,
    pub(super) plan: Plan,
    options: ModelOptions,
    pub(super) path: Path,
    pub(super) final_norm: Tensor,
    head: OnceLock<Linear>,
    blocks: Vec<OnceLock<Arc<Block>>>,
}

impl Model {
    /// Opens `folder`: a checkpoint, or what `compress` made of one.
    ///
    /// # Errors
    /// [`Error::Model`] for an architecture that is not supported, [`Error::Tensor`] for a tensor
    /// that is missing, has another shape or is no part of the model; as
    /// [`Checkpoint::open`](crate::checkpoint::Checkpoint::open) and
    /// [`CompressedFolder::open`](crate::pipeline::CompressedFolder::open).
    pub fn open(folder: &FilePath, options: ModelOptions) -> Result<Self> {
        let weights = Weights::open(folder, options.adapters)?;
        let config = weights.config().ok_or_else(|| weights.fault("has no config.json"))?;
        let architecture = Architecture::parse(config)
            .map_err(|message| weights.fault(format!("config.json: {message}")))?;
        let plan = Plan::new(&architecture, weights.shapes())
            .map_err(|(tensor, message)| Error::tensor(folder, tensor, message))?;
        let fast = if options.device.is_cpu() { Path::Fast } else { Path::Plain };
        let final_norm = weights.gains(&plan.final_norm, &architecture, &options.device)?;
        let blocks = plan.blocks.iter().map(|_| OnceLock::new()).collect();
        let path = options.path.unwrap_or(fast);
        let head = OnceLock::new();
        Ok(Self { weights, architecture, plan, options, path, final_norm, head, blocks })
    }

    /// What `config.json` says.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// A sequence that starts empty.
    pub fn start(&self) -> Sequence<'_> {
        let cache = |_: &_| LayerCache::new(self.options.kv_cache, self.architecture.head_dim);
        let caches = self.architecture.layers.iter().map(cache).collect();
        Sequence { model: self, position: 0, caches }
    }

    fn block(&self, index: usize) -> Result<Arc<Block>> {
        if let Some(block) = self.blocks[index].get() {
            return Ok(Arc::clone(block));
        }
        let plan = &self.plan.blocks[index];
        let device = &self.options.device;
        let block = Arc::new(Block::read(&self.weights, plan, &self.architecture, device)?);
        if self.options.resident {
            return Ok(Arc::clone(self.blocks[index].get_or_init(|| block)));
        }
        Ok(block)
    }

    pub(super) fn head(&self) -> Result<&Linear> {
        if let Some(head) = self.head.get() {
            return Ok(head);
        }
        let Architecture { vocab_size, hidden_size, .. } = self.architecture;
        let weight = self.weights.read(&self.plan.head)?;
        let weight =
            self.weights.tensor(weight, (vocab_size, hidden_size), &self.options.device)?;
        Ok(self.head.get_or_init(|| Linear::new(weight, None)))
    }

    /// Embeddings of `tokens` [n, hidden].
    pub(super) fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let Architecture { vocab_size, hidden_size, embedding_scale, .. } = self.architecture;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            let message = format!("token {token} is outside the vocabulary of {vocab_size}");
            return Err(self.weights.fault(message));
        }
        let mut distinct: Vec<usize> = tokens.iter().map(|&token| token as usize).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let rows = self.weights.read_rows(&self.plan.embedding, hidden_size, &distinct)?;
        let mut values = Vec::with_capacity(tokens.len() * hidden_size);
        for &token in tokens {
            let row = distinct.partition_point(|&known| known < token as usize);
            let row = &rows[row * hidden_size..][..hidden_size];
            values.extend(row.iter().map(|value| value * embedding_scale));
        }
        self.weights.tensor(values, (tokens.len(), hidden_size), &self.options.device)
    }

    /// Cosines and sines of `positions` for every rope.
    pub(super) fn ropes(&self, positions: &Range<usize>) -> Result<Vec<(Tensor, Tensor)>> {
        let head_dim = self.architecture.head_dim;
        let shape = (positions.len(), head_dim / 2);
        let table = |values| self.weights.tensor(values, shape, &self.options.device);
        let ropes = self.architecture.ropes.iter();
        ropes
            .map(|rope| {
                let (cos, sin) = rope.tables(head_dim, positions.clone());
                Ok((table(cos)?, table(sin)?))
            })
            .collect()
    }

    /// Runs `tokens`, windows of `positions` one after another, through all layers;
    /// `keys_and_values` gets the layer's number first.
    fn run(
        &self,
        tokens: &[u32],
        positions: &Range<usize>,
        mut keys_and_values: impl FnMut(usize, Tensor, Tensor) -> candle_core::Result<(Tensor, Tensor)>,
    ) -> Result<Tensor> {
        let most = self.architecture.max_positions;
        if positions.end > most {
            let message = format!("position {} is past the model's {most}", positions.end - 1);
            return Err(self.weights.fault(message));
        }
        let ropes = self.ropes(positions)?;
        let shared =
            Tokens { path: self.path, window: positions.len(), ropes: &ropes, observer: None };
        let mut x = self.embed(tokens)?;
        for (index, layer) in self.architecture.layers.iter().enumerate() {
            let block = self.block(index)?;
            let mut own = |k, v| keys_and_values(index, k, v);
            x = block
                .forward(&self.architecture, layer, &x, shared, &mut own)
                .map_err(|e| self.weights.fault(e))?;
            self.check_finite(&x, &self.plan.blocks[index].name)?;
        }
        Ok(x)
    }

    pub(super) fn check_finite(&self, x: &Tensor, layer: &str) -> Result<()> {
        let (storage, _) = x.storage_and_layout();
        let finite = match &*storage {
            Storage::Cpu(storage) => storage
                .as_slice::<f32>()
                .map(|values| values.par_chunks(1 << 16).all(|v| v.iter().all(|v| v.is_finite()))),
            // A sum is finite only if all its terms are.
            _ => x.sum_all().and_then(|sum| sum.to_scalar::<f32>()).map(f32::is_finite),
        };
        if finite.map_err(|e| self.weights.fault(e))? {
            return Ok(());
        }
        Err(self.weights.fault(format!("{layer} gives values that are not finite")))
    }

    /// The final norm of the rows `wanted` of `x`.
    fn finish(&self, x: &Tensor, wanted: Vec<u32>) -> Result<Vec<f32>> {
        let finish = || {
            let count = wanted.len();
            let wanted = Tensor::from_vec(wanted, count, x.device())?;
            let x = x.index_select(&wanted, 0)?;
            let x = norm(self.path, &x, &self.final_norm, self.architecture.norm_eps)?;
            x.flatten_all()?.to_vec1::<f32>()
        };
        finish().map_err(|e: candle_core::Error| self.weights.fault(e))
    }
}

impl CausalModel for Model {
    fn vocab_size(&self) -> usize {
        self.architecture.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.architecture.hidden_size
    }

    fn max_positions(&self) -> usize {
        self.architecture.max_positions
    }

    fn hidden(&mut self, windows: &[&[u32]], scored: Range<usize>) -> Result<Vec<f32>> {
        let Some(len) = windows.first().map(|window| window.len()) else { return Ok(Vec::new()) };
        assert!(windows.iter().all(|window| window.len() == len), "windows of one length");
        assert!(scored.end <= len, "scored positions inside the windows");
        if scored.is_empty() {
            return Ok(Vec::new());
        }
        let (kind, head_dim) = (self.options.kv_cache, self.architecture.head_dim);
        let x = self.run(&windows.concat(), &(0..len), |_, k, v| rounded(kind, head_dim, k, v))?;
        let row = |window: usize, position: usize| (window * len + position) as u32;
        let wanted =
            (0..windows.len()).flat_map(|w| scored.clone().map(move |p| row(w, p))).collect();
        self.finish(&x, wanted)
    }

    fn logits(&self, hidden: &[f32], logits: &mut [f32]) -> Result<()> {
        let Architecture { hidden_size, .. } = self.architecture;
        let head = self.head()?;
        let device = |e: candle_core::Error| self.weights.fault(e);
        let (storage, _) = head.weight.storage_and_layout();
        match (&*storage, self.path) {
            (Storage::Cpu(weight), Path::Fast) => {
                let weight = weight.as_slice::<f32>().map_err(device)?;
                multiply_transposed(hidden, weight, hidden_size, logits);
            }
            _ => {
                let rows = (hidden.len() / hidden_size, hidden_size);
                let x = self.weights.tensor(hidden.to_vec(), rows, &self.options.device)?;
                let y = linear(self.path, &x, head).and_then(|y| y.flatten_all()?.to_vec1());
                logits.copy_from_slice(&y.map_err(device)?);
            }
        }
        if logits.par_chunks(1 << 16).all(|logits| logits.iter().all(|logit| logit.is_finite())) {
            return Ok(());
        }
        Err(self.weights.fault(format!("{} gives logits that are not finite", self.plan.head)))
    }
}

/// One growing sequence of a model.
#[derive(Debug)]
pub struct Sequence<'m> {
    model: &'m Model,
    position: usize,
    caches: Vec<LayerCache>,
}

impl Continuation for Sequence<'_> {
    fn position(&self) -> usize {
        self.position
    }

    fn extend(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        if tokens.is_empty() {
            return Err(self.model.weights.fault("no token to go on from"));
        }
        let positions = self.position..self.position + tokens.len();
        let caches = &mut self.caches;
        let x = self.model.run(tokens, &positions, |layer, k, v| caches[layer].extend(&k, &v))?;
        self.position = positions.end;
        let hidden = self.model.finish(&x, vec![tokens.len() as u32 - 1])?;
        let mut logits = vec![0.0; self.model.architecture.vocab_size];
        self.model.logits(&hidden, &mut logits)?;
        Ok(logits)
    }
}
