//! Statistics of a model's layers as a folder.
//!
//! `calibration.json` says which model and text they are of and lists the sites: which weights
//! read the same inputs, how wide these are, how many tokens were seen. The means of x·xᵀ are F32
//! [n, n] in one safetensors file a block, each under the name of its site's first weight, with the
//! number of the matrix in brackets where that is a stack.

use std::fs::File;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::checkpoint::positioned::read_exact_at;
use crate::checkpoint::{Checkpoint, Surroundings, header, read_member};
use crate::error::{Error, IoContext, Result};
use crate::pipeline::manifest::same_major;
use crate::pipeline::source_fingerprint;
use crate::transform::{MatrixFactors, moved_moments};

/// Name of the description in a folder of statistics.
pub const DESCRIPTION_FILE: &str = "calibration.json";

/// Version of the format, major.minor.
pub(crate) const VERSION: &str = "2.0";

/// Largest description that is read.
const MAX_DESCRIPTION: u64 = 64 << 20;

/// Linear layers that read the same inputs, and what those are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteStatistics {
    /// Names of their weights; of layers that are together in one matrix of a stack, that of the
    /// stack.
    pub weights: Vec<String>,
    /// Which matrix of the stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<usize>,
    /// File with the mean of x·xᵀ.
    pub file: String,
    /// Width of the inputs.
    pub width: usize,
    /// Tokens that the mean is over.
    pub tokens: u64,
    /// Inputs that were always zero.
    pub dead: usize,
    /// Too few tokens came to this expert: the mean is over all experts of the block.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_experts: bool,
}

impl SiteStatistics {
    /// Under which name the file has the mean.
    pub(crate) fn array_name(&self) -> String {
        let name = &self.weights[0];
        self.matrix.map_or_else(|| name.clone(), |matrix| format!("{name}[{matrix}]"))
    }
}

/// What the statistics are of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) format_version: String,
    pub(crate) tool: String,
    pub(crate) source_fingerprint: String,
    /// What is beside the model's weights.
    pub(crate) surroundings: Surroundings,
    /// File and BLAKE3 of each text.
    pub(crate) texts: Vec<(PathBuf, String)>,
    pub(crate) ctx: usize,
    pub(crate) windows: usize,
    pub(crate) sites: Vec<SiteStatistics>,
}

/// A folder that `calibrate` wrote.
#[derive(Debug, Clone)]
pub struct Statistics {
    folder: PathBuf,
    description: Description,
    /// What the rows of each matrix have gone through since.
    factors: MatrixFactors,
}

impl Statistics {
    /// Opens `folder`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it holds no statistics, or some of another format.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(DESCRIPTION_FILE);
        let text = read_member(&path, MAX_DESCRIPTION)?.ok_or_else(|| {
            let message =
                "has no statistics: neither a text file nor a folder that calibrate wrote";
            Error::checkpoint(folder, message)
        })?;
        let description: Description = serde_json::from_slice(&text)
            .map_err(|e| Error::checkpoint(&path, format!("no description of statistics: {e}")))?;
        if !same_major(&description.format_version, VERSION) {
            let found = &description.format_version;
            let message = format!("format version {found}; this program reads {VERSION}");
            return Err(Error::checkpoint(&path, message));
        }
        let inside = |file: &str| Path::new(file).file_name().is_some_and(|name| name == file);
        if let Some(site) = description.sites.iter().find(|site| !inside(&site.file)) {
            return Err(Error::checkpoint(&path, format!("{:?} is no file name", site.file)));
        }
        Ok(Self { folder: folder.to_path_buf(), description, factors: MatrixFactors::new() })
    }

    /// These statistics for another model, of the weights of `fingerprint` and what is beside them, in
    /// which the rows of each matrix have gone through `factors`.
    pub(crate) fn moved(
        mut self,
        fingerprint: String,
        surroundings: Surroundings,
        factors: &MatrixFactors,
    ) -> Self {
        self.description.source_fingerprint = fingerprint;
        self.description.surroundings = surroundings;
        self.factors.clone_from(factors);
        self
    }

    /// All sites, in the order in which the model reaches them.
    #[must_use]
    pub fn sites(&self) -> &[SiteStatistics] {
        &self.description.sites
    }

    /// Tokens of the calibration text.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.description.ctx * self.description.windows
    }

    /// What the statistics are of.
    pub(crate) fn identity(&self) -> String {
        let description = Description { sites: Vec::new(), ..self.description.clone() };
        serde_json::to_string(&description).expect("invariant: a description is plain data")
    }

    /// Makes sure that these are statistics of `checkpoint`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if its weights, its configuration or its tokenizer are others.
    pub fn check_source(&self, checkpoint: &Checkpoint) -> Result<()> {
        let found = source_fingerprint(checkpoint)?.to_hex().to_string();
        if found == self.description.source_fingerprint {
            let found = Surroundings::of(checkpoint)?;
            return match self.description.surroundings.difference_to_a_reader(&found) {
                None => Ok(()),
                Some(what) => Err(Error::checkpoint(
                    &self.folder,
                    format!(
                        "{what} of {} is not as it was when these statistics were made; run \
                         calibrate again",
                        checkpoint.origin().display()
                    ),
                )),
            };
        }
        let message = format!(
            "these are statistics of another checkpoint than {}: fingerprint {} against {found}",
            checkpoint.origin().display(),
            self.description.source_fingerprint,
        );
        Err(Error::checkpoint(&self.folder, message))
    }

    /// The mean of x·xᵀ of a site, [width, width].
    ///
    /// # Errors
    /// [`Error::Header`] or [`Error::Tensor`] if the file does not hold it.
    pub fn mean(&self, site: &SiteStatistics) -> Result<Vec<f32>> {
        let path = self.folder.join(&site.file);
        let file = File::open(&path).at("open", &path)?;
        let length = file.metadata().at("read", &path)?.len();
        let header = header::read(&file, &path, length)?;
        let name = site.array_name();
        let Some(entry) = header.tensors.iter().find(|entry| entry.name == name) else {
            return Err(Error::tensor(&path, name, "is missing"));
        };
        if entry.dtype != Dtype::F32 || entry.shape != [site.width; 2] {
            let (dtype, shape, width) = (entry.dtype, &entry.shape, site.width);
            let message = format!("is {dtype:?} {shape:?}, not F32 [{width}, {width}]");
            return Err(Error::tensor(&path, name, message));
        }
        let mut mean = vec![0.0f32; site.width * site.width];
        let bytes = bytemuck::cast_slice_mut(&mut mean);
        read_exact_at(&file, bytes, header.data_start + entry.start).at("read", &path)?;
        Ok(match self.factors.get(&(site.weights[0].clone(), site.matrix.unwrap_or(0))) {
            Some(factors) => moved_moments(factors, mean, site.width),
            None => mean,
        })
    }
}
