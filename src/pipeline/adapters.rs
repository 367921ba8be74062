//! Adapters: the top singular directions of a weight, taken out before it is coded.

use compress_model_lora::{Adapter, Panels, SvdOptions, truncated_svd};

use crate::checkpoint::dtype::AlignedBytes;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};

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
pub(super) fn extract(
    checkpoint: &Checkpoint,
    tensor: &Tensor,
    rank: usize,
    seed: u64,
) -> Result<Adapter> {
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
