//! `pack`: weights that another trainer left, put on the grid with the scales that it trained.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use super::finished::{Finished, Outcome, grid_outcome};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::dtype::{AlignedBytes, dtype_name, is_codable, to_f32};
use crate::error::{Error, IoContext, Result};
use crate::pipeline::{CompressReport, Fate, Plan, Progress, compress};

/// Largest file of scales that is read.
const MAX_SCALES_LEN: u64 = 4 << 30;

/// Scales of latent weights: for each weight NAME a tensor `NAME.scale`, or NAME without its
/// `.weight` and with `.scale`; F32, F16 or BF16, of one element a group, a row, or the matrix.
#[derive(Debug)]
pub struct Latent {
    file: PathBuf,
    /// Name of the weight to its scales, row-major.
    scales: BTreeMap<String, Vec<f32>>,
}

impl Latent {
    /// Reads a safetensors file of scales.
    ///
    /// # Errors
    /// [`Error::Tensor`] or [`Error::Checkpoint`] for a file that is no such thing; I/O.
    pub fn read(path: &Path) -> Result<Self> {
        let len = std::fs::metadata(path).at("read", path)?.len();
        if len > MAX_SCALES_LEN {
            return Err(Error::checkpoint(path, format!("{len} bytes are too many for scales")));
        }
        let bytes = std::fs::read(path).at("read", path)?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|e| Error::checkpoint(path, format!("is no safetensors file: {e}")))?;
        let mut scales = BTreeMap::new();
        for (name, view) in file.tensors() {
            let fault = |message: &str| Error::tensor(path, &name, message);
            let Some(weight) = name.strip_suffix(".scale") else {
                return Err(fault("is no scale: its name does not end in .scale"));
            };
            if !is_codable(view.dtype()) {
                return Err(fault(&format!("{} is no dtype of scales", dtype_name(view.dtype()))));
            }
            let mut aligned = AlignedBytes::default();
            aligned.resize(view.data().len());
            aligned.as_mut_slice().copy_from_slice(view.data());
            let mut values = vec![0.0; view.shape().iter().product()];
            to_f32(view.dtype(), &aligned, &mut values);
            if let Some(bad) = values.iter().find(|s| !(s.is_finite() && **s >= 0.0)) {
                return Err(fault(&format!("{bad} is no scale")));
            }
            let weight = match weight.strip_suffix(".weight") {
                Some(_) => weight.to_owned(),
                None => format!("{weight}.weight"),
            };
            if scales.insert(weight, values).is_some() {
                return Err(fault("gives scales a second time"));
            }
        }
        Ok(Self { file: path.to_path_buf(), scales })
    }
}

/// Compresses `latent`, a checkpoint of latent weights, by `plan`: tensors on the 2-bit grid that
/// have `scales` get the codes nearest at them, everything else is coded as it is.
///
/// # Errors
/// [`Error::Tensor`] for scales of a tensor that is not on the grid, or of another number than it has
/// groups, rows or matrices; as [`compress`].
pub fn pack(
    latent: &Checkpoint,
    plan: &Plan,
    scales: Option<&Latent>,
    output: &Path,
    seed: u64,
    progress: &dyn Progress,
) -> Result<CompressReport> {
    let mut outcomes: HashMap<String, Outcome> = HashMap::new();
    if let Some(Latent { file, scales }) = scales {
        for (name, scales) in scales {
            let fault = |message: String| Error::tensor(file, name, message);
            let number = plan
                .tensors
                .iter()
                .position(|planned| latent.tensors()[planned.source].name == *name)
                .ok_or_else(|| fault("the checkpoint has no such weight".to_owned()))?;
            let tensor = &latent.tensors()[plan.tensors[number].source];
            let codec = match &plan.tensors[number].fate {
                Fate::Coded { codec, .. } if codec.name() == "grid2" => codec,
                _ => return Err(fault("the recipe does not code this weight with grid2".into())),
            };
            let Some((1, rows, cols)) = tensor.as_matrices() else {
                return Err(fault("scales of stacked matrices are not supported".to_owned()));
            };
            let group = codec.params().get("group").and_then(serde_json::Value::as_u64);
            let group = group.and_then(|group| NonZeroUsize::new(group as usize));
            let groups = group.map_or(1, |group| cols.div_ceil(group.get()));
            let expanded = match scales.len() {
                1 => scales.clone(),
                n if n == rows * groups => scales.clone(),
                n if n == rows => {
                    scales.iter().flat_map(|&s| std::iter::repeat_n(s, groups)).collect()
                }
                n => {
                    let message = format!(
                        "{n} scales, but the weight has {rows} rows of {groups} groups; set \
                         `group` in the recipe to what was trained"
                    );
                    return Err(fault(message));
                }
            };
            let weights = latent.read_all(tensor)?;
            let found = grid_outcome(latent, name, &weights, &expanded, cols, group)?;
            outcomes.insert(name.clone(), found);
        }
    }
    let finished = Finished { checkpoint: latent, start: None, outcomes };
    compress(latent, plan, output, seed, Some(&finished), progress)
}
