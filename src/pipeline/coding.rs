//! Panels in, coded bytes out: the jobs of a run, and what one thread does with each.

use std::borrow::Cow;
use std::sync::Arc;

use compress_model_lora::Adapter;

use super::adapters::{Written, WrittenAdapters};
use super::error_sums::ErrorSums;
use super::panels::{COPY_BYTES, Panel, panels, read_panel};
use super::plan::{Fate, Plan};
use super::solved::Spool;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::dtype::AlignedBytes;
use crate::codec::{CodecError, WorkerPool, WorkerPools};
use crate::error::{Error, Result};

/// A piece of work: some bytes of a kept tensor or a panel of a coded one.
#[derive(Debug, Clone)]
pub(super) enum Job {
    Copy { tensor: usize, from: u64, len: usize },
    Code { tensor: usize, panel: Panel },
}

impl Job {
    /// Number of the tensor in the plan.
    pub(super) fn tensor(&self) -> usize {
        match self {
            Self::Copy { tensor, .. } | Self::Code { tensor, .. } => *tensor,
        }
    }
}

/// What a job gives.
pub(super) struct Output {
    /// Bytes for each stored part.
    pub(super) parts: Vec<Vec<u8>>,
    /// The error made.
    pub(super) sums: ErrorSums,
    /// The adapter of the tensor.
    pub(super) adapter: Option<Arc<Written>>,
}

/// The jobs of tensor number `tensor`, in the order of their bytes; none for a tied tensor.
pub(super) fn jobs<'a>(
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    tensor: usize,
) -> Box<dyn Iterator<Item = Job> + Send + 'a> {
    let planned = &plan.tensors[tensor];
    let source = &checkpoint.tensors()[planned.source];
    match &planned.fate {
        Fate::Tied { .. } => Box::new(std::iter::empty()),
        Fate::Kept { .. } => {
            // A tensor without elements has one piece, of no bytes.
            let pieces = (0..source.byte_len.max(1)).step_by(COPY_BYTES as usize);
            Box::new(pieces.map(move |from| {
                let len = COPY_BYTES.min(source.byte_len - from) as usize;
                Job::Copy { tensor, from, len }
            }))
        }
        Fate::Coded { codec, .. } => {
            let shape = source.as_matrices().expect("invariant: plans code matrices only");
            let panels = panels(shape, codec.row_multiple());
            Box::new(panels.map(move |panel| Job::Code { tensor, panel }))
        }
    }
}

/// Works off jobs.
pub(super) struct Coder<'a> {
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    spool: Option<&'a Spool>,
    /// The workers of each coded tensor.
    pools: Vec<Option<WorkerPool>>,
}

impl<'a> Coder<'a> {
    /// Takes the codes of tensors that `spool` has from there.
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        plan: &'a Plan,
        spool: Option<&'a Spool>,
    ) -> Self {
        let mut pools = WorkerPools::default();
        let pools = plan
            .tensors
            .iter()
            .map(|planned| match &planned.fate {
                Fate::Coded { codec, .. } => Some(pools.of(codec)),
                Fate::Kept { .. } | Fate::Tied { .. } => None,
            })
            .collect();
        Self { checkpoint, plan, spool, pools }
    }

    fn coded(&self, tensor: usize) -> (&WorkerPool, (usize, usize, usize)) {
        let source = &self.checkpoint.tensors()[self.plan.tensors[tensor].source];
        let pool = self.pools[tensor].as_ref().expect("invariant: a coded tensor has a codec");
        (pool, source.as_matrices().expect("invariant: plans code matrices only"))
    }

    /// Does one job.
    ///
    /// # Errors
    /// [`Error::Tensor`] for weights that a codec cannot hold; I/O.
    pub(super) fn work(&self, job: &Job, adapters: &WrittenAdapters) -> Result<Output> {
        let source = &self.checkpoint.tensors()[self.plan.tensors[job.tensor()].source];
        match job {
            Job::Copy { from, len, .. } => {
                let mut bytes = vec![0; *len];
                self.checkpoint.read_bytes(source, *from, &mut bytes)?;
                Ok(Output { parts: vec![bytes], sums: ErrorSums::default(), adapter: None })
            }
            Job::Code { tensor, panel } => {
                let (pool, shape) = self.coded(*tensor);
                let mut weights = Vec::new();
                let scratch = &mut AlignedBytes::default();
                read_panel(self.checkpoint, source, shape, panel, scratch, &mut weights)?;
                let adapter = adapters.get(tensor);
                let solved = match self.spool {
                    Some(spool) => spool.panel(*tensor, pool.codec(), shape, panel)?,
                    None => None,
                };
                let factors = adapter.map(|written| &written.adapter);
                let coded = code_panel(pool, panel, shape.2, &weights, factors, solved);
                let (parts, sums) = coded.map_err(|e| {
                    let message = match e {
                        CodecError::Row { row, message } => {
                            format!("row {}: {message}", panel.rows.start + row)
                        }
                        other => other.to_string(),
                    };
                    Error::tensor(self.checkpoint.file_of(source), &source.name, message)
                })?;
                Ok(Output { parts, sums, adapter: adapter.cloned() })
            }
        }
    }
}

/// Codes one panel, unless it is `solved`, and measures what decoding it gives back.
fn code_panel(
    pool: &WorkerPool,
    panel: &Panel,
    cols: usize,
    weights: &[f32],
    adapter: Option<&Adapter>,
    solved: Option<Vec<Vec<u8>>>,
) -> Result<(Vec<Vec<u8>>, ErrorSums), CodecError> {
    let mut decoded = vec![0.0; weights.len()];
    let parts = match solved {
        Some(parts) => parts,
        None => {
            let mut residual = Cow::Borrowed(weights);
            if let Some(adapter) = adapter {
                adapter.subtract_from(panel.rows.start, residual.to_mut());
            }
            let parts = pool.codec().parts(panel.rows.len(), cols);
            let mut parts: Vec<Vec<u8>> =
                parts.iter().map(|part| vec![0; part.byte_len()]).collect();
            pool.with(|worker| worker.encode(&residual, cols, &mut parts))?;
            parts
        }
    };
    pool.with(|worker| worker.decode(&parts, cols, &mut decoded))?;
    if let Some(adapter) = adapter {
        adapter.add_to(panel.rows.start, &mut decoded);
    }
    Ok((parts, ErrorSums::of(weights, &decoded)))
}
