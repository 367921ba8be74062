//! Adapters: the top singular directions of a weight, taken out before it is coded.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use compress_model_lora::{Adapter, Panels, PeftWriter, PlannedAdapter, SvdOptions, truncated_svd};
use rayon::prelude::*;

use super::plan::{Fate, Plan};
use super::solved::Spool;
use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::dtype::AlignedBytes;
use crate::checkpoint::role::Role;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};

/// Matrices with fewer weights are decomposed side by side; larger ones use all threads each.
const SIDE_BY_SIDE_WEIGHTS: u64 = 4 << 20;

/// A matrix of the checkpoint, read panel by panel.
struct TensorPanels<'a> {
    checkpoint: &'a Checkpoint,
    tensor: &'a Tensor,
    rows: usize,
    cols: usize,
}

impl Panels for TensorPanels<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(
        &self,
        first_row: usize,
        out: &mut [f32],
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut scratch = AlignedBytes::default();
        let first = first_row as u64 * self.cols as u64;
        Ok(self.checkpoint.read_weights(self.tensor, first, &mut scratch, out)?)
    }
}

/// The options of the SVD behind an adapter of rank `rank`.
fn options(rank: usize, seed: u64) -> SvdOptions {
    SvdOptions { seed, ..SvdOptions::new(rank) }
}

/// Memory that extracting takes, in bytes.
pub(super) fn working_set_bytes(rows: usize, cols: usize, rank: usize) -> u64 {
    compress_model_lora::working_set_bytes(rows, cols, &options(rank, 0))
}

/// Module path of weight `name`: what PEFT calls the layer.
pub(super) fn module_of(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

/// Extracts the adapter of rank `rank` of a two-dimensional `tensor`. The SVD's random start
/// depends on `seed` and the tensor's name only.
///
/// # Errors
/// [`Error::Io`] if reading fails, [`Error::Tensor`] if the SVD or the factors do.
fn extract(checkpoint: &Checkpoint, tensor: &Tensor, rank: usize, seed: u64) -> Result<Adapter> {
    let (_, rows, cols) = tensor.as_matrices().expect("invariant: adapters are for matrices");
    let panels = TensorPanels { checkpoint, tensor, rows, cols };
    let refuse = |e: &dyn std::fmt::Display| {
        Error::tensor(checkpoint.file_of(tensor), &tensor.name, format!("adapter: {e}"))
    };
    let svd = truncated_svd(&panels, &options(rank, tensor_seed(seed, &tensor.name)))
        .map_err(|e| refuse(&e))?;
    Adapter::from_svd(&svd).map_err(|e| refuse(&e))
}

/// BLAKE3 of A's data followed by B's, in hexadecimal.
pub(super) fn hash(adapter: &Adapter) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytemuck::cast_slice(&adapter.a));
    hasher.update(bytemuck::cast_slice(&adapter.b));
    hasher.finalize().to_hex().to_string()
}

/// A seed of its own for every tensor, so that results do not depend on their order.
fn tensor_seed(seed: u64, name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// An adapter that is in the PEFT files.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) adapter: Adapter,
    /// As the manifest has it.
    pub(super) hash: String,
}

/// Adapters by the number of their tensor in the plan.
pub(super) type WrittenAdapters = HashMap<usize, Arc<Written>>;

/// Extracts and writes the adapters of each wave before its panels are coded.
pub(super) struct AdapterStage<'a> {
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    seed: u64,
    spool: Option<&'a Spool>,
    writer: Option<PeftWriter>,
    current: WrittenAdapters,
}

impl<'a> AdapterStage<'a> {
    /// Creates the PEFT files in `folder`, if the plan has any adapter.
    ///
    /// # Errors
    /// [`Error::Adapter`] if a file cannot be written.
    pub(super) fn create(
        checkpoint: &'a Checkpoint,
        plan: &'a Plan,
        seed: u64,
        spool: Option<&'a Spool>,
        folder: &Path,
    ) -> Result<Self> {
        let mut stage = Self { spool, ..Self::without_files(checkpoint, plan, seed) };
        let planned: Vec<PlannedAdapter> = (0..plan.tensors.len())
            .filter_map(|tensor| {
                let rank = stage.rank(tensor)?;
                let source = stage.source(tensor);
                let (_, out_features, in_features) = source.as_matrices()?;
                let module = module_of(&source.name).to_owned();
                let embedding = matches!(source.role, Role::Embedding | Role::Position);
                Some(PlannedAdapter { module, out_features, in_features, rank, embedding })
            })
            .collect();
        if !planned.is_empty() {
            let base = checkpoint.config().and_then(ModelConfig::name).unwrap_or_default();
            stage.writer = Some(PeftWriter::create(folder, &planned, base)?);
        }
        Ok(stage)
    }

