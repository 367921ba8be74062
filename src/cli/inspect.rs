//! `compress-model inspect`: what a checkpoint holds.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::table::table;
use super::{Common, Failure, human_bytes, print_json, print_text};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::dtype::dtype_name;
use crate::checkpoint::role::Role;

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Checkpoint folder, or GGUF file
    model: PathBuf,
}

#[derive(Serialize)]
struct Inspection {
    folder: PathBuf,
    model_type: Option<String>,
    tied_embeddings: bool,
    quantised_by: Option<String>,
    files: usize,
    tensors: Vec<TensorLine>,
    roles: BTreeMap<&'static str, RoleTotal>,
    parameters: u64,
    bytes: u64,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct TensorLine {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    bytes: u64,
    role: Role,
    file: String,
}

#[derive(Serialize, Default)]
struct RoleTotal {
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

pub(super) fn run(args: &InspectArgs, common: &Common) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open(&args.model)?;
    let inspection = inspect(&checkpoint);
    if common.json {
        return print_json(&inspection);
    }
    for warning in &inspection.warnings {
        tracing::warn!("{warning}");
    }
    print_text(&render(&inspection))
}

fn inspect(checkpoint: &Checkpoint) -> Inspection {
    let mut roles: BTreeMap<&'static str, RoleTotal> = BTreeMap::new();
    let mut tensors = Vec::new();
    for tensor in checkpoint.tensors() {
        let total = roles.entry(tensor.role.name()).or_default();
        total.tensors += 1;
        total.parameters += tensor.elements();
        total.bytes += tensor.byte_len;
        let file = checkpoint.file_of(tensor).file_name().unwrap_or_default();
        tensors.push(TensorLine {
            name: tensor.name.clone(),
            dtype: dtype_name(tensor.dtype),
            shape: tensor.shape.clone(),
            bytes: tensor.byte_len,
            role: tensor.role,
            file: file.to_string_lossy().into_owned(),
        });
    }
    let config = checkpoint.config();
    Inspection {
        folder: checkpoint.origin().to_path_buf(),
        model_type: config.map(|config| config.model_type().to_owned()),
        tied_embeddings: config.is_some_and(ModelConfig::ties_embeddings),
        quantised_by: config.and_then(ModelConfig::quantised_by),
        files: checkpoint.file_count(),
        parameters: roles.values().map(|r| r.parameters).sum(),
        bytes: roles.values().map(|r| r.bytes).sum(),
        tensors,
        roles,
        warnings: checkpoint.warnings().to_vec(),
    }
}

fn render(inspection: &Inspection) -> String {
    let rows: Vec<Vec<String>> = inspection
        .tensors
        .iter()
        .map(|t| {
            vec![
                t.name.clone(),
                t.dtype.clone(),
                format!("{:?}", t.shape),
                human_bytes(t.bytes),
                t.role.name().to_owned(),
            ]
        })
        .collect();
    let mut text = table(&["tensor", "dtype", "shape", "size", "role"], &[3], &rows);
    text.push('\n');
    let rows: Vec<Vec<String>> = inspection
        .roles
        .iter()
        .map(|(role, total)| {
            vec![
                (*role).to_owned(),
                total.tensors.to_string(),
                total.parameters.to_string(),
                human_bytes(total.bytes),
            ]
        })
        .collect();
    text += &table(&["role", "tensors", "parameters", "size"], &[1, 2, 3], &rows);
    let _ = writeln!(
        text,
        "\n{} ({}{}): {} tensors, {} parameters, {} in {} file{}",
        inspection.folder.display(),
        inspection.model_type.as_deref().unwrap_or("no config.json"),
        if inspection.tied_embeddings { ", tied embeddings" } else { "" },
        inspection.tensors.len(),
        inspection.parameters,
        human_bytes(inspection.bytes),
        inspection.files,
        if inspection.files == 1 { "" } else { "s" },
    );
    if let Some(method) = &inspection.quantised_by {
        let _ = writeln!(text, "quantised already, by {method}");
    }
    text
}
