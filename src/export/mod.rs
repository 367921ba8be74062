//! Export for other programs: textures, and whole models.
//!
//! [`export`] writes a KTX2 or `.astc` file a tensor, and an index; [`export_mlx`] a folder for
//! mlx-lm and [`export_gguf`] a file for llama.cpp, as `docs/interop.md` describes.
//!
//! A texture file holds the blocks as the compressed folder has them, cut into layers where the matrix is
//! larger than a texture may be (`tiling`). `docs/gpu.md` describes the files and how to sample
//! them.

mod adapters;
mod astc_file;
mod gguf;
mod index;
mod ktx2;
mod mlx;
mod npy;
mod precision;
mod rows;
mod texture;
mod tiling;
mod whole;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use compress_model_astc::BlockGrid;
use rayon::prelude::*;
use regex::Regex;
use serde::Serialize;

pub use self::adapters::{
    AdapterReport, export_gguf_adapters, export_mlx_adapters, is_mlx_adapter,
};
pub use self::gguf::{GgufDtype, GgufOptions, GgufReport, export_gguf};
pub use self::index::{EXPORT_VERSION, Exported, INDEX_FILE, Index, LeftOut, is_export};
pub use self::mlx::{MlxOptions, MlxReport, export_mlx};
pub use self::precision::Precision;
use self::texture::Texture;
pub use self::tiling::Tiling;
use self::tiling::{Run, Source};
use crate::checkpoint::{Staging, Tensor, write_file, write_json};
use crate::error::{Error, IoContext, Result};
use crate::pipeline::manifest::{Entry, Status, TOOL};
use crate::pipeline::{CompressedFolder, Progress};

/// Kind of the texture files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// KTX 2.0, with scales and shape in its key/value data.
    Ktx2,
    /// ARM's .astc, with the scales in a .npy file beside it.
    Astc,
}

/// What to export.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// Kind of the files.
    pub format: FileFormat,
    /// Only tensors whose name matches one of these. Default: empty, all tensors.
    pub tensors: Vec<Regex>,
    /// Most texels along a side of a texture, 12 to 2^24 - 1.
    pub max_dimension: u32,
}

/// What a run reports.
#[derive(Debug, Clone, Serialize)]
pub struct ExportReport {
    /// The export folder.
    pub output: PathBuf,
    /// Tensors exported.
    pub exported: usize,
    /// Tensors left out.
    pub left_out: usize,
    /// Bytes of texture files.
    pub bytes: u64,
}

/// Exports the textures of `input` into the new folder `output`, on the current rayon pool. The
/// caller has checked `output`.
///
/// # Errors
/// [`Error::Usage`] if no tensor can be exported, with the reasons; I/O. No output is left behind.
pub fn export(
    input: &CompressedFolder,
    output: &Path,
    options: &ExportOptions,
    progress: &dyn Progress,
) -> Result<ExportReport> {
    let (jobs, left_out) = jobs(input, options);
    if jobs.is_empty() {
        return Err(Error::Usage(nothing_to_export(&left_out)));
    }
    progress.begin("exporting", jobs.iter().map(|job| job.blocks.byte_len).sum());
    let staging = Staging::create(output)?;
    let run = |job: &Job| -> Result<Exported> {
        progress.check_stopped()?;
        let exported = job.write(input, options.format, staging.folder())?;
        progress.advance(job.blocks.byte_len);
        progress.tensor(&format!("{} -> {}", exported.name, exported.file));
        Ok(exported)
    };
    let tensors: Vec<Exported> = jobs.par_iter().map(run).collect::<Result<_>>()?;
    let report = ExportReport {
        output: output.to_path_buf(),
        exported: tensors.len(),
        left_out: left_out.len(),
        bytes: tensors.iter().map(|tensor| tensor.bytes).sum(),
    };
    let index = Index {
        export_version: EXPORT_VERSION,
        tool: TOOL.to_owned(),
        format: options.format.extension(),
        source_fingerprint: input.manifest.source_fingerprint.clone(),
        tensors,
        left_out,
    };
    write_json(&staging.folder().join(INDEX_FILE), &index)?;
    staging.commit()?;
    Ok(report)
}

/// One tensor to export.
struct Job<'a> {
    entry: &'a Entry,
    codec: &'a str,
    decode: &'a str,
    texture: Texture,
    source: Source,
    blocks: &'a Tensor,
    scales: &'a Tensor,
    /// File name without its extension.
    stem: String,
}

/// The tensors to export, and all others.
fn jobs<'a>(input: &'a CompressedFolder, options: &ExportOptions) -> (Vec<Job<'a>>, Vec<LeftOut>) {
    let (mut jobs, mut left_out) = (Vec::new(), Vec::new());
    let mut stems = HashSet::new();
    for (index, entry) in input.manifest.tensors.iter().enumerate() {
        match job(input, index, entry, options) {
            Ok(mut job) => {
                job.stem = unique_stem(&entry.name, &mut stems);
                jobs.push(job);
            }
            Err(why) => left_out.push(LeftOut { name: entry.name.clone(), why }),
        }
    }
    (jobs, left_out)
}

