//! Verification: an output folder read again, hashed, decoded, and held against its manifest and
//! against the original.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use blake3::Hasher;
use compress_model_lora::Adapter;
use serde::Serialize;

use super::compressed::{CompressedFolder, Piece};
use super::error_sums::ErrorSums;
use super::manifest::{Entry, Manifest, Status};
use super::panels::{Panel, read_panel};
use super::progress::Progress;
use super::{adapters, card, decibels, files, scan, waves};
use crate::checkpoint::dtype::{AlignedBytes, dtype_name, first_non_finite};
use crate::checkpoint::{Checkpoint, as_matrices};
use crate::error::Result;

/// Difference between the manifest's SQNR and a measured one that counts as a fault, in dB.
const SQNR_TOLERANCE_DB: f64 = 0.001;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// The folder.
    pub folder: PathBuf,
    /// Whether nothing is wrong.
    pub ok: bool,
    /// The original it was compared with.
    pub against: Option<PathBuf>,
    /// One entry for each source tensor.
    pub tensors: Vec<TensorCheck>,
    /// Everything that is wrong, one line each, tensor first.
    pub failures: Vec<String>,
    /// Tensors that were compressed again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rebuilt: Vec<String>,
    /// What a GPU makes of the textures, where one was asked.
    #[cfg(feature = "gpu")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<super::GpuReport>,
}

/// One tensor's check.
#[derive(Debug, Clone, Serialize)]
pub struct TensorCheck {
    /// Name in the source.
    pub name: String,
    /// Codec, or "kept" or "tied".
    pub codec: String,
    /// Whether it was compared with the original: false without one, and where the original's tensor
    /// is another one.
    pub compared: bool,
    /// SQNR in dB as measured, if it was compared; null also without error, "-inf" for an error in a
    /// tensor of zeros.
    #[serde(serialize_with = "decibels::serialize")]
    pub sqnr_db: Option<f64>,
    /// SQNR in dB as the manifest has it; null without error, "-inf" as above.
    #[serde(serialize_with = "decibels::serialize")]
    pub manifest_sqnr_db: Option<f64>,
}

struct Output {
    parts: Vec<Vec<u8>>,
    sums: Option<ErrorSums>,
    non_finite: bool,
}

/// Re-reads all of `folder` and compares hashes with the manifest; decodes every coded tensor;
/// with `against`, also compares every tensor with the original and the measured SQNR with the
/// manifest's. A tensor whose SQNR is under `min_sqnr` dB is a failure. Findings are in the
/// report, not in the error.
///
/// # Errors
/// I/O, or an original that cannot be read.
pub fn verify(
    folder: &CompressedFolder,
    against: Option<&Checkpoint>,
    min_sqnr: Option<f64>,
    progress: &dyn Progress,
) -> Result<VerifyReport> {
    let mut run = Run::new(folder, against);
    run.check_originals(progress)?;
    progress.begin("verifying", run.stored_bytes());
    let mut loaded = HashMap::new();
    let mut adapter_faults = Vec::new();
    let mut books = Books::new(folder);
    waves::run(
        folder.pieces(),
        |wave| {
            for entry in folder.load_adapters(wave, &mut loaded)? {
                check_adapter(
                    &folder.manifest.tensors[entry],
                    &loaded[&entry],
                    &mut adapter_faults,
                );
            }
            Ok(loaded.clone())
        },
        |piece, adapters| run.work(piece, adapters),
        |piece: Piece, output: Output| {
            progress.advance(output.parts.iter().map(|p| p.len() as u64).sum());
            books.add(piece.entry(), &output);
            Ok(())
        },
    )?;
    let mut failures = std::mem::take(&mut run.failures);
    failures.extend(files::check(folder.stored.folder(), &folder.manifest.files)?);
    failures.append(&mut adapter_faults);
    let measured = books.close(&mut failures);
    let tensors = run.checks(&measured);
    for check in &tensors {
        judge(check, min_sqnr, &mut failures);
    }
    Ok(VerifyReport {
        folder: folder.stored.folder().to_path_buf(),
        ok: failures.is_empty(),
        against: against.map(|original| original.folder().to_path_buf()),
        tensors,
        failures,
        rebuilt: Vec::new(),
        #[cfg(feature = "gpu")]
        gpu: None,
    })
}

impl VerifyReport {
    /// Adds something that is wrong before everything else.
    pub fn add_first(&mut self, failure: Option<String>) {
        self.failures.splice(0..0, failure);
        self.ok = self.failures.is_empty();
    }

