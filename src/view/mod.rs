//! One self-contained HTML file that shows texture-coded weights in a browser.
//!
//! The file holds the blocks, scales or offsets, and adapters of a few tensors, and the program that draws
//! them: it decodes the texture on the GPU through WebGPU where the browser can, and in JavaScript
//! everywhere, compares the two, and shows weights, histogram, error and the configuration of every
//! block. It loads nothing from anywhere, and its content policy forbids it to.
//!
//! A large matrix is shown in part, from its first row and column on ([`Window`]), and the data of
//! all tensors together stay under [`MAX_DATA_BYTES`]; what is left out is in the report and on the
//! page.

mod data;
mod html;
mod select;
mod window;
mod write;

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::pipeline::CompressedFolder;

use data::TensorData;
use select::Candidate;
pub use window::Window;
pub use write::write_page;

/// Most bytes of blocks, scales, adapters and originals in one page; base64 adds a third.
pub const MAX_DATA_BYTES: usize = 24 << 20;

/// A page and what is on it.
#[derive(Debug, Clone)]
pub struct Page {
    /// The HTML text.
    pub html: String,
    /// What it shows.
    pub contents: Contents,
}

/// What a page shows.
#[derive(Debug, Clone, Serialize)]
pub struct Contents {
    /// The tensors, in the order of the page.
    pub tensors: Vec<ShownTensor>,
    /// Tensors that were chosen but are past [`MAX_DATA_BYTES`].
    pub left_out: Vec<String>,
    /// Texture-coded tensors of the folder, on the page or not.
    pub texture_tensors: usize,
}

/// One tensor of a page.
#[derive(Debug, Clone, Serialize)]
pub struct ShownTensor {
    /// Name in the source.
    pub name: String,
    /// Dimensions in the source.
    pub shape: Vec<usize>,
    /// "astc", "astc-hdr" or "bc4".
    pub codec: &'static str,
    /// Texels of a block, "6x6".
    pub footprint: String,
    /// The part of the matrix that is shown.
    pub window: Window,
    /// Bytes of data on the page, before base64.
    pub data_bytes: usize,
}

/// Makes the page of the tensors called `names` of `folder`, in that order; without names, of the
/// first texture-coded tensor of each kind of layer. With `original`, the page also holds the original
/// weights of each window as fp16 and shows the errors.
///
/// # Errors
/// [`crate::Error::Checkpoint`] if `folder` holds no texture, [`crate::Error::Usage`] for a
/// name that is none, [`crate::Error::Tensor`] if `original` is not what was compressed, and I/O.
pub fn page(
    folder: &CompressedFolder,
    original: Option<&Checkpoint>,
    names: &[String],
) -> Result<Page> {
    let candidates = select::texture_tensors(folder);
    let chosen = select::choose(folder.stored.folder(), &candidates, names)?;
    let bytes = |candidate: &&Candidate<'_>| candidate.data_bytes(original.is_some());
    let (shown, left_out) = select::within(MAX_DATA_BYTES, chosen, bytes);
    let tensors = shown
        .iter()
        .map(|candidate| TensorData::read(folder, original, candidate))
        .collect::<Result<Vec<_>>>()?;
    let contents = Contents {
        tensors: shown
            .iter()
            .map(|candidate| ShownTensor {
                name: candidate.entry.name.clone(),
                shape: candidate.entry.shape.clone(),
                codec: candidate.mode.codec().name(),
                footprint: candidate.footprint.to_string(),
                window: candidate.window,
                data_bytes: bytes(candidate),
            })
            .collect(),
        left_out: left_out.iter().map(|candidate| candidate.entry.name.clone()).collect(),
        texture_tensors: candidates.len(),
    };
    let html = html::assemble(&html::Facts::new(folder, original.is_some(), &contents), &tensors);
    Ok(Page { html, contents })
}
