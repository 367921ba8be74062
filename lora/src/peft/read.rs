//! Reading adapters, ours or those of PEFT.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::config::{LoraConfig, Scaling};
use super::{CONFIG_FILE, Kind, PREFIX, WEIGHTS_FILE, transposed};
use crate::adapter::Adapter;
use crate::error::Error;

/// Largest configuration or header read.
const MAX_TEXT: u64 = 100_000_000;

/// An open PEFT adapter folder: every key checked, factors read on demand.
#[derive(Debug)]
pub struct PeftReader {
    path: PathBuf,
    scaling: Scaling,
    modules: BTreeMap<String, Stored>,
    data_start: u64,
}

/// The factors of a module as they are stored.
#[derive(Debug)]
struct Stored {
    kind: Kind,
    a: TensorInfo,
    b: TensorInfo,
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
        for (module, stored) in &modules {
            let (stated, found) = (scaling.rank(module), stored.a.shape[0]);
            if stated != found {
                let [key, _] = stored.kind.keys(module);
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
        let Stored { kind, a, b } = self.modules.get(module)?;
        let (rank, other) = (a.shape[0], a.shape[1]);
        Some(match kind {
            Kind::Linear => (b.shape[0], other, rank),
            Kind::Embedding => (other, b.shape[0], rank),
        })
    }

    /// Reads the adapter of `module`; its scale alpha / r goes into B, and factors of another
    /// dtype are rounded to fp16.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::BadFile`] if there is none or a factor is not finite.
    pub fn read(&self, module: &str) -> Result<Adapter, Error> {
        let Stored { kind, a, b } = self
            .modules
            .get(module)
            .ok_or_else(|| bad(&self.path, format!("no adapter of {module:?}")))?;
        let rank = a.shape[0];
        let scale = self.scaling.scale(module);
        let [key_a, key_b] = kind.keys(module);
        Ok(match kind {
            Kind::Linear => {
                let (a, b) = (self.factor(&key_a, a, 1.0)?, self.factor(&key_b, b, scale)?);
                Adapter::from_f16(a, b, rank)
            }
            Kind::Embedding => {
                let rows = a.shape[1];
                let (b, a) = (self.factor(&key_a, a, scale)?, self.factor(&key_b, b, 1.0)?);
                Adapter::from_f16(transposed(&a, rank), transposed(&b, rows), rank)
            }
        })
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

fn pair_factors(path: &Path, metadata: &Metadata) -> Result<BTreeMap<String, Stored>, Error> {
    let mut modules = BTreeMap::new();
    let tensors: BTreeMap<String, TensorInfo> =
        metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
    for (key, info) in &tensors {
        if !matches!(info.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32) {
            return Err(bad(path, format!("{key:?} is {:?}, not F16, BF16 or F32", info.dtype)));
        }
        // Which factor it is, of a module of which kind.
        let role = Kind::ALL.into_iter().find_map(|kind| {
            let rest = key.strip_prefix(PREFIX)?;
            let of = |factor: usize| rest.strip_suffix(kind.suffixes()[factor]);
            (0..2).find_map(|factor| of(factor).map(|module| (kind, factor, module)))
        });
        let Some((kind, factor, module)) = role else {
            return Err(bad(path, format!("unknown key {key:?}")));
        };
        let partner = &kind.keys(module)[1 - factor];
        let Some(other) = tensors.get(partner) else {
            return Err(bad(path, format!("{key:?} is there without {partner:?}")));
        };
        if factor == 1 {
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
        let stored = Stored { kind, a: info.clone(), b: other.clone() };
        if modules.insert(module.to_owned(), stored).is_some() {
            return Err(bad(path, format!("two adapters of {module:?}")));
        }
    }
    Ok(modules)
}
