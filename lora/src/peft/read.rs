//! Reading adapters, ours or those of PEFT.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::config::{LoraConfig, Scaling};
use super::{CONFIG_FILE, PREFIX, SUFFIX_A, SUFFIX_B, WEIGHTS_FILE, key_a, key_b};
use crate::adapter::Adapter;
use crate::error::Error;

/// Largest configuration or header read.
const MAX_TEXT: u64 = 100_000_000;

/// An open PEFT adapter folder: every key checked, factors read on demand.
#[derive(Debug)]
pub struct PeftReader {
    path: PathBuf,
    scaling: Scaling,
    /// Infos of A and B by module.
    modules: BTreeMap<String, (TensorInfo, TensorInfo)>,
    data_start: u64,
}

impl PeftReader {
    /// Opens the adapter in `folder` and checks configuration, header and keys.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::BadFile`] naming the file and the key at fault.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let config_path = folder.join(CONFIG_FILE);
        let scaling = read_config(&config_path)?;
        let path = folder.join(WEIGHTS_FILE);
        let (metadata, data_start) = read_header(&path)?;
        let modules = pair_factors(&path, &metadata)?;
        for (module, (a, _)) in &modules {
            let (stated, found) = (scaling.rank(module), a.shape[0]);
            if stated != found {
                let key = key_a(module);
                let message = format!("rank {stated} is stated for {key:?}, which has {found}");
                return Err(bad(&config_path, message));
            }
        }
        Ok(Self { path, scaling, modules, data_start })
    }

    /// Paths of the adapted modules, sorted.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// out_features, in_features and rank of the adapter of `module`, if there is one.
    #[must_use]
    pub fn shape(&self, module: &str) -> Option<(usize, usize, usize)> {
        let (a, b) = self.modules.get(module)?;
        Some((b.shape[0], a.shape[1], a.shape[0]))
    }

    /// Reads the adapter of `module`; its scale alpha / r goes into B, and factors of another
    /// dtype are rounded to fp16.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::BadFile`] if there is none or a factor is not finite.
    pub fn read(&self, module: &str) -> Result<Adapter, Error> {
        let (a, b) = self
            .modules
            .get(module)
            .ok_or_else(|| bad(&self.path, format!("no adapter of {module:?}")))?;
        let rank = a.shape[0];
        let scale = self.scaling.scale(module);
        let a = self.factor(&key_a(module), a, 1.0)?;
        let b = self.factor(&key_b(module), b, scale)?;
        Ok(Adapter::from_f16(a, b, rank))
    }

    fn factor(&self, key: &str, info: &TensorInfo, scale: f64) -> Result<Vec<f16>, Error> {
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.data_start + start as u64))?;
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|source| Error::Io { path: self.path.clone(), source })?;
        let pairs = || bytes.as_chunks::<2>().0.iter();
        let values: Vec<f32> = match info.dtype {
            Dtype::F16 => pairs().map(|&c| f16::from_le_bytes(c).to_f32()).collect(),
            Dtype::BF16 => pairs().map(|&c| bf16::from_le_bytes(c).to_f32()).collect(),
            _ => bytes.as_chunks::<4>().0.iter().map(|&c| f32::from_le_bytes(c)).collect(),
        };
        let scaled = values.iter().map(|&x| f16::from_f64(f64::from(x) * scale));
        let factor: Vec<f16> = scaled.collect();
        match factor.iter().position(|x| !x.is_finite()) {
            None => Ok(factor),
            Some(i) => {
                let message =
                    format!("{key:?} holds {} at element {i}, not an fp16 number", values[i]);
                Err(bad(&self.path, message))
            }
        }
    }
}

fn bad(path: &Path, message: impl Into<String>) -> Error {
    Error::BadFile { path: path.to_path_buf(), message: message.into() }
}

fn read_text(path: &Path, from: u64, len: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(len).read_to_end(&mut text)?;
    Ok(text)
}

fn read_config(path: &Path) -> Result<Scaling, Error> {
    let text = read_text(path, 0, MAX_TEXT)
        .map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    let config: LoraConfig = serde_json::from_slice(&text)
        .map_err(|e| bad(path, format!("not a LoRA configuration: {e}")))?;
    config.scaling().map_err(|message| bad(path, message))
}

/// The header and the position of the data.
fn read_header(path: &Path) -> Result<(Metadata, u64), Error> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let file_len = std::fs::metadata(path).map_err(io)?.len();
    let start = read_text(path, 0, 8).map_err(io)?;
    let Ok(length) = <[u8; 8]>::try_from(start) else {
        return Err(bad(path, "not a safetensors file"));
    };
    let length = u64::from_le_bytes(length);
    if length > MAX_TEXT || length + 8 > file_len {
        return Err(bad(path, format!("header claims {length} bytes; truncated file?")));
    }
    let text = read_text(path, 8, length).map_err(io)?;
    let metadata: Metadata = serde_json::from_slice(&text)
        .map_err(|e| bad(path, format!("not a safetensors header: {e}")))?;
    let end = metadata.tensors().values().map(|info| info.data_offsets.1).max().unwrap_or(0);
    if end as u64 + length + 8 != file_len {
        return Err(bad(path, format!("data ends at byte {end} of its section; truncated file?")));
    }
    Ok((metadata, 8 + length))
}

fn pair_factors(
    path: &Path,
    metadata: &Metadata,
) -> Result<BTreeMap<String, (TensorInfo, TensorInfo)>, Error> {
    let mut modules = BTreeMap::new();
    let tensors: BTreeMap<String, TensorInfo> =
        metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
    for (key, info) in &tensors {
        if !matches!(info.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32) {
            return Err(bad(path, format!("{key:?} is {:?}, not F16, BF16 or F32", info.dtype)));
        }
        let path_of = key.strip_prefix(PREFIX);
        let a = path_of.and_then(|rest| rest.strip_suffix(SUFFIX_A));
        let Some(module) = a.or_else(|| path_of?.strip_suffix(SUFFIX_B)) else {
            return Err(bad(path, format!("unknown key {key:?}")));
        };
        let partner = if a.is_some() { key_b(module) } else { key_a(module) };
        let Some(other) = tensors.get(&partner) else {
            return Err(bad(path, format!("{key:?} is there without {partner:?}")));
        };
        if a.is_none() {
            continue;
        }
        let fits = match (&info.shape[..], &other.shape[..]) {
            ([rank_a, _], [_, rank_b]) => rank_a == rank_b && *rank_a > 0,
            _ => false,
        };
        if !fits {
            let shapes = format!("{:?} and {:?}", info.shape, other.shape);
            return Err(bad(path, format!("shapes {shapes} of {module:?} are no adapter")));
        }
        modules.insert(module.to_owned(), (info.clone(), other.clone()));
    }
    Ok(modules)
}
