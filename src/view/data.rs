//! The data of one tensor: what the folder and the original hold for its window.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use compress_model_astc::{BlockGrid, TextureCodec};
use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::Serialize;
use serde_json::Value;

use super::select::Candidate;
use super::window::Window;
use crate::checkpoint::dtype::AlignedBytes;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::pipeline::manifest::Status;
use crate::pipeline::{CompressedFolder, decibels, hash_tensor};

/// One tensor as the page's program reads it; arrays are little-endian in base64.
#[derive(Debug, Serialize)]
pub(super) struct TensorData {
    name: String,
    role: &'static str,
    dtype: String,
    shape: Vec<usize>,
    /// "astc", "astc-hdr" or "bc4".
    codec: &'static str,
    footprint: [usize; 2],
    params: Vec<(String, String)>,
    /// "unorm8", "fp16" or "exact": how the texels of this tensor are meant to be read.
    decode: &'static str,
    bits_per_weight: f64,
    #[serde(serialize_with = "decibels::serialize")]
    sqnr_db: Option<f64>,
    window: Window,
    /// Blocks of the window, across and down.
    blocks_across: usize,
    blocks_down: usize,
    blocks: String,
    /// Row scales, or with HDR offsets of the blocks in raster order; f16.
    side: String,
    adapter: Option<Factors>,
    /// Weights of the original in the window, f16.
    original: Option<String>,
}

/// B·A of the window.
#[derive(Debug, Serialize)]
struct Factors {
    rank: usize,
    /// A, f16 [rank, cols].
    a: String,
    /// B, f16 [rows, rank].
    b: String,
}

impl TensorData {
    /// Reads the window of `candidate`, of the first matrix where there are several.
    pub(super) fn read(
        folder: &CompressedFolder,
        original: Option<&Checkpoint>,
        candidate: &Candidate<'_>,
    ) -> Result<Self> {
        let entry = candidate.entry;
        let Status::Coded { params, bits_per_weight, sqnr_db, .. } = &entry.status else {
            unreachable!("invariant: a candidate is coded")
        };
        let grid = candidate.grid();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let original = original.map(|o| read_original(o, candidate)).transpose()?;
        Ok(Self {
            name: entry.name.clone(),
            role: entry.role.name(),
            dtype: entry.dtype.clone(),
            shape: entry.shape.clone(),
            codec: candidate.mode.codec().name(),
            footprint: [candidate.footprint.width(), candidate.footprint.height()],
            params: params.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
            decode: candidate.mode.name(),
            bits_per_weight: *bits_per_weight,
            sqnr_db: *sqnr_db,
            window: candidate.window,
            blocks_across: grid.blocks_across(),
            blocks_down: grid.blocks_down(),
            blocks: STANDARD.encode(read_blocks(folder, candidate)?),
            side: STANDARD.encode(read_side(folder, candidate)?),
            adapter: read_factors(folder, candidate)?,
            original,
        })
    }
}

/// The stored tensor of part number `part`.
fn stored<'a>(folder: &'a CompressedFolder, candidate: &Candidate<'_>, part: usize) -> &'a Tensor {
    folder.stored_part(&candidate.entry.status.parts()[part])
}

fn read_blocks(folder: &CompressedFolder, candidate: &Candidate<'_>) -> Result<Vec<u8>> {
    read_raster(folder, candidate, 0, candidate.mode.codec().block_bytes())
}

/// Row scales of the window, or the offsets of its blocks.
fn read_side(folder: &CompressedFolder, candidate: &Candidate<'_>) -> Result<Vec<u8>> {
    if candidate.mode.codec() == TextureCodec::AstcHdr {
        return read_raster(folder, candidate, 1, size_of::<f16>());
    }
    let mut scales = vec![0; size_of::<f16>() * candidate.window.rows];
    folder.stored.read_bytes(stored(folder, candidate, 1), 0, &mut scales)?;
    Ok(scales)
}

/// Part number `part` for the blocks of the window, of which each has `size` bytes.
fn read_raster(
    folder: &CompressedFolder,
    candidate: &Candidate<'_>,
    part: usize,
    size: usize,
) -> Result<Vec<u8>> {
    let tensor = stored(folder, candidate, part);
    let (_, rows, cols) = candidate.shape;
    let stride = BlockGrid::new(rows, cols, candidate.footprint).blocks_across() * size;
    let grid = candidate.grid();
    let mut bytes = vec![0; grid.block_count() * size];
    for (row, bytes) in bytes.chunks_exact_mut(grid.blocks_across() * size).enumerate() {
        folder.stored.read_bytes(tensor, (row * stride) as u64, bytes)?;
    }
    Ok(bytes)
}

fn read_factors(folder: &CompressedFolder, candidate: &Candidate<'_>) -> Result<Option<Factors>> {
    let Some(adapter) = folder.adapter(candidate.index)? else { return Ok(None) };
    let Window { rows, cols, .. } = candidate.window;
    let a: Vec<f16> =
        adapter.a.chunks_exact(candidate.shape.2).flat_map(|row| &row[..cols]).copied().collect();
    let b = &adapter.b[..rows * adapter.rank()];
    Ok(Some(Factors {
        rank: adapter.rank(),
        a: STANDARD.encode(bytemuck::cast_slice(&a)),
        b: STANDARD.encode(bytemuck::cast_slice(b)),
    }))
}

/// The original weights of the window as f16, once its hash has shown that it is the original.
fn read_original(original: &Checkpoint, candidate: &Candidate<'_>) -> Result<String> {
    let entry = candidate.entry;
    let Some(tensor) = original.tensor(&entry.name) else {
        return Err(Error::tensor(original.folder(), &entry.name, "is not in the original"));
    };
    let hash = hash_tensor(original, tensor, |_, _| Ok(()))?;
    if tensor.shape != entry.shape || *hash.to_hex() != *entry.source_blake3 {
        let message = if entry.transformed.is_some() {
            "was transformed before it was compressed, so that the two cannot be shown together"
        } else {
            "is not what was compressed: its shape or its hash is another"
        };
        return Err(Error::tensor(original.file_of(tensor), &entry.name, message));
    }
    let Window { rows, cols, .. } = candidate.window;
    let mut chunk = AlignedBytes::default();
    let mut weights = vec![0.0; rows * cols];
    for (row, weights) in weights.chunks_exact_mut(cols).enumerate() {
        let first = (row * candidate.shape.2) as u64;
        original.read_weights(tensor, first, &mut chunk, weights)?;
    }
    let mut halves = vec![f16::ZERO; weights.len()];
    halves.convert_from_f32_slice(&weights);
    Ok(STANDARD.encode(bytemuck::cast_slice(&halves)))
}
