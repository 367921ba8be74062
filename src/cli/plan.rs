//! `compress-model plan`: what compression would do.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::recipe_args::RecipeArgs;
use super::table::table;
use super::{Common, Failure, human_bytes, print_json, print_text};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::dtype::dtype_name;
use crate::checkpoint::role::Role;
use crate::codec::Params;
use crate::error::Error;
#[cfg(feature = "model")]
use crate::error::IoContext;
use crate::pipeline::units::UnitPlan;
use crate::pipeline::{Fate, Plan, PlannedTensor, Totals, bits_per_weight};
#[cfg(feature = "model")]
use crate::transform::Transformed;

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Checkpoint folder, or GGUF file
    model: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Of a preset, show the variant that compress takes with --calibration
    #[arg(long, conflicts_with = "recipe")]
    calibrated: bool,
    /// Cut the work into N units for many machines, and write them to the file of --output; see
    /// `work` and `merge`
    #[arg(long, value_name = "N", requires = "output", conflicts_with = "calibrated")]
    units: Option<std::num::NonZeroUsize>,
    /// File for the units, JSON
    #[arg(short, long, value_name = "UNITS", requires = "units")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct PlanReport {
    folder: PathBuf,
    recipe: String,
    tensors: Vec<PlanLine>,
    totals: Totals,
    files: Vec<String>,
    disk_bytes: u64,
    peak_memory: u64,
    warnings: Vec<String>,
    /// Units that were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    units: Option<usize>,
}

#[derive(Serialize)]
struct PlanLine {
    name: String,
    role: Role,
    dtype: String,
    shape: Vec<usize>,
    becomes: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Params>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transformed: Option<String>,
    bits_per_weight: f64,
    source_bytes: u64,
    output_bytes: u64,
}

pub(super) fn run(args: &PlanArgs, common: &Common) -> Result<(), Failure> {
    let original = Checkpoint::open(&args.model)?;
    let threads = rayon::current_num_threads();
    let recipe = args.recipe.recipe(args.calibrated)?;
    let plan = |checkpoint: &Checkpoint, recipe| {
        Plan::new(checkpoint, recipe, args.recipe.edits.max_shard_size, threads)
    };
    #[cfg(feature = "model")]
    let report = match &recipe.transform {
        Some(options) => {
            let folder = tempfile::tempdir().at("create a folder in", std::env::temp_dir())?;
            let outline = Transformed::outline(&original, options, &folder.path().join("outline"))?;
            let plan = plan(outline.checkpoint(), recipe)?;
            let plan = plan.of_transformed(outline.record().clone());
            let mut report = report(args, common, outline.checkpoint(), &plan)?;
            report.folder = original.folder().to_path_buf();
            report
        }
        None => report(args, common, &original, &plan(&original, recipe)?)?,
    };
    #[cfg(not(feature = "model"))]
    let report = report(args, common, &original, &plan(&original, recipe)?)?;
    if common.json {
        return print_json(&report);
    }
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    print_text(&render(&report))
}

/// The report of a plan, whose units are written if they are asked for.
fn report(
    args: &PlanArgs,
    common: &Common,
    checkpoint: &Checkpoint,
    plan: &Plan,
) -> Result<PlanReport, Error> {
    let mut written = None;
    if let (Some(count), Some(output)) = (args.units, &args.output) {
        let shards = args.recipe.edits.max_shard_size;
        let units = UnitPlan::cut(checkpoint, plan, common.seed, shards, count.get())?;
        units.write(output)?;
        written = Some(units.units.len());
    }
    Ok(PlanReport {
        folder: checkpoint.origin().to_path_buf(),
        recipe: plan.recipe.name.clone(),
        tensors: plan.tensors.iter().map(|planned| line(checkpoint, plan, planned)).collect(),
        totals: plan.totals,
        files: plan.layout.file_names().map(str::to_owned).collect(),
        disk_bytes: plan.disk_bytes(),
        peak_memory: plan.peak_memory,
        warnings: plan.warnings(checkpoint),
        units: written,
    })
}

fn line(checkpoint: &Checkpoint, plan: &Plan, planned: &PlannedTensor) -> PlanLine {
    let tensor = &checkpoint.tensors()[planned.source];
    let (becomes, params, rank, why) = match &planned.fate {
        Fate::Kept { why } => ("keep", None, None, Some(why.clone())),
        Fate::Tied { to } => ("tied", None, None, Some(format!("same weights as {to}"))),
        Fate::Coded { codec, rank } => {
            (codec.name(), Some(codec.params()), (*rank > 0).then_some(*rank), None)
        }
    };
    PlanLine {
        name: tensor.name.clone(),
        role: tensor.role,
        dtype: dtype_name(tensor.dtype),
        shape: tensor.shape.clone(),
        becomes,
        params,
        rank,
        why,
        transformed: plan
            .transformation
            .as_ref()
            .and_then(|transformation| transformation.changes.get(&tensor.name).cloned()),
        bits_per_weight: bits_per_weight(planned.output_bytes(), tensor.elements()),
        source_bytes: tensor.byte_len,
        output_bytes: planned.output_bytes(),
    }
}

fn render(report: &PlanReport) -> String {
    let rows: Vec<Vec<String>> = report
        .tensors
        .iter()
        .map(|line| {
            let rank = line.rank.map_or(String::new(), |rank| format!(" + rank {rank}"));
            vec![
                line.name.clone(),
                format!("{} {:?}", line.dtype, line.shape),
                format!("{}{rank}", line.becomes),
                format!("{:.3}", line.bits_per_weight),
                human_bytes(line.source_bytes),
                human_bytes(line.output_bytes),
                [&line.why, &line.transformed]
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("; "),
            ]
        })
        .collect();
    let head = ["tensor", "source", "becomes", "bpw", "from", "to", ""];
    let mut text = table(&head, &[3, 4, 5], &rows);
    let totals = &report.totals;
    let _ = write!(
        text,
        "\nrecipe {}: {} coded, {} kept, {} tied\n\
         tensor data {} -> {}, {:.3} bits per weight over all {} parameters\n\
         coded linear layers {:.3} bits per weight, everything counted\n\
         {} in {} file{}, peak memory about {}\n",
        report.recipe,
        totals.coded,
        totals.kept,
        totals.tied,
        human_bytes(totals.source_bytes),
        human_bytes(totals.output_bytes),
        totals.bits_per_weight,
        totals.parameters,
        totals.linear_bits_per_weight,
        human_bytes(report.disk_bytes),
        report.files.len(),
        if report.files.len() == 1 { "" } else { "s" },
        human_bytes(report.peak_memory),
    );
    if let Some(units) = report.units {
        let _ = writeln!(text, "cut into {units} units");
    }
    text
}
