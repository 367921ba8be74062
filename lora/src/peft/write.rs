//! Writing adapters one at a time.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;
use serde_json::{Map, Value, json};

use super::config::LoraConfig;
use super::{CONFIG_FILE, Kind, WEIGHTS_FILE, transposed};
use crate::adapter::Adapter;
use crate::error::Error;

/// Data starts at a multiple of this.
const ALIGNMENT: usize = 64;

/// An adapter to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedAdapter {
    /// Module path, such as `model.layers.0.mlp.up_proj`.
    pub module: String,
    /// Rows of the weight.
    pub out_features: usize,
    /// Columns of the weight.
    pub in_features: usize,
    /// Rank.
    pub rank: usize,
    /// The module is an embedding.
    pub embedding: bool,
}

impl PlannedAdapter {
    fn kind(&self) -> Kind {
        if self.embedding { Kind::Embedding } else { Kind::Linear }
    }

    /// Shapes of the two factors as they are stored.
    fn shapes(&self) -> [[usize; 2]; 2] {
        let &Self { out_features, in_features, rank, .. } = self;
        match self.kind() {
            Kind::Linear => [[rank, in_features], [out_features, rank]],
            Kind::Embedding => [[rank, out_features], [in_features, rank]],
        }
    }
}

/// Writes `adapter_config.json` and `adapter_model.safetensors`. All shapes are known when it is
/// created, so the adapters may come in any order and are written at once.
#[derive(Debug)]
pub struct PeftWriter {
    path: PathBuf,
    file: File,
    /// Position of A and of B in the file, and the plan; taken out when written.
    missing: HashMap<String, (u64, PlannedAdapter)>,
}

impl PeftWriter {
    /// Creates both files in `folder` for the `planned` adapters of `base_model`, which may be
    /// empty. The most common rank becomes the configuration's `r`; other ranks are patterns.
    /// Adapters that an earlier writer of the same plan has written stay in the file.
    ///
    /// # Errors
    /// [`Error::Plan`] for a module planned twice or of rank 0, which PEFT refuses;
    /// [`Error::Io`] if a file cannot be written.
    pub fn create(
        folder: &Path,
        planned: &[PlannedAdapter],
        base_model: &str,
    ) -> Result<Self, Error> {
        let path = folder.join(WEIGHTS_FILE);
        let (header, missing, len) = layout(planned)?;
        write_config(&folder.join(CONFIG_FILE), planned, base_model)?;
        let create = || -> std::io::Result<File> {
            let mut options = File::options();
            let mut file = options.write(true).create(true).truncate(false).open(&path)?;
            file.write_all(&header)?;
            file.set_len(len)?;
            Ok(file)
        };
        let file = create().map_err(|source| Error::Io { path: path.clone(), source })?;
        Ok(Self { path, file, missing })
    }

    /// Writes the adapter of `module`.
    ///
    /// # Errors
    /// [`Error::Plan`] if it was not planned so, or was written before; [`Error::Io`].
    pub fn write(&mut self, module: &str, adapter: &Adapter) -> Result<(), Error> {
        let refuse = |message: String| Error::Plan { module: module.to_owned(), message };
        let (position, plan) = self
            .missing
            .remove(module)
            .ok_or_else(|| refuse("was not planned, or was written before".to_owned()))?;
        if adapter.rank() != plan.rank
            || adapter.a.len() != plan.rank * plan.in_features
            || adapter.b.len() != plan.rank * plan.out_features
        {
            return Err(refuse("has another shape than planned".to_owned()));
        }
        let factors = match plan.kind() {
            Kind::Linear => [bytes(&adapter.a), bytes(&adapter.b)],
            Kind::Embedding => [
                bytes(&transposed(&adapter.b, plan.rank)),
                bytes(&transposed(&adapter.a, plan.in_features)),
            ],
        };
        let mut write = || -> std::io::Result<()> {
            self.file.seek(SeekFrom::Start(position))?;
            factors.iter().try_for_each(|factor| self.file.write_all(factor))
        };
        write().map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// Leaves the adapter of `module` as an earlier writer has written it.
    pub fn keep(&mut self, module: &str) {
        self.missing.remove(module);
    }

    /// Another handle of the weights file, to flush it through while adapters are written.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn handle(&self) -> Result<File, Error> {
        self.file.try_clone().map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// Flushes the files to disk.
    ///
    /// # Errors
    /// [`Error::Plan`] if a planned adapter is missing, [`Error::Io`].
    pub fn finish(self) -> Result<(), Error> {
        if let Some(module) = self.missing.keys().min() {
            let message = "was planned but never written".to_owned();
            return Err(Error::Plan { module: module.clone(), message });
        }
        self.file.sync_all().map_err(|source| Error::Io { path: self.path, source })
    }
}

fn bytes(values: &[f16]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn write_config(path: &Path, planned: &[PlannedAdapter], base_model: &str) -> Result<(), Error> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for plan in planned {
        *counts.entry(plan.rank).or_default() += 1;
    }
    let common = counts.iter().max_by_key(|&(rank, count)| (*count, *rank)).map_or(0, |(&r, _)| r);
    let mut modules: Vec<String> = planned.iter().map(|plan| plan.module.clone()).collect();
    modules.sort_unstable();
    let others = planned
        .iter()
        .filter(|plan| plan.rank != common)
        .map(|plan| (plan.module.clone(), plan.rank))
        .collect();
    let config = LoraConfig::new(common, base_model, modules, &others);
    let write = || -> std::io::Result<()> {
        let mut text = serde_json::to_vec_pretty(&config)?;
        text.push(b'\n');
        let mut file = File::create(path)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    write().map_err(|source| Error::Io { path: path.to_path_buf(), source })
}

type Missing = HashMap<String, (u64, PlannedAdapter)>;

/// Header bytes, position of each adapter, and length of the file.
fn layout(planned: &[PlannedAdapter]) -> Result<(Vec<u8>, Missing, u64), Error> {
    let mut json = Map::new();
    json.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut position = 0;
    let mut starts = Vec::new();
    for plan in planned {
        if plan.rank == 0 {
            let message = "is planned with rank 0".to_owned();
            return Err(Error::Plan { module: plan.module.clone(), message });
        }
        starts.push(position as u64);
        for (key, shape) in plan.kind().keys(&plan.module).into_iter().zip(plan.shapes()) {
            let (start, end) = (position, position + 2 * shape[0] * shape[1]);
            position = end;
            let entry = json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, end] });
            if json.insert(key, entry).is_some() {
                let message = "is planned twice".to_owned();
                return Err(Error::Plan { module: plan.module.clone(), message });
            }
        }
    }
    let mut text = Value::Object(json).to_string().into_bytes();
    text.resize((text.len() + 8).next_multiple_of(ALIGNMENT) - 8, b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    let data = header.len() as u64;
    let missing = planned
        .iter()
        .zip(starts)
        .map(|(plan, start)| (plan.module.clone(), (data + start, plan.clone())))
        .collect();
    Ok((header, missing, data + position as u64))
}
