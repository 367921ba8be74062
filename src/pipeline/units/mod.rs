//! One compression cut into units for many machines: each unit is done by a process of its own that
//! reads the shared source and writes a piece, and the pieces are merged into the bytes that one
//! machine would have written.
//!
//! A unit depends on nothing but the plan of units and the source, so it may be done twice, at the
//! same time, or again after a machine was lost.

mod cut;
mod merge;
mod piece;
mod work;

use std::path::{Path, PathBuf};

use blake3::Hash;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::coding::{Job, jobs};
use super::plan::{Fate, Plan};
use super::scan;
use crate::build;
use crate::checkpoint::dtype::dtype_name;
use crate::checkpoint::{Checkpoint, Surroundings, write_json};
use crate::error::{Error, IoContext, Result};
use crate::recipe::Recipe;

pub use merge::{MergeReport, merge};
pub use work::{WorkReport, work};

/// Version of the plan of units and of pieces.
const VERSION: &str = "2.0";

/// A compression in units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitPlan {
    /// Version of this format.
    pub format_version: String,
    /// The program that made it; the same one must do the units.
    pub program: String,
    /// Where the source was. Machines that have it elsewhere say so.
    pub model: PathBuf,
    /// BLAKE3 over name, dtype and shape of the source's tensors.
    pub outline: String,
    /// BLAKE3 of the data of each of them.
    pub sources: Vec<String>,
    /// What is beside the source's weights.
    pub(crate) surroundings: Surroundings,
    /// The recipe, TOML.
    pub recipe: String,
    /// The seed.
    pub seed: u64,
    /// Largest size of a weights file of the output.
    pub max_shard_bytes: u64,
    /// What each unit does.
    pub units: Vec<Vec<Segment>>,
}

/// A run of panels (of a coded tensor) or of megabytes (of a kept one).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Name of the tensor.
    pub tensor: String,
    /// The first of them. The unit that has number 0 checks the whole tensor for faults; each makes
    /// sure that it is the one that was planned.
    pub first: usize,
    /// How many; none for a tied tensor, which is checked only.
    pub count: usize,
}

impl UnitPlan {
    /// Cuts `plan` of `checkpoint` into at most `count` units of about the same work. The weights are
    /// read once, so that machines that have others are found out.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a recipe with a transform, which needs the whole model; I/O.
    pub fn cut(
        checkpoint: &Checkpoint,
        plan: &Plan,
        seed: u64,
        max_shard_bytes: u64,
        count: usize,
    ) -> Result<Self> {
        plan.recipe.refuse_transform("a plan of units")?;
        let model = checkpoint.origin();
        Ok(Self {
            format_version: VERSION.to_owned(),
            program: build::IDENTITY.to_owned(),
            model: model.canonicalize().at("resolve", model)?,
            outline: outline(checkpoint),
            sources: sources(checkpoint)?,
            surroundings: Surroundings::of(checkpoint)?,
            recipe: plan.recipe.to_toml(),
            seed,
            max_shard_bytes,
            units: cut::cut(checkpoint, plan, count),
        })
    }