    /// Adds what [`super::rebuild`] gave.
    pub fn add_rebuilt(&mut self, names: Vec<String>, failures: Vec<String>) {
        self.failures.extend(failures);
        self.ok = self.failures.is_empty();
        self.rebuilt = names;
    }
}

/// What is wrong with `manifest`'s original being one of fingerprint `found`, if it is another.
#[must_use]
pub fn another_checkpoint(manifest: &Manifest, found: &str) -> Option<String> {
    let stated = &manifest.source_fingerprint;
    (found != stated).then(|| {
        format!(
            "a different checkpoint: this folder was compressed from one with the fingerprint \
             {stated}, the one to compare with has {found}"
        )
    })
}

fn judge(check: &TensorCheck, min: Option<f64>, failures: &mut Vec<String>) {
    let measured = check.compared;
    if check.codec == "kept" || check.codec == "tied" {
        return;
    }
    let show = |db: Option<f64>| db.map_or("exact".to_owned(), |db| format!("{db:.3} dB"));
    // Without an error the ratio is infinite.
    let value = |db: Option<f64>| db.unwrap_or(f64::INFINITY);
    let (found, stated) = (value(check.sqnr_db), value(check.manifest_sqnr_db));
    if measured && found != stated && (found - stated).abs() > SQNR_TOLERANCE_DB {
        failures.push(format!(
            "{}: SQNR against the original is {}, but the manifest says {}",
            check.name,
            show(check.sqnr_db),
            show(check.manifest_sqnr_db)
        ));
    }
    let judged = if measured { found } else { stated };
    if let Some(min) = min.filter(|&min| judged < min) {
        failures.push(format!("{}: SQNR {judged:.3} dB is under {min} dB", check.name));
    }
}

fn check_adapter(entry: &Entry, adapter: &Adapter, failures: &mut Vec<String>) {
    let Status::Coded { adapter: Some(stated), .. } = &entry.status else { return };
    if adapters::hash(adapter) != stated.blake3 {
        let why = "its adapter does not have the hash of the manifest";
        failures.push(format!("{}: {why}", entry.name));
    }
}

struct Run<'a> {
    folder: &'a CompressedFolder,
    against: Option<&'a Checkpoint>,
    failures: Vec<String>,
    /// Entries whose original has the expected shape and contents.
    comparable: Vec<bool>,
}

impl<'a> Run<'a> {
    fn new(folder: &'a CompressedFolder, against: Option<&'a Checkpoint>) -> Self {
        let comparable = vec![false; folder.manifest.tensors.len()];
        Self { folder, against, failures: Vec::new(), comparable }
    }

    /// Checks that the original is the one that was compressed.
    fn check_originals(&mut self, progress: &dyn Progress) -> Result<()> {
        let Some(original) = self.against else { return Ok(()) };
        progress.begin("reading the original", original.tensors().iter().map(|t| t.byte_len).sum());
        let scan = scan::scan(original, progress)?;
        // Of a transformed model the original is another one: whoever made it again compares that.
        if self.folder.manifest.transform.is_none() {
            let found = scan.fingerprint.to_hex();
            self.failures.extend(another_checkpoint(&self.folder.manifest, &found));
        }
        self.failures.extend(self.differing_config(original));
        let hashes: HashMap<&str, String> = original
            .tensors()
            .iter()
            .zip(&scan.hashes)
            .map(|(tensor, hash)| (tensor.name.as_str(), hash.to_hex().to_string()))
            .collect();
        for (i, entry) in self.folder.manifest.tensors.iter().enumerate() {
            let Some(tensor) = original.tensor(&entry.name) else {
                self.failures.push(format!("{}: the original has no such tensor", entry.name));
                continue;
            };
            if tensor.shape != entry.shape || dtype_name(tensor.dtype) != entry.dtype {
                self.failures.push(format!(
                    "{}: the original is {} {:?}, the manifest says {} {:?}",
                    entry.name,
                    dtype_name(tensor.dtype),
                    tensor.shape,
                    entry.dtype,
                    entry.shape
                ));
                continue;
            }
            self.comparable[i] = hashes[entry.name.as_str()] == entry.source_blake3;
            if !self.comparable[i] {
                self.failures.push(format!(
                    "{}: the original has other weights than those that were compressed",
                    entry.name
                ));
            }
        }
        let listed: std::collections::HashSet<&str> =
            self.folder.manifest.tensors.iter().map(|e| e.name.as_str()).collect();
        for tensor in original.tensors().iter().filter(|t| !listed.contains(t.name.as_str())) {
            self.failures.push(format!("{}: is missing from the manifest", tensor.name));
        }
        Ok(())
    }

