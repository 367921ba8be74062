//! A compressed folder, opened and checked against its manifest.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use compress_model_lora::{Adapter, PeftReader};

use super::manifest::{Entry, Manifest, Status, StoredPart};
use super::panels::{COPY_BYTES, Panel, panels, part_ranges};
use super::plan::stored_parts;
use crate::checkpoint::dtype::{dtype_name, is_codable, parse_dtype};
use crate::checkpoint::{Checkpoint, Tensor, as_matrices};
use crate::codec::{self, WorkerPool, WorkerPools};
use crate::error::{Error, Result};

/// A folder that `compress` wrote.
#[derive(Debug)]
pub struct CompressedFolder {
    /// What the folder says about itself.
    pub manifest: Manifest,
    /// Its stored tensors.
    pub stored: Checkpoint,
    adapters: Option<PeftReader>,
    pools: Vec<Option<WorkerPool>>,
}

impl CompressedFolder {
    /// Opens `folder` and checks that manifest, index and headers agree: every part that the
    /// manifest lists is there with the size its codec needs, in the file it names, and nothing
    /// else is.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], [`Error::Header`] or [`Error::Tensor`] naming file and tensor.
    pub fn open(folder: &Path) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        let stored = Checkpoint::open(folder)?;
        let wants_adapters = manifest
            .tensors
            .iter()
            .any(|entry| matches!(&entry.status, Status::Coded { adapter: Some(_), .. }));
        let adapters = if wants_adapters { Some(PeftReader::open(folder)?) } else { None };
        let mut opened = Self { manifest, stored, adapters, pools: Vec::new() };
        let mut names = HashSet::new();
        if let Some(again) = opened.manifest.tensors.iter().find(|t| !names.insert(&t.name)) {
            return Err(opened.fault(&again.name, "is listed twice".to_owned()));
        }
        let mut pools = WorkerPools::default();
        opened.pools = opened
            .manifest
            .tensors
            .iter()
            .map(|entry| opened.check_entry(entry, &mut pools))
            .collect::<Result<_>>()?;
        opened.check_nothing_else()?;
        Ok(opened)
    }

    fn check_entry(&self, entry: &Entry, pools: &mut WorkerPools) -> Result<Option<WorkerPool>> {
        match &entry.status {
            Status::Tied { to } => {
                if self.manifest.tensors.iter().any(|other| other.name == *to) {
                    return Ok(None);
                }
                Err(self.fault(&entry.name, format!("is tied to {to:?}, which is not listed")))
            }
            Status::Kept { parts, .. } => {
                let [part] = &parts[..] else {
                    return Err(self.fault(&entry.name, "a kept tensor has one part".into()));
                };
                self.check_part(entry, part, &entry.dtype, &entry.shape)?;
                Ok(None)
            }
            Status::Coded { codec, params, parts, adapter, .. } => {
                if !parse_dtype(&entry.dtype).is_some_and(is_codable) {
                    let message = format!("is coded, but {:?} is no weight dtype", entry.dtype);
                    return Err(self.fault(&entry.name, message));
                }
                let codec = codec::build(codec, params.clone())
                    .map_err(|message| self.fault(&entry.name, message))?;
                let shape @ (matrices, rows, cols) = as_matrices(&entry.shape)
                    .ok_or_else(|| self.fault(&entry.name, "is coded but no matrix".into()))?;
                let expected = stored_parts(
                    &entry.name,
                    &codec.parts(rows, cols),
                    entry.shape.len() == 3,
                    matrices,
                );
                if expected.len() != parts.len()
                    || expected.iter().zip(parts).any(|(e, part)| e.name != part.name)
                {
                    let message = format!("does not list the parts of codec {}", codec.name());
                    return Err(self.fault(&entry.name, message));
                }
                for (expected, part) in expected.iter().zip(parts) {
                    let dtype = dtype_name(expected.dtype);
                    self.check_part(entry, part, &dtype, &expected.shape)?;
                }
                if let Some(adapter) = adapter {
                    self.check_adapter(entry, &adapter.module, adapter.rank, shape)?;
                }
                Ok(Some(pools.of(&codec)))
            }
        }
    }

    fn check_part(
        &self,
        entry: &Entry,
        part: &StoredPart,
        dtype: &str,
        shape: &[usize],
    ) -> Result<()> {
        let Some(stored) = self.stored.tensor(&part.name) else {
            let message = format!("its part {:?} is not stored", part.name);
            return Err(self.fault(&entry.name, message));
        };
        let found = dtype_name(stored.dtype);
        if found != dtype || stored.shape != shape {
            return Err(Error::tensor(
                self.stored.file_of(stored),
                &part.name,
                format!("is {found} {:?}, but {dtype} {shape:?} is expected", stored.shape),
            ));
        }
        let file = self.stored.file_of(stored);
        if file.file_name().is_none_or(|name| name != part.file.as_str()) {
            return Err(Error::tensor(
                file,
                &part.name,
                format!("the manifest puts it in {}", part.file),
            ));
        }
        Ok(())
    }

    fn check_adapter(
        &self,
        entry: &Entry,
        module: &str,
        rank: usize,
        (_, rows, cols): (usize, usize, usize),
    ) -> Result<()> {
        let reader = self.adapters.as_ref().expect("invariant: opened where any entry has one");
        let found = reader.shape(module);
        if found == Some((rows, cols, rank)) {
            return Ok(());
        }
        let message = format!(
            "its adapter {module:?} should be {rows} x {cols} of rank {rank}, found {found:?}"
        );
        Err(self.fault(&entry.name, message))
    }

    fn check_nothing_else(&self) -> Result<()> {
        let listed: HashSet<&str> = self
            .manifest
            .tensors
            .iter()
            .flat_map(|entry| entry.status.parts())
            .map(|part| part.name.as_str())
            .collect();
        match self.stored.tensors().iter().find(|t| !listed.contains(t.name.as_str())) {
            None => Ok(()),
            Some(extra) => Err(Error::tensor(
                self.stored.file_of(extra),
                &extra.name,
                "is not listed in the manifest",
            )),
        }
    }

    fn fault(&self, tensor: &str, message: String) -> Error {
        Error::tensor(self.stored.folder().join(super::manifest::MANIFEST_FILE), tensor, message)
    }

    /// Everything stored, cut into pieces of work, in the order of the manifest.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> {
        self.manifest.tensors.iter().enumerate().flat_map(move |(entry, described)| {
            let pieces: Box<dyn Iterator<Item = Piece>> = match &described.status {
                Status::Tied { .. } => Box::new(std::iter::empty()),
                Status::Kept { parts, .. } => {
                    let total = self.stored_part(&parts[0]).byte_len;
                    Box::new((0..total.max(1)).step_by(COPY_BYTES as usize).map(move |from| {
                        let len = COPY_BYTES.min(total - from) as usize;
                        Piece::Kept { entry, from, len }
                    }))
                }
                Status::Coded { .. } => {
                    let (pool, shape) = self.coded(entry);
                    let panels = panels(shape, pool.codec().row_multiple());
                    Box::new(panels.map(move |panel| Piece::Coded { entry, panel }))
                }
            };
            pieces
        })
    }

    /// Makes `loaded` hold the adapters of the entries in `wave` and no others; returns the
    /// entries whose adapter it had to read, in order.
    ///
    /// # Errors
    /// What reading the PEFT files gives.
    pub(super) fn load_adapters(
        &self,
        wave: &[Piece],
        loaded: &mut HashMap<usize, Arc<Adapter>>,
    ) -> Result<Vec<usize>> {
        let mut entries: Vec<usize> = wave.iter().map(Piece::entry).collect();
        entries.dedup();
        loaded.retain(|entry, _| entries.contains(entry));
        let mut read = Vec::new();
        for entry in entries {
            if !loaded.contains_key(&entry)
                && let Some(adapter) = self.adapter(entry)?
            {
                loaded.insert(entry, Arc::new(adapter));
                read.push(entry);
            }
        }
        Ok(read)
    }

    /// Codec and shape (matrices, rows, columns) of coded entry `index`.
    pub(crate) fn coded(&self, index: usize) -> (&WorkerPool, (usize, usize, usize)) {
        let pool = self.pools[index].as_ref().expect("invariant: a coded entry has a codec");
        let shape = as_matrices(&self.manifest.tensors[index].shape);
        (pool, shape.expect("invariant: checked when opened"))
    }

    /// The stored tensor of `part`.
    pub(crate) fn stored_part(&self, part: &StoredPart) -> &Tensor {
        self.stored.tensor(&part.name).expect("invariant: checked when opened")
    }

    /// Reads the stored bytes of one panel of coded entry `index` and decodes them; `adapter` is
    /// added if given.
    ///
    /// # Errors
    /// [`Error::Io`] if reading fails, [`Error::Tensor`] if decoding does.
    pub(crate) fn decode_panel(
        &self,
        index: usize,
        panel: &Panel,
        adapter: Option<&Adapter>,
    ) -> Result<DecodedPanel> {
        let entry = &self.manifest.tensors[index];
        let (pool, shape) = self.coded(index);
        let parts = self.read_parts(index, panel)?;
        let mut weights = vec![0.0; panel.rows.len() * shape.2];
        pool.with(|worker| worker.decode(&parts, shape.2, &mut weights))
            .map_err(|e| self.fault(&entry.name, e.to_string()))?;
        if let Some(adapter) = adapter {
            adapter.add_to(panel.rows.start, &mut weights);
        }
        Ok(DecodedPanel { parts, weights })
    }

    /// The stored bytes of each part of one panel of coded entry `index`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn read_parts(&self, index: usize, panel: &Panel) -> Result<Vec<Vec<u8>>> {
        let (pool, shape) = self.coded(index);
        let parts = self.manifest.tensors[index].status.parts();
        let read = |(part, range): (&StoredPart, Range<u64>)| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            self.stored.read_bytes(self.stored_part(part), range.start, &mut bytes)?;
            Ok(bytes)
        };
        parts.iter().zip(part_ranges(pool.codec(), shape, panel)).map(read).collect()
    }

    /// The stored bytes of each part of the whole coded entry `index`.
    ///
    /// # Errors
    /// [`Error::Io`].
    #[cfg(feature = "model")]
    pub(crate) fn read_all_parts(&self, index: usize) -> Result<Vec<Vec<u8>>> {
        let read = |part: &StoredPart| {
            let stored = self.stored_part(part);
            let mut bytes = vec![0; stored.byte_len as usize];
            self.stored.read_bytes(stored, 0, &mut bytes)?;
            Ok(bytes)
        };
        self.manifest.tensors[index].status.parts().iter().map(read).collect()
    }

    /// The adapter of entry `index`, if it has one.
    ///
    /// # Errors
    /// What reading the PEFT files gives.
    pub(crate) fn adapter(&self, index: usize) -> Result<Option<Adapter>> {
        match (&self.manifest.tensors[index].status, &self.adapters) {
            (Status::Coded { adapter: Some(adapter), .. }, Some(reader)) => {
                Ok(Some(reader.read(&adapter.module)?))
            }
            _ => Ok(None),
        }
    }
}

/// A piece of work: some bytes of a kept tensor or a panel of a coded one.
#[derive(Debug)]
pub(super) enum Piece {
    /// `len` bytes from byte `from` on of the stored copy.
    Kept { entry: usize, from: u64, len: usize },
    /// A panel.
    Coded { entry: usize, panel: Panel },
}

impl Piece {
    /// Number of the manifest entry it belongs to.
    pub(super) fn entry(&self) -> usize {
        match self {
            Self::Kept { entry, .. } | Self::Coded { entry, .. } => *entry,
        }
    }
}

/// One panel as stored and as decoded.
#[derive(Debug)]
pub(crate) struct DecodedPanel {
    /// Bytes of each part.
    pub(crate) parts: Vec<Vec<u8>>,
    /// Weights.
    pub(crate) weights: Vec<f32>,
}