/// The job of a tensor, or why there is none.
fn job<'a>(
    input: &'a CompressedFolder,
    index: usize,
    entry: &'a Entry,
    options: &ExportOptions,
) -> Result<Job<'a>, String> {
    let (codec, params, parts) = match &entry.status {
        Status::Coded { codec, params, parts, .. } => (codec, params, parts),
        Status::Kept { why, .. } => return Err(format!("kept: {why}")),
        Status::Tied { to } => return Err(format!("tied to {to}")),
    };
    let chosen = &options.tensors;
    if !chosen.is_empty() && !chosen.iter().any(|pattern| pattern.is_match(&entry.name)) {
        return Err("not selected".to_owned());
    }
    let (pool, (matrices, rows, cols)) = input.coded(index);
    let texture = Texture::of(pool.codec())?;
    if options.format == FileFormat::Astc && !texture.is_astc() {
        return Err(format!(".astc files cannot hold {codec} blocks; use ktx2"));
    }
    let grid = BlockGrid::new(rows, cols, texture.footprint);
    let source = Source::new(matrices, grid, options.max_dimension).ok_or("has no weights")?;
    let [blocks, scales] = &parts[..] else {
        return Err(format!("codec {codec} stores {} parts, not blocks and scales", parts.len()));
    };
    let decode = params.get("decode").and_then(serde_json::Value::as_str).unwrap_or_default();
    let (blocks, scales) = (input.stored_part(blocks), input.stored_part(scales));
    let stem = String::new();
    Ok(Job { entry, codec, decode, texture, source, blocks, scales, stem })
}

/// The tensor's name with characters that some file system forbids replaced, and a number where
/// another tensor has the same.
fn unique_stem(name: &str, taken: &mut HashSet<String>) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let plain: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    let mut stem = plain.clone();
    let mut number = 1;
    while !taken.insert(stem.to_ascii_lowercase()) {
        number += 1;
        stem = format!("{plain}-{number}");
    }
    stem
}

fn nothing_to_export(left_out: &[LeftOut]) -> String {
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for LeftOut { why, .. } in left_out {
        match reasons.iter_mut().find(|(known, _)| known == why) {
            Some((_, count)) => *count += 1,
            None => reasons.push((why, 1)),
        }
    }
    let reasons: Vec<String> =
        reasons.iter().map(|(why, count)| format!("{count} tensors: {why}")).collect();
    format!("no tensor can be exported ({})", reasons.join("; "))
}

impl Job<'_> {
    /// Writes the tensor's files into `folder`.
    fn write(
        &self,
        input: &CompressedFolder,
        format: FileFormat,
        folder: &Path,
    ) -> Result<Exported> {
        let mut scales = vec![0; self.scales.byte_len as usize];
        input.stored.read_bytes(self.scales, 0, &mut scales)?;
        let shape = &self.entry.shape;
        let file = format!("{}.{}", self.stem, format.extension());
        let mut scales_file = None;
        let head = match format {
            FileFormat::Ktx2 => ktx2::head(
                &self.texture,
                &self.source.tiling(),
                self.block_count(),
                &self.entries(scales),
            ),
            FileFormat::Astc => {
                let name = format!("{}.scales.npy", self.stem);
                let npy = npy::f16_file(&shape[..shape.len() - 1], &scales);
                write_file(&folder.join(&name), &npy)?;
                scales_file = Some(name);
                astc_file::head(&self.texture, &self.source.tiling()).to_vec()
            }
        };
        let (bytes, blake3) = self.write_texture(input, &folder.join(&file), &head)?;
        let Status::Coded { adapter, .. } = &self.entry.status else {
            unreachable!("invariant: only coded tensors are exported")
        };
        Ok(Exported {
            name: self.entry.name.clone(),
            file,
            scales_file,
            shape: shape.clone(),
            codec: self.codec.to_owned(),
            decode: self.decode.to_owned(),
            vk_format: self.texture.vk_name,
            tiling: self.source.tiling(),
            adapter: adapter.clone(),
            bytes,
            blake3,
        })
    }

    fn block_count(&self) -> u64 {
        self.source.runs().map(|run| (run.blocks + run.copies) as u64).sum()
    }

    /// Key/value data of a KTX2 file, in ascending order of keys.
    fn entries(&self, scales: Vec<u8>) -> Vec<(&'static str, Vec<u8>)> {
        let shape: Vec<String> = self.entry.shape.iter().map(usize::to_string).collect();
        let tiling = self.source.tiling();
        let tiles = format!("{}x{}", tiling.tiles_down, tiling.tiles_across);
        vec![
            ("KTXwriter", ktx2::text(TOOL)),
            ("compress-model.codec", ktx2::text(self.codec)),
            ("compress-model.decode", ktx2::text(self.decode)),
            ("compress-model.scales", scales),
            ("compress-model.shape", ktx2::text(&shape.join("x"))),
            ("compress-model.tensor", ktx2::text(&self.entry.name)),
            ("compress-model.tiles", ktx2::text(&tiles)),
            ("compress-model.version", ktx2::text(EXPORT_VERSION)),
        ]
    }

    /// Writes `head` and the blocks of all layers; returns the file's size and hash.
    fn write_texture(
        &self,
        input: &CompressedFolder,
        path: &Path,
        head: &[u8],
    ) -> Result<(u64, String)> {
        let mut file = BufWriter::new(File::create_new(path).at("create", path)?);
        let mut hash = blake3::Hasher::new();
        let mut bytes = 0;
        let mut put = |data: &[u8]| -> Result<()> {
            bytes += data.len() as u64;
            hash.update(data);
            file.write_all(data).at("write", path)
        };
        put(head)?;
        let size = self.texture.block_bytes;
        let mut row = Vec::new();
        for Run { from, blocks, copies } in self.source.runs() {
            row.resize(blocks * size, 0);
            input.stored.read_bytes(self.blocks, (from * size) as u64, &mut row)?;
            for _ in 0..copies {
                row.extend_from_within((blocks - 1) * size..blocks * size);
            }
            put(&row)?;
        }
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_all()).at("write", path)?;
        Ok((bytes, hash.finalize().to_hex().to_string()))
    }
}

impl FileFormat {
    /// Extension of the files, and name in the index.
    fn extension(self) -> &'static str {
        match self {
            Self::Ktx2 => "ktx2",
            Self::Astc => "astc",
        }
    }
}