    /// The keys of `config.json` in which the folder differs from `original`.
    fn differing_config(&self, original: &Checkpoint) -> Option<String> {
        let Self { folder, .. } = self;
        let keys =
            card::differing_keys(folder.stored.config(), &folder.manifest, original.config());
        (!keys.is_empty())
            .then(|| format!("config.json: differs from the original's in {}", keys.join(", ")))
    }

    fn stored_bytes(&self) -> u64 {
        self.folder.stored.tensors().iter().map(|t| t.byte_len).sum()
    }

    fn work(&self, piece: &Piece, adapters: &HashMap<usize, Arc<Adapter>>) -> Result<Output> {
        match piece {
            Piece::Kept { entry, from, len } => {
                let part = &self.folder.manifest.tensors[*entry].status.parts()[0];
                let stored = self.folder.stored_part(part);
                let mut bytes = vec![0; *len];
                self.folder.stored.read_bytes(stored, *from, &mut bytes)?;
                Ok(Output { parts: vec![bytes], sums: None, non_finite: false })
            }
            Piece::Coded { entry, panel } => {
                let adapter = adapters.get(entry).map(|adapter| &**adapter);
                let decoded = self.folder.decode_panel(*entry, panel, adapter)?;
                let sums = self.compare(*entry, panel, &decoded.weights)?;
                let non_finite = first_non_finite(&decoded.weights).is_some();
                Ok(Output { parts: decoded.parts, sums, non_finite })
            }
        }
    }

    fn compare(&self, entry: usize, panel: &Panel, decoded: &[f32]) -> Result<Option<ErrorSums>> {
        let Some(original) = self.against.filter(|_| self.comparable[entry]) else {
            return Ok(None);
        };
        let described = &self.folder.manifest.tensors[entry];
        let tensor = original.tensor(&described.name).expect("invariant: only comparable entries");
        let shape = as_matrices(&described.shape).expect("invariant: checked when opened");
        let mut weights = Vec::new();
        read_panel(original, tensor, shape, panel, &mut AlignedBytes::default(), &mut weights)?;
        Ok(Some(ErrorSums::of(&weights, decoded)))
    }

    fn checks(&self, measured: &[Option<ErrorSums>]) -> Vec<TensorCheck> {
        let check = |((entry, sums), &compared): ((&Entry, &Option<ErrorSums>), &bool)| {
            let (codec, manifest_sqnr_db) = match &entry.status {
                Status::Coded { codec, sqnr_db, .. } => (codec.clone(), *sqnr_db),
                Status::Kept { .. } => ("kept".to_owned(), None),
                Status::Tied { .. } => ("tied".to_owned(), None),
            };
            let sqnr_db = sums.and_then(ErrorSums::sqnr_db);
            TensorCheck { name: entry.name.clone(), codec, compared, sqnr_db, manifest_sqnr_db }
        };
        let entries = self.folder.manifest.tensors.iter().zip(measured);
        entries.zip(&self.comparable).map(check).collect()
    }
}

/// Hashes and sums of every entry, fed in order.
struct Books<'a> {
    folder: &'a CompressedFolder,
    hashers: Vec<Vec<Hasher>>,
    sums: Vec<Option<ErrorSums>>,
    non_finite: Vec<bool>,
}

impl<'a> Books<'a> {
    fn new(folder: &'a CompressedFolder) -> Self {
        let entries = &folder.manifest.tensors;
        Self {
            folder,
            hashers: entries.iter().map(|e| vec![Hasher::new(); e.status.parts().len()]).collect(),
            sums: vec![None; entries.len()],
            non_finite: vec![false; entries.len()],
        }
    }

    fn add(&mut self, entry: usize, output: &Output) {
        for (hasher, bytes) in self.hashers[entry].iter_mut().zip(&output.parts) {
            hasher.update(bytes);
        }
        if let Some(sums) = output.sums {
            self.sums[entry].get_or_insert_default().add(sums);
        }
        self.non_finite[entry] |= output.non_finite;
    }

    /// Compares the hashes and returns the sums.
    fn close(self, failures: &mut Vec<String>) -> Vec<Option<ErrorSums>> {
        for (i, entry) in self.folder.manifest.tensors.iter().enumerate() {
            for (part, hasher) in entry.status.parts().iter().zip(&self.hashers[i]) {
                if hasher.finalize().to_hex().as_str() != part.blake3 {
                    failures.push(format!(
                        "{}: {} in {} does not have the hash of the manifest",
                        entry.name, part.name, part.file
                    ));
                }
            }
            if self.non_finite[i] {
                failures.push(format!("{}: decodes to NaN or infinity", entry.name));
            }
        }
        self.sums
    }
}
