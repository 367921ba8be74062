//! A GGUF file for llama.cpp, with the codes of `grid2` and `int4` as they are.
//!
//! The grid s·(c - 1.5) is a Q2_K block with d = s, every 4-bit scale 1, dmin = s/2 and every 4-bit
//! minimum 3, since 1·s·c - 3·s/2 is the weight; all scales but odd multiples of 2^-24 fit. Rows
//! that 256 does not divide become Q4_0, where the levels are the odd codes 5, 7, 9 and 11 of step
//! s/2. A 4-bit group is Q4_1 as it is. All other weights are decoded.

mod blocks;
mod chat;
mod metadata;
mod tokenizer;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use self::blocks::{Coding, encode_rows};
pub(super) use self::metadata::Model;
use super::precision::Precision;
use super::rows::{Job, Run};
use super::whole::whole_model;
use crate::checkpoint::SingleFile;
use crate::checkpoint::dtype::parse_dtype;
use crate::error::{Error, Result};
use crate::gguf::{FileWriter, HeaderWriter, ROPE_FACTORS, RowOrder, TensorType, to_gguf};
use crate::pipeline::manifest::Status;
use crate::pipeline::{AdapterMode, CompressedFolder, Progress};

/// Element type of weights that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GgufDtype {
    /// fp32.
    F32,
    /// fp16.
    F16,
    /// bf16.
    Bf16,
    /// 8 bits and a scale for each 32 weights.
    #[value(name = "q8_0")]
    Q8_0,
}

/// How to export as GGUF.
#[derive(Debug, Clone, Copy)]
pub struct GgufOptions {
    /// Element type of weights that are decoded.
    pub dtype: GgufDtype,
    /// What becomes of adapters; a weight that takes its adapter in is decoded.
    pub adapters: AdapterMode,
    /// Refuse to change any weight.
    pub exact: bool,
}

/// What an export as GGUF reports.
#[derive(Debug, Clone, Serialize)]
pub struct GgufReport {
    /// The file.
    pub output: PathBuf,
    /// Tensors of each type, by its name.
    pub types: Vec<(&'static str, usize)>,
    /// Bytes of the file.
    pub bytes: u64,
    /// How the weights compare with the compressed folder's.
    pub precision: Precision,
}

/// A tensor of the file.
struct Planned<'a> {
    job: Job<'a>,
    name: String,
    coding: Coding,
    order: RowOrder,
}

/// Writes the GGUF file `output`, on the current rayon pool. The caller has checked `output`.
///
/// # Errors
/// [`Error::Checkpoint`] for a model or tokenizer that this writer does not know;
/// [`Error::Tensor`] for a tensor that the configuration means and that is missing, of another
/// shape or left over, for a weight past the range of its type, and with `exact` for one that would
/// change; I/O. No output is left behind.
pub fn export_gguf(
    input: &CompressedFolder,
    output: &Path,
    options: GgufOptions,
    progress: &dyn Progress,
) -> Result<GgufReport> {
    let model = Model::read(input)?;
    let jobs = whole_model(input, Some(&model.architecture), options.adapters)?;
    let planned: Vec<Planned<'_>> =
        jobs.into_iter().map(|job| plan(input, &model, job, options)).collect::<Result<_>>()?;
    let mut header = HeaderWriter::default();
    model.describe(&mut header, file_type(&planned));
    tokenizer::describe(input, &model, &mut header)?;
    let factors = model.rope_factors();
    if let Some(factors) = &factors {
        let len = 4 * factors.len() as u64;
        header.tensor(ROPE_FACTORS, &[factors.len()], TensorType::F32, len);
    }
    let mut total = 0;
    for tensor in &planned {
        let bytes = tensor.byte_len();
        header.tensor(&tensor.name, &tensor.job.entry.shape, tensor.coding.kind(), bytes);
        total += bytes;
    }
    progress.begin("exporting", total);
    let file = SingleFile::create(output)?;
    let writer = header.create(file.path())?;
    if let Some(factors) = &factors {
        writer.write(ROPE_FACTORS, 0, bytemuck::cast_slice(factors))?;
    }
    let mut precision = Precision::default();
    for tensor in &planned {
        progress.check_stopped()?;
        let sums = tensor.job.for_each_run(input, |run| tensor.write(input, run, &writer))?;
        precision.add(input, &tensor.job.entry.name, sums, options.exact)?;
        progress.advance(tensor.byte_len());
        progress.tensor(&tensor.name);
    }
    let bytes = writer.finish()?;
    file.commit()?;
    Ok(GgufReport { output: output.to_path_buf(), types: types(&planned), bytes, precision })
}

