//! `manifest.json`: what became of every tensor. The format is described in `docs/format.md`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decibels;
use super::plan::Totals;
use crate::checkpoint::{check_given, read_member};
use crate::codec::Params;
use crate::error::{Error, Result};
use crate::recipe::Transform;

/// File name in the output folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Program and version, as manifests and exports name them.
pub const TOOL: &str = concat!("compress-model ", env!("CARGO_PKG_VERSION"));

/// Version of the output format, major.minor. A reader refuses another major version and warns of
/// a higher minor one, which may have keys that it does not know.
pub const FORMAT_VERSION: &str = "1.3";

/// Largest manifest read.
const MAX_MANIFEST_LEN: u64 = 256 << 20;

/// What an output folder says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: String,
    /// Program and version that wrote the folder.
    pub tool: String,
    /// Name of the recipe; the recipe itself is in `recipe.toml`.
    pub recipe: String,
    /// Seed of the run.
    pub seed: u64,
    /// BLAKE3 over name, dtype, shape and data hash of every tensor of the original checkpoint.
    pub source_fingerprint: String,
    /// What the original went through before it was coded. The source tensors are then those of
    /// the transformed model, which has the same function.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transform: Option<Transform>,
    /// How codes were found that do not come of the weights, the recipe and the seed alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub solved: Option<Solved>,
    /// Sums over all tensors.
    pub totals: Totals,
    /// BLAKE3 of every other file that the folder is read by: configuration, recipe, tokenizer,
    /// templates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub files: BTreeMap<String, String>,
    /// One entry a source tensor, in natural order of names.
    pub tensors: Vec<Entry>,
}

/// How a solver or training found codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Solved {
    /// [`super::SolveReport::mode`].
    pub mode: String,
    /// Tokens of the calibration text; 0 where the text was one for training.
    pub tokens: usize,
    /// Coded tensors that were coded each on its own all the same.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unsolved: Vec<String>,
}

impl std::fmt::Display for Solved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.tokens {
            0 => write!(f, "{}", self.mode),
            tokens => write!(f, "calibrated on {tokens} tokens ({})", self.mode),
        }
    }
}

/// What a checkpoint went through before it was planned.
#[derive(Debug, Clone, PartialEq)]
pub struct Transformation {
    /// The options.
    pub options: Transform,
    /// Bytes of tensor data of the original.
    pub source_bytes: u64,
    /// [`Manifest::source_fingerprint`] of the original; empty in an outline.
    pub source_fingerprint: String,
    /// What became of each tensor that is not as in the original.
    pub changes: BTreeMap<String, String>,
}

/// One source tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Name in the source.
    pub name: String,
    /// Role in the model.
    pub role: crate::checkpoint::role::Role,
    /// Element type in the source.
    pub dtype: String,
    /// Dimensions in the source.
    pub shape: Vec<usize>,
    /// BLAKE3 of the source's data.
    pub source_blake3: String,
    /// What the transform did to it; absent where it is as in the original.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transformed: Option<String>,
    /// What became of it.
    #[serde(flatten)]
    pub status: Status,
}

/// What became of a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Status {
    /// Coded.
    Coded {
        /// Name of the codec.
        codec: String,
        /// Its parameters.
        params: Params,
        /// Stored arrays.
        parts: Vec<StoredPart>,
        /// Adapter that belongs to the weight: W = decoded + B·A.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        adapter: Option<AdapterEntry>,
        /// Bits per weight, parts and adapter counted.
        bits_per_weight: f64,
        /// SQNR of decoded + B·A against the source in dB; null if there is no error, "-inf" if there
        /// is one and the source is all zeros.
        #[serde(with = "decibels", default)]
        sqnr_db: Option<f64>,
    },
    /// Copied.
    Kept {
        /// Why.
        why: String,
        /// The stored copy.
        parts: Vec<StoredPart>,
    },
    /// Left out.
    Tied {
        /// The tensor that holds the same weights.
        to: String,
    },
}

/// One stored array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPart {
    /// Name of the stored tensor.
    pub name: String,
    /// File that holds it.
    pub file: String,
    /// BLAKE3 of its data.
    pub blake3: String,
}

/// The adapter of a coded weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterEntry {
    /// Module path in the PEFT files.
    pub module: String,
    /// Rank.
    pub rank: usize,
    /// BLAKE3 of A's data followed by B's.
    pub blake3: String,
}

/// Whether `version`, major.minor, has a higher minor number than `known`.
fn newer_minor(version: &str, known: &str) -> bool {
    let minor = |version: &str| version.split('.').nth(1).and_then(|n| n.parse::<u64>().ok());
    minor(version) > minor(known)
}

/// Whether two versions, major.minor, have the same major number.
pub(crate) fn same_major(a: &str, b: &str) -> bool {
    a.split('.').next() == b.split('.').next()
}

impl Status {
    /// The stored arrays; none for a tied tensor.
    #[must_use]
    pub fn parts(&self) -> &[StoredPart] {
        match self {
            Self::Coded { parts, .. } | Self::Kept { parts, .. } => parts,
            Self::Tied { .. } => &[],
        }
    }
}

impl Manifest {
    /// Reads `manifest.json` of `folder`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none, if it is not valid, or if its format version has
    /// another major number; [`Error::Io`] if it cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        check_given(folder)?;
        let path = folder.join(MANIFEST_FILE);
        let text = read_member(&path, MAX_MANIFEST_LEN)?.ok_or_else(|| {
            let message = format!("has no {MANIFEST_FILE}: not a folder that compress wrote");
            Error::checkpoint(folder, message)
        })?;
        let json: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::checkpoint(&path, format!("not valid JSON: {e}")))?;
        let version = json.get("format_version").and_then(Value::as_str).unwrap_or("none");
        if !same_major(version, FORMAT_VERSION) {
            return Err(Error::checkpoint(
                &path,
                format!("format version {version}; this program reads {FORMAT_VERSION}"),
            ));
        }
        if newer_minor(version, FORMAT_VERSION) {
            tracing::warn!(
                "{}: format version {version} is newer than {FORMAT_VERSION}: keys that this \
                 program does not know are ignored",
                path.display()
            );
        }
        serde_json::from_value(json)
            .map_err(|e| Error::checkpoint(&path, format!("not a valid manifest: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |text: &str| {
            std::fs::write(folder.path().join(MANIFEST_FILE), text).unwrap();
            Manifest::read(folder.path()).unwrap_err().to_string()
        };
        assert!(refused("{\"format_version\": \"2.0\"}").contains("format version 2.0"));
        assert!(refused("{}").contains("format version none"));
        assert!(refused("{\"format_version\": \"1.7\"}").contains("not a valid manifest"));
        assert!(refused("[").contains("not valid JSON"));
        assert!(
            newer_minor("1.10", "1.9") && !newer_minor("1.9", "1.9") && !newer_minor("1", "1.0")
        );
    }
}
