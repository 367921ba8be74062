//! `index.json`: what an export holds, and why the rest of the model is not in it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tiling::Tiling;
use crate::pipeline::manifest::AdapterEntry;

/// File name in the export folder.
pub const INDEX_FILE: &str = "index.json";

/// Version of the index and of the KTX2 keys, major.minor.
pub const EXPORT_VERSION: &str = "1.0";

/// The contents of `index.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Index {
    /// [`EXPORT_VERSION`].
    pub export_version: &'static str,
    /// Program and version.
    pub tool: String,
    /// Kind of the files: `ktx2` or `astc`.
    pub format: &'static str,
    /// Fingerprint of the source checkpoint.
    pub source_fingerprint: String,
    /// Exported tensors, in natural order of names.
    pub tensors: Vec<Exported>,
    /// All others.
    pub left_out: Vec<LeftOut>,
}

/// One exported tensor.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    /// Name of the weight.
    pub name: String,
    /// The texture's file.
    pub file: String,
    /// The row scales' file, for formats that cannot hold them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scales_file: Option<String>,
    /// Dimensions of the weight: rows and columns, with the number of matrices before them if
    /// there are several.
    pub shape: Vec<usize>,
    /// Codec that made the blocks.
    pub codec: String,
    /// Texel values that the blocks were made for.
    pub decode: String,
    /// Vulkan name of the texture format.
    pub vk_format: &'static str,
    /// Size and layers of the texture.
    #[serde(flatten)]
    pub tiling: Tiling,
    /// Low-rank adapter of the compressed folder that belongs to the weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterEntry>,
    /// Bytes of the texture's file.
    pub bytes: u64,
    /// BLAKE3 of the texture's file.
    pub blake3: String,
}

/// One tensor that is not exported.
#[derive(Debug, Clone, Serialize)]
pub struct LeftOut {
    /// Name of the weight.
    pub name: String,
    /// Why.
    pub why: String,
}

/// Whether `folder` holds an export, which may be replaced by another.
#[must_use]
pub fn is_export(folder: &Path) -> bool {
    #[derive(Deserialize)]
    struct Mark {
        #[serde(rename = "export_version")]
        _version: String,
        tool: String,
    }
    std::fs::read(folder.join(INDEX_FILE))
        .ok()
        .and_then(|text| serde_json::from_slice::<Mark>(&text).ok())
        .is_some_and(|mark| mark.tool.starts_with("compress-model "))
}