    /// Writes the plan to the file `path`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        write_json(path, self)
    }

    /// Reads a plan and gives it with its BLAKE3, which pieces name.
    ///
    /// # Errors
    /// [`Error::Input`] for a file that is none, and for one of another program.
    pub fn read(path: &Path) -> Result<(Self, String)> {
        let bytes = std::fs::read(path).at("read", path)?;
        let plan: Self = serde_json::from_slice(&bytes)
            .map_err(|e| Error::input(path, format!("not a plan of units: {e}")))?;
        if plan.format_version != VERSION {
            let message = format!("version {}; this program reads {VERSION}", plan.format_version);
            return Err(Error::input(path, message));
        }
        if plan.program != build::IDENTITY {
            let message = format!(
                "was made by {}, this is {}: their bytes may differ",
                plan.program,
                build::IDENTITY
            );
            return Err(Error::input(path, message));
        }
        Ok((plan, blake3::hash(&bytes).to_hex().to_string()))
    }

    /// Makes sure that tensor number `source` of `checkpoint`, which has `hash`, is the one that was
    /// cut into units.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    fn check_source(&self, checkpoint: &Checkpoint, source: usize, hash: &Hash) -> Result<()> {
        if self.sources.get(source).is_some_and(|wanted| *wanted == *hash.to_hex()) {
            return Ok(());
        }
        let tensor = &checkpoint.tensors()[source];
        let message = "has other weights than the checkpoint that was cut into units";
        Err(Error::tensor(checkpoint.file_of(tensor), &tensor.name, message))
    }

    /// The source, at `model` if it is not where it was, and what becomes of it.
    fn open(&self, model: Option<&Path>, threads: usize) -> Result<(Checkpoint, Plan)> {
        let checkpoint = Checkpoint::open(model.unwrap_or(&self.model))?;
        if outline(&checkpoint) != self.outline {
            let message = "has other tensors than the checkpoint that was cut into units";
            return Err(Error::checkpoint(checkpoint.origin(), message));
        }
        if let Some(what) = self.surroundings.difference(&Surroundings::of(&checkpoint)?) {
            let message = format!(
                "{what} is not as in the checkpoint that was cut into units, {:?}",
                self.model
            );
            return Err(Error::checkpoint(checkpoint.origin(), message));
        }
        let recipe = Recipe::parse(&self.recipe, "of the units")?;
        let plan = Plan::new(&checkpoint, recipe, self.max_shard_bytes, threads)?;
        Ok((checkpoint, plan))
    }
}

/// BLAKE3 of the data of each tensor.
fn sources(checkpoint: &Checkpoint) -> Result<Vec<String>> {
    let hash = |tensor| {
        let hash = scan::hash_tensor(checkpoint, tensor, |_, _| Ok(()))?;
        Ok(hash.to_hex().to_string())
    };
    checkpoint.tensors().par_iter().map(hash).collect()
}

fn outline(checkpoint: &Checkpoint) -> String {
    let mut hasher = blake3::Hasher::new();
    for tensor in checkpoint.tensors() {
        let line = format!("{} {} {:?}\n", tensor.name, dtype_name(tensor.dtype), tensor.shape);
        hasher.update(line.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// A segment with the number of its tensor in the plan and its jobs.
struct Task<'a> {
    segment: &'a Segment,
    tensor: usize,
    jobs: Vec<Job>,
}

/// What `segments` stand for.
///
/// # Errors
/// [`Error::Input`] for tensors and panels that are not there.
fn tasks<'a>(
    checkpoint: &Checkpoint,
    plan: &Plan,
    segments: &'a [Segment],
) -> Result<Vec<Task<'a>>> {
    let number = |name: &str| {
        plan.tensors.iter().position(|planned| checkpoint.tensors()[planned.source].name == name)
    };
    segments
        .iter()
        .map(|segment| {
            let fault = |what: &str| Error::tensor(checkpoint.origin(), &segment.tensor, what);
            let tensor = number(&segment.tensor).ok_or_else(|| fault("is not in the plan"))?;
            let all = jobs(checkpoint, plan, tensor);
            let jobs: Vec<Job> = all.skip(segment.first).take(segment.count).collect();
            if jobs.len() != segment.count {
                return Err(fault("has fewer panels than the plan of units says"));
            }
            Ok(Task { segment, tensor, jobs })
        })
        .collect()
}

/// Number of jobs of each tensor of `plan`.
fn job_counts(checkpoint: &Checkpoint, plan: &Plan) -> Vec<usize> {
    (0..plan.tensors.len()).map(|tensor| jobs(checkpoint, plan, tensor).count()).collect()
}

/// Bytes of a job's output for each stored part.
fn part_bytes(checkpoint: &Checkpoint, plan: &Plan, job: &Job) -> Vec<u64> {
    match job {
        Job::Copy { len, .. } => vec![*len as u64],
        Job::Code { tensor, panel } => {
            let planned = &plan.tensors[*tensor];
            let Fate::Coded { codec, .. } = &planned.fate else {
                unreachable!("invariant: panels are of coded tensors");
            };
            let cols = checkpoint.tensors()[planned.source].as_matrices().map_or(0, |s| s.2);
            codec.parts(panel.rows.len(), cols).iter().map(|p| p.byte_len() as u64).collect()
        }
    }
}