fn types(planned: &[Planned<'_>]) -> Vec<(&'static str, usize)> {
    let mut types: Vec<(&'static str, usize)> = Vec::new();
    for tensor in planned {
        let name = tensor.coding.kind().name();
        match types.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => types.push((name, 1)),
        }
    }
    types
}

/// `general.file_type`, which only says what a reader may print: the type of most matrices.
fn file_type(planned: &[Planned<'_>]) -> u32 {
    const NUMBERS: [(TensorType, u32); 6] = [
        (TensorType::F16, 1),
        (TensorType::Q4_0, 2),
        (TensorType::Q4_1, 3),
        (TensorType::Q8_0, 7),
        (TensorType::Q2K, 10),
        (TensorType::Bf16, 32),
    ];
    let matrices = planned.iter().filter(|tensor| tensor.job.entry.shape.len() > 1);
    let kinds: Vec<TensorType> = matrices.map(|tensor| tensor.coding.kind()).collect();
    let count = |kind: TensorType| kinds.iter().filter(|&&k| k == kind).count();
    let most = NUMBERS.into_iter().max_by_key(|&(kind, _)| count(kind));
    most.filter(|&(kind, _)| count(kind) > 0).map_or(0, |(_, number)| number)
}

fn plan<'a>(
    input: &CompressedFolder,
    model: &Model,
    job: Job<'a>,
    options: GgufOptions,
) -> Result<Planned<'a>> {
    let entry = job.entry;
    let wrong = |message: String| Error::tensor(input.stored.folder(), &entry.name, message);
    let name = to_gguf(&entry.name)
        .filter(|_| entry.shape.len() <= 2)
        .ok_or_else(|| wrong("has no place in a GGUF file of this architecture".to_owned()))?;
    let (rows, _) = match entry.shape[..] {
        [rows] => (rows, 1),
        _ => job.rows_and_cols(),
    };
    let a = &model.architecture;
    let order =
        RowOrder::of(model.family, &entry.name, rows, a.heads, a.kv_heads).map_err(wrong)?;
    Ok(Planned { coding: coding(&job, options.dtype), job, name, order })
}

/// How a tensor is stored: coded where the type holds its codes, norms and biases as F32, which
/// llama.cpp wants, kept matrices in their own type.
fn coding(job: &Job<'_>, dtype: GgufDtype) -> Coding {
    let (_, cols) = job.rows_and_cols();
    let shares = |block: usize, group: Option<usize>| {
        cols.is_multiple_of(block)
            && group.is_none_or(|group| group >= cols || group.is_multiple_of(block))
    };
    let plain = match (&job.entry.status, parse_dtype(&job.entry.dtype)) {
        _ if job.entry.shape.len() == 1 => TensorType::F32,
        (Status::Kept { .. }, Some(safetensors::Dtype::F16)) => TensorType::F16,
        (Status::Kept { .. }, Some(safetensors::Dtype::BF16)) => TensorType::Bf16,
        (Status::Kept { .. }, _) => TensorType::F32,
        _ => match dtype {
            GgufDtype::F32 => TensorType::F32,
            GgufDtype::Bf16 => TensorType::Bf16,
            GgufDtype::Q8_0 if cols.is_multiple_of(32) => TensorType::Q8_0,
            GgufDtype::F16 | GgufDtype::Q8_0 => TensorType::F16,
        },
    };
    match job.codes() {
        Some("grid2") if shares(256, job.group()) => Coding::Grid2AsQ2K { group: job.group() },
        Some("grid2") if shares(32, job.group()) => Coding::Grid2AsQ4_0 { group: job.group() },
        Some("int4") if shares(32, job.group()) => Coding::Int4AsQ4_1 { group: job.group() },
        _ => Coding::Plain(plain),
    }
}

impl Planned<'_> {
    fn row_bytes(&self) -> usize {
        let (_, cols) = self.job.rows_and_cols();
        self.coding.kind().row_bytes(cols).expect("invariant: the type was chosen for these rows")
    }

    fn byte_len(&self) -> u64 {
        let (rows, _) = self.job.rows_and_cols();
        rows as u64 * self.row_bytes() as u64
    }

    fn write(
        &self,
        input: &CompressedFolder,
        run: &Run<'_>,
        writer: &FileWriter,
    ) -> Result<Vec<f32>> {
        let (_, cols) = self.job.rows_and_cols();
        let bytes = encode_rows(self.coding, run, cols).map_err(|value| {
            let message =
                format!("{value} overflows {}; choose another --dtype", self.coding.kind().name());
            Error::tensor(input.stored.folder(), &self.job.entry.name, message)
        })?;
        let mut written = vec![0.0; run.weights.len()];
        self.coding.kind().decode(&bytes, &mut written);
        let is_vector = self.job.entry.shape.len() == 1;
        if self.order.is_same() {
            // A vector is one row that may come in pieces.
            let at =
                run.first / self.coding.kind().block_weights() * self.coding.kind().block_bytes();
            writer.write(&self.name, at as u64, &bytes)?;
            return Ok(written);
        }
        // A vector that changes places moves by element.
        let (row_len, row_bytes) = if is_vector {
            (1, self.coding.kind().block_bytes())
        } else {
            (cols, self.row_bytes())
        };
        let first = run.first / row_len;
        for (i, row) in bytes.chunks_exact(row_bytes).enumerate() {
            let at = self.order.to_gguf(first + i) * row_bytes;
            writer.write(&self.name, at as u64, row)?;
        }
        Ok(written)
    }
}