    /// Extracts adapters and writes none.
    pub(super) fn without_files(checkpoint: &'a Checkpoint, plan: &'a Plan, seed: u64) -> Self {
        let current = HashMap::new();
        Self { checkpoint, plan, seed, spool: None, writer: None, current }
    }

    /// Leaves the adapter of `tensor`, if it has one, as an earlier run wrote it.
    pub(super) fn keep(&mut self, tensor: usize) {
        let source = self.source(tensor);
        if let Some(writer) = &mut self.writer {
            writer.keep(module_of(&source.name));
        }
    }

    /// A handle of the file that adapters are written to, if there are any.
    ///
    /// # Errors
    /// [`Error::Adapter`].
    pub(super) fn handle(&self) -> Result<Option<File>> {
        Ok(self.writer.as_ref().map(PeftWriter::handle).transpose()?)
    }

    /// The adapters of a wave's `tensors`, which come in order; new ones are written.
    ///
    /// # Errors
    /// As extracting and writing.
    pub(super) fn prepare(
        &mut self,
        tensors: impl Iterator<Item = usize>,
    ) -> Result<WrittenAdapters> {
        let mut tensors: Vec<usize> = tensors.collect();
        tensors.dedup();
        self.current.retain(|tensor, _| tensors.contains(tensor));
        let wanted: Vec<(usize, usize)> = tensors
            .into_iter()
            .filter(|tensor| !self.current.contains_key(tensor))
            .filter_map(|tensor| Some((tensor, self.rank(tensor)?)))
            .collect();
        for (tensor, adapter) in self.extract_all(&wanted)? {
            self.put(tensor, adapter)?;
        }
        Ok(self.current.clone())
    }

    /// Takes the adapter of `tensor` and writes it.
    ///
    /// # Errors
    /// [`Error::Adapter`] if the file cannot be written.
    pub(super) fn put(&mut self, tensor: usize, adapter: Adapter) -> Result<()> {
        let source = self.source(tensor);
        if let Some(writer) = &mut self.writer {
            writer.write(module_of(&source.name), &adapter)?;
        }
        let hash = hash(&adapter);
        self.current.insert(tensor, Arc::new(Written { adapter, hash }));
        Ok(())
    }

    /// Lets go of the adapters of all tensors but `tensor`.
    pub(super) fn forget_all_but(&mut self, tensor: usize) {
        self.current.retain(|&other, _| other == tensor);
    }

    /// The adapter that was last put for `tensor`, if it is still here.
    pub(super) fn written(&self, tensor: usize) -> Option<Arc<Written>> {
        self.current.get(&tensor).cloned()
    }

    /// Completes the PEFT files.
    ///
    /// # Errors
    /// [`Error::Adapter`] if a file cannot be written.
    pub(super) fn finish(self) -> Result<()> {
        if let Some(writer) = self.writer {
            writer.finish()?;
        }
        Ok(())
    }

    fn extract_all(&self, wanted: &[(usize, usize)]) -> Result<Vec<(usize, Adapter)>> {
        let extract = |&(tensor, rank): &(usize, usize)| {
            if let Some(adapter) = self.spool.and_then(|spool| spool.adapter(tensor)) {
                return Ok((tensor, adapter.clone()));
            }
            Ok((tensor, extract(self.checkpoint, self.source(tensor), rank, self.seed)?))
        };
        let is_large =
            |&(tensor, _): &(usize, usize)| self.source(tensor).elements() >= SIDE_BY_SIDE_WEIGHTS;
        if wanted.iter().any(is_large) {
            return wanted.iter().map(extract).collect();
        }
        wanted.par_iter().map(extract).collect::<Vec<Result<_>>>().into_iter().collect()
    }

    fn source(&self, tensor: usize) -> &'a Tensor {
        &self.checkpoint.tensors()[self.plan.tensors[tensor].source]
    }

    fn rank(&self, tensor: usize) -> Option<usize> {
        match &self.plan.tensors[tensor].fate {
            Fate::Coded { rank, .. } if *rank > 0 => Some(*rank),
            _ => None,
        }
    }
}
