//! Verification on a GPU: every texture decoded there and compared, bit for bit, with the CPU.

use std::collections::BTreeMap;

use compress_model_astc::gpu::{Gpu, GpuDecoder, PathChoice};
use compress_model_astc::{BlockGrid, Footprint, TexelMode, TextureCodec};
use half::f16;
use rayon::prelude::*;
use serde::Serialize;

use super::compressed::CompressedFolder;
use super::manifest::Status;
use super::panels::Panel;
use super::progress::Progress;
use super::verify::VerifyReport;
use crate::error::{Error, Result};

/// Weights that are uploaded, decoded and compared at once: 16 MB as f32.
const BAND_WEIGHTS: usize = 1 << 22;

/// Differences that a report lists; all are counted.
const LISTED_DIFFERENCES: usize = 10;

/// What a GPU made of a folder's textures.
#[derive(Debug, Clone, Serialize)]
pub struct GpuReport {
    /// Backend and name of the adapter.
    pub adapter: String,
    /// How the texels came out of the blocks: codec, "sampled" or "computed", and the precision, as
    /// "astc: sampled, unorm8"; one entry for each precision that the folder's textures were made
    /// for.
    pub paths: Vec<String>,
    /// What the texels are compared with.
    pub reference: GpuReference,
    /// Tensors decoded.
    pub tensors: usize,
    /// Texels compared, by codec.
    pub texels_by_codec: BTreeMap<&'static str, u64>,
    /// Texels compared with the CPU reference, scaled to weights.
    pub texels: u64,
    /// How many of them differ.
    pub differing: u64,
    /// The first ten of those.
    pub first: Vec<TexelDifference>,
}

/// The CPU's part in the comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GpuReference {
    /// The CPU decodes in the precision that the GPU was found to decode in.
    #[default]
    Detected,
    /// The CPU decodes in the precision that the folder was written for: a GPU that rounds in
    /// another way differs.
    Recorded,
}

/// A weight that the GPU decodes to another value than the CPU reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TexelDifference {
    /// The tensor.
    pub tensor: String,
    /// Which matrix of a stack.
    pub matrix: usize,
    /// Row of the matrix.
    pub row: usize,
    /// Column of the matrix.
    pub col: usize,
    /// The CPU's weight.
    pub expected: f32,
    /// The GPU's weight.
    pub found: f32,
}

impl GpuReport {
    /// The failures to report: a count, and the listed differences.
    fn failures(&self) -> Vec<String> {
        if self.differing == 0 {
            return Vec::new();
        }
        let count = format!(
            "{} of {} texels differ on {} ({}); the first are:",
            self.differing,
            self.texels,
            self.adapter,
            self.paths.join("; ")
        );
        let listed = self.first.iter().map(|d| {
            format!(
                "{}: matrix {}, row {}, column {}: {} instead of {}",
                d.tensor, d.matrix, d.row, d.col, d.found, d.expected
            )
        });
        std::iter::once(count).chain(listed).collect()
    }
}

impl VerifyReport {
    /// Adds what a GPU found; a differing texel is a failure.
    pub fn add_gpu(&mut self, report: GpuReport) {
        self.failures.extend(report.failures());
        self.ok = self.failures.is_empty();
        self.gpu = Some(report);
    }
}

