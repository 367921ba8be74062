//! Results of a solver, kept in files until the run writes them in its own order.

use std::fs::File;
use std::path::{Path, PathBuf};

use compress_model_lora::Adapter;
use serde::Serialize;

use super::panels::{Panel, part_ranges};
use super::plan::Plan;
use super::progress::Progress;
use crate::checkpoint::positioned::read_exact_at;
use crate::codec::Codec;
use crate::error::{IoContext, Result};

/// Codes some tensors of a plan before the run, in whatever order suits it.
pub trait Solver {
    /// Upper estimate of the resident memory that solving takes, in bytes.
    fn peak_memory(&self, plan: &Plan) -> u64;

    /// Puts the codes of every tensor that it has a better way for than coding it on its own into
    /// `spool`.
    ///
    /// # Errors
    /// Anything that makes the run pointless.
    fn solve(
        &self,
        plan: &Plan,
        seed: u64,
        spool: &mut Spool,
        progress: &dyn Progress,
    ) -> Result<SolveReport>;
}

/// What a solver reports.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SolveReport {
    /// "sequential" if each layer saw what the compressed layers before it give, "parallel" if
    /// all saw what the original model gives.
    pub mode: &'static str,
    /// Tokens that it learnt from.
    pub tokens: usize,
    /// Seconds it took.
    pub seconds: f64,
    /// One entry a solved tensor.
    pub layers: Vec<SolvedLayer>,
}

/// One solved tensor.
#[derive(Debug, Clone, Serialize)]
pub struct SolvedLayer {
    /// Its name.
    pub name: String,
    /// Signal to error of the layer's output in dB, for coding each weight on its own.
    pub plain_db: f64,
    /// The same for the solution, adapter included, against the weights that it was to come near
    /// to.
    pub solved_db: f64,
    /// Share of the mean diagonal that H was damped by.
    pub damping: f64,
    /// Inputs that were always zero.
    pub dead: usize,
    /// Tokens seen.
    pub tokens: u64,
    /// Fewer tokens than inputs: H had no full rank before it was damped.
    pub few_tokens: bool,
}

/// Codes and adapters by tensor, one file each.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    entries: Vec<Option<Entry>>,
}

#[derive(Debug)]
struct Entry {
    file: File,
    path: PathBuf,
    /// Where each part starts in the file.
    starts: Vec<u64>,
    adapter: Option<Adapter>,
}

impl Spool {
    /// An empty one for `tensors` tensors, with files in the new folder `folder`.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub(super) fn create(folder: PathBuf, tensors: usize) -> Result<Self> {
        std::fs::create_dir(&folder).at("create", &folder)?;
        Ok(Self { folder, entries: (0..tensors).map(|_| None).collect() })
    }

    /// Where a solver may put files of its own, to be removed with the spool.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps the parts of the whole tensor number `tensor` of the plan.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn put(
        &mut self,
        tensor: usize,
        parts: &[Vec<u8>],
        adapter: Option<Adapter>,
    ) -> Result<()> {
        let path = self.folder.join(tensor.to_string());
        std::fs::write(&path, parts.concat()).at("write", &path)?;
        let file = File::open(&path).at("open", &path)?;
        let mut start = 0;
        let starts = parts
            .iter()
            .map(|part| {
                start += part.len() as u64;
                start - part.len() as u64
            })
            .collect();
        self.entries[tensor] = Some(Entry { file, path, starts, adapter });
        Ok(())
    }

    /// The adapter of a tensor that is here.
    pub(super) fn adapter(&self, tensor: usize) -> Option<&Adapter> {
        self.entries[tensor].as_ref()?.adapter.as_ref()
    }

    /// The parts of one panel of a tensor, if it is here.
    pub(super) fn panel(
        &self,
        tensor: usize,
        codec: &dyn Codec,
        shape: (usize, usize, usize),
        panel: &Panel,
    ) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(entry) = &self.entries[tensor] else { return Ok(None) };
        let ranges = part_ranges(codec, shape, panel);
        let parts = ranges.iter().zip(&entry.starts).map(|(range, start)| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            read_exact_at(&entry.file, &mut bytes, start + range.start).at("read", &entry.path)?;
            Ok(bytes)
        });
        parts.collect::<Result<_>>().map(Some)
    }

    /// Removes the files.
    pub(super) fn remove(self) -> Result<()> {
        drop(self.entries);
        std::fs::remove_dir_all(&self.folder).at("remove", &self.folder)
    }
}