/// Decodes every texture of `folder` on `gpu` and compares it with the CPU reference in the
/// precision that `reference` asks for. Holds one band of four million weights, or one row of blocks,
/// at a time.
///
/// # Errors
/// [`Error::Gpu`] if the GPU is refused or fails, I/O, or a folder without textures. Differences
/// are in the report, not in the error.
pub fn verify_gpu(
    folder: &CompressedFolder,
    gpu: &Gpu,
    choice: PathChoice,
    reference: GpuReference,
    progress: &dyn Progress,
) -> Result<GpuReport> {
    let textures = textures(folder);
    if textures.is_empty() {
        let message = "has no texture-coded tensor: there is nothing to decode on a GPU";
        return Err(Error::checkpoint(folder.stored.folder(), message));
    }
    let mut decoders: Vec<(TexelMode, GpuDecoder<'_>)> = Vec::new();
    let mut report = GpuReport {
        adapter: gpu.info().label(),
        paths: Vec::new(),
        reference,
        tensors: textures.len(),
        texels_by_codec: BTreeMap::new(),
        texels: 0,
        differing: 0,
        first: Vec::new(),
    };
    progress.begin("decoding on the GPU", textures.iter().map(Texture::bytes).sum());
    for texture in &textures {
        let known = decoders.iter().position(|(wanted, _)| *wanted == texture.wanted);
        let index = match known {
            Some(index) => index,
            None => {
                let decoder = GpuDecoder::choose(gpu, choice, texture.wanted)?;
                let codec = texture.wanted.codec().name();
                report.paths.push(format!("{codec}: {}", decoder.path()));
                decoders.push((texture.wanted, decoder));
                decoders.len() - 1
            }
        };
        for panel in texture.bands() {
            let parts = folder.read_parts(texture.entry, &panel)?;
            texture.compare(folder, &decoders[index].1, &panel, &parts, &mut report)?;
            progress.advance(parts.iter().map(|part| part.len() as u64).sum());
        }
    }
    report.paths.sort();
    report.paths.dedup();
    Ok(report)
}

/// A texture-coded entry.
struct Texture {
    entry: usize,
    /// Matrices, rows, columns.
    shape: (usize, usize, usize),
    footprint: Footprint,
    /// The precision it was made for.
    wanted: TexelMode,
}

fn textures(folder: &CompressedFolder) -> Vec<Texture> {
    let tensors = folder.manifest.tensors.iter().enumerate();
    let coded = tensors.filter(|(_, tensor)| matches!(tensor.status, Status::Coded { .. }));
    let texture = |(entry, _)| {
        let (pool, shape) = folder.coded(entry);
        let (footprint, wanted) = pool.codec().texture()?;
        Some(Texture { entry, shape, footprint, wanted })
    };
    coded.filter_map(texture).collect()
}

/// The codecs of the textures in `folder`, each once: what a GPU for it should sample.
pub fn texture_codecs(folder: &CompressedFolder) -> Vec<TextureCodec> {
    let mut codecs: Vec<_> = textures(folder).iter().map(|t| t.wanted.codec()).collect();
    codecs.sort();
    codecs.dedup();
    codecs
}

impl Texture {
    fn bytes(&self) -> u64 {
        let (matrices, rows, cols) = self.shape;
        let grid = BlockGrid::new(rows, cols, self.footprint);
        let codec = self.wanted.codec();
        let blocks = grid.block_count() * codec.block_bytes();
        (matrices * (blocks + codec.side_count(&grid) * size_of::<f16>())) as u64
    }

    fn bands(&self) -> impl Iterator<Item = Panel> {
        let (matrices, rows, cols) = self.shape;
        let height = self.footprint.height();
        let step = (BAND_WEIGHTS / cols.max(1) / height).max(1) * height;
        let band = move |first: usize| first..rows.min(first + step);
        (0..matrices).flat_map(move |matrix| {
            (0..rows).step_by(step).map(move |first| Panel { matrix, rows: band(first) })
        })
    }

    fn compare(
        &self,
        folder: &CompressedFolder,
        decoder: &GpuDecoder<'_>,
        panel: &Panel,
        parts: &[Vec<u8>],
        report: &mut GpuReport,
    ) -> Result<()> {
        let (rows, cols) = (panel.rows.len(), self.shape.2);
        let grid = BlockGrid::new(rows, cols, self.footprint);
        let side: Vec<f16> = bytemuck::pod_collect_to_vec(&parts[1]);
        let matrix = decoder.upload(grid, &parts[0], &side)?;
        let mut found = vec![0.0; rows * cols];
        decoder.decode(&matrix, 0..rows, &mut found)?;
        let mode = match report.reference {
            GpuReference::Detected => decoder.path().mode(),
            GpuReference::Recorded => self.wanted,
        };
        let expected = reference(&grid, mode, &parts[0], &side)
            .map_err(compress_model_astc::gpu::GpuError::Shape)?;
        report.texels += found.len() as u64;
        let codec = self.wanted.codec().name();
        *report.texels_by_codec.entry(codec).or_default() += found.len() as u64;
        for i in differences(&expected, &found) {
            report.differing += 1;
            if report.first.len() < LISTED_DIFFERENCES {
                report.first.push(TexelDifference {
                    tensor: folder.manifest.tensors[self.entry].name.clone(),
                    matrix: panel.matrix,
                    row: panel.rows.start + i / cols,
                    col: i % cols,
                    expected: expected[i],
                    found: found[i],
                });
            }
        }
        Ok(())
    }
}

/// Where two sets of weights differ in any bit; every NaN is one value.
fn differences(expected: &[f32], found: &[f32]) -> impl Iterator<Item = usize> {
    let differ = |(e, f): (&f32, &f32)| e.to_bits() != f.to_bits() && !(e.is_nan() && f.is_nan());
    expected.iter().zip(found).enumerate().filter(move |(_, pair)| differ(*pair)).map(|(i, _)| i)
}

/// The CPU's weights, block rows shared out to all threads.
fn reference(
    grid: &BlockGrid,
    mode: TexelMode,
    blocks: &[u8],
    side: &[f16],
) -> std::result::Result<Vec<f32>, compress_model_astc::Error> {
    let BlockGrid { cols, footprint, .. } = *grid;
    let strips = grid.blocks_down().div_ceil(rayon::current_num_threads()).max(1);
    let strip_bytes = grid.blocks_across() * mode.codec().block_bytes();
    let rows = strips * footprint.height();
    let strip_side = mode.codec().side_count(&BlockGrid::new(rows, cols, footprint));
    let mut weights = vec![0.0; grid.rows * cols];
    if weights.is_empty() {
        return Ok(weights);
    }
    weights
        .par_chunks_mut(rows * cols)
        .zip(side.par_chunks(strip_side))
        .zip(blocks.par_chunks(strips * strip_bytes))
        .try_for_each(|((weights, side), blocks)| {
            let strip = BlockGrid::new(weights.len() / cols, cols, footprint);
            mode.decode_rows(&strip, blocks, side, weights)
        })?;
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bits_count_and_differences_are_failures() {
        let expected = [0.0, 1.0, f32::NAN, 2.0];
        let found = [-0.0, 1.0, -f32::NAN, f32::from_bits(2.0_f32.to_bits() + 1)];
        assert_eq!(differences(&expected, &found).collect::<Vec<_>>(), [0, 3]);

        let difference = TexelDifference {
            tensor: "w".to_owned(),
            matrix: 1,
            row: 2,
            col: 3,
            expected: 0.5,
            found: 0.25,
        };
        let report = GpuReport {
            adapter: "gl: a".to_owned(),
            paths: vec!["astc: sampled, unorm8".to_owned()],
            reference: GpuReference::Detected,
            tensors: 1,
            texels_by_codec: BTreeMap::from([("astc", 40)]),
            texels: 40,
            differing: 30,
            first: vec![difference],
        };
        assert_eq!(
            report.failures(),
            [
                "30 of 40 texels differ on gl: a (astc: sampled, unorm8); the first are:",
                "w: matrix 1, row 2, column 3: 0.25 instead of 0.5"
            ]
        );
        assert!(GpuReport { differing: 0, ..report }.failures().is_empty());
    }
}
