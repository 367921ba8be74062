//! `compress-model compress`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::progress::Display;
use super::recipe_args::RecipeArgs;
use super::stop::stop_flag;
use super::{Common, Failure, human_bytes, human_db, print_json, print_text};
use crate::checkpoint::{Checkpoint, Partial, check_output_path};
use crate::error::Error;
use crate::memory::peak_resident;
use crate::pipeline::{CompressReport, Plan, Solver, compress_resumable};
#[cfg(feature = "model")]
use crate::{
    budget::{self, BudgetReport, Target},
    calibrate::{CalibrationText, Statistics, calibrate},
    checkpoint::Staging,
    recipe::{Recipe, Transform},
    solve::{Parallel, Sequential, SolveOptions},
    transform::Transformed,
};

#[derive(Debug, Args)]
pub(super) struct CompressArgs {
    /// Checkpoint folder, or GGUF file
    model: PathBuf,
    /// Output folder
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Code with a view to what layers do with this text, or with the one of this folder of
    /// statistics; of several texts each has its share
    #[cfg(feature = "model")]
    #[arg(long, value_name = "TEXT|STATS")]
    calibration: Vec<PathBuf>,
    #[cfg(feature = "model")]
    #[command(flatten)]
    windows: super::calibrate::WindowArgs,
    /// Spend this many bits per weight of the whole model where the calibration text says that they
    /// help most: other footprints, groups and ranks of the recipe's codecs
    #[cfg(feature = "model")]
    #[arg(long, value_name = "BITS", requires = "calibration", conflicts_with = "target_size")]
    target_bpw: Option<f64>,
    /// The same for the size of the output
    #[cfg(feature = "model")]
    #[arg(long, value_name = "SIZE", requires = "calibration", value_parser = super::parse_bytes)]
    target_size: Option<u64>,
    /// Go on where an earlier run stopped: after SIGTERM, a full disk, a crash or a loss of power
    #[arg(long)]
    resume: bool,
    /// Start again where an earlier run stopped, and drop what it did
    #[arg(long, conflicts_with = "resume")]
    restart: bool,
    /// Take at most this much memory, with fewer threads than asked for if it must be
    #[arg(long, value_name = "SIZE", value_parser = super::parse_bytes)]
    memory_limit: Option<u64>,
    /// Replace the output folder if it is there
    #[arg(long)]
    overwrite: bool,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    run: CompressReport,
    #[cfg(feature = "model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<BudgetReport>,
    threads: usize,
    peak_memory: Option<u64>,
}

pub(super) fn run(args: &CompressArgs, common: &Common) -> Result<(), Failure> {
    let original = Checkpoint::open(&args.model)?;
    check_output_path(&args.output, &[&args.model], args.overwrite)?;
    if args.restart {
        Partial::drop_left(&args.output)?;
    }
    if original.config().is_none() {
        let message = "has no config.json; compress takes whole model folders";
        return Err(Error::checkpoint(&args.model, message).into());
    }
    let display = Display::stoppable(common, stop_flag(common));
    #[cfg(feature = "model")]
    let calibrated = !args.calibration.is_empty();
    #[cfg(not(feature = "model"))]
    let (calibrated, solver): (_, Option<&dyn Solver>) = (false, None);
    let recipe = args.recipe.recipe(calibrated)?;
    #[cfg(feature = "model")]
    let calibration = calibration(args, &original)?;
    #[cfg(feature = "model")]
    let transformed = match &recipe.transform {
        Some(options) => Some(transform(args, &original, options, &calibration, common, &display)?),
        None => None,
    };
    #[cfg(feature = "model")]
    let checkpoint = transformed.as_ref().map_or(&original, Transformed::checkpoint);
    #[cfg(not(feature = "model"))]
    let checkpoint = &original;
    let plan = |recipe| -> Result<Plan, Error> {
        let threads = rayon::current_num_threads();
        let plan = Plan::new(checkpoint, recipe, args.recipe.edits.max_shard_size, threads)?;
        #[cfg(feature = "model")]
        if let Some(transformed) = &transformed {
            return Ok(plan.of_transformed(transformed.record().clone()));
        }
        Ok(plan)
    };
    let wanted = plan(recipe)?;
    #[cfg(feature = "model")]
    let (wanted, budget) = match budget(args, checkpoint, &wanted, &calibration, &display)? {
        Some((recipe, budget)) => (plan(recipe)?, Some(budget)),
        None => (wanted, None),
    };
    let mut plan = wanted;
    for warning in plan.warnings(checkpoint) {
        tracing::warn!("{warning}");
    }
    #[cfg(feature = "model")]
    let solver = solver(checkpoint, calibration, transformed.as_ref(), args.memory_limit)?;
    #[cfg(feature = "model")]
    let solver = solver.as_deref();
    let mut threads = rayon::current_num_threads();
    if let Some(limit) = args.memory_limit {
        let solving = solver.map_or(0, |solver| solver.peak_memory(&plan));
        threads = plan.fit_memory(checkpoint, limit, solving, threads)?;
    }
    let (output, seed) = (&args.output, common.seed);
    let run = with_threads(threads, || {
        compress_resumable(checkpoint, &plan, output, seed, solver, args.resume, &display)
    })??;
    drop(display);
    let report = Report {
        run,
        #[cfg(feature = "model")]
        budget,
        threads,
        peak_memory: peak_resident(),
    };
    if common.json { print_json(&report) } else { print_text(&render(&report)) }
}

/// Prints what a run without a budget reports.
#[cfg(feature = "model")]
pub(super) fn print_run(run: CompressReport, common: &Common) -> Result<(), Failure> {
    let threads = rayon::current_num_threads();
    let report = Report { run, budget: None, threads, peak_memory: peak_resident() };
    if common.json { print_json(&report) } else { print_text(&render(&report)) }
}

/// Runs `work` on `threads` threads.
fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    if threads == rayon::current_num_threads() {
        return Ok(work());
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    Ok(pool.map_err(Failure::Pool)?.install(work))
}

/// What the layers are known by.
#[cfg(feature = "model")]
enum Calibration {
    None,
    Text(CalibrationText),
    Statistics(Statistics),
}

/// Reads what `--calibration` names.
#[cfg(feature = "model")]
fn calibration(args: &CompressArgs, checkpoint: &Checkpoint) -> Result<Calibration, Error> {
    Ok(match args.calibration.as_slice() {
        [] => {
            args.windows.refuse("without --calibration")?;
            Calibration::None
        }
        [folder] if folder.is_dir() => {
            let statistics = Statistics::open(folder)?;
            args.windows.refuse("for stored statistics, whose windows were cut before")?;
            Calibration::Statistics(statistics)
        }
        files => Calibration::Text(args.windows.read(checkpoint, files)?),
    })
}

/// The transformed checkpoint, in a folder beside the output. Where the transform depends on what
/// the layers see, a text is first read by the original model.
#[cfg(feature = "model")]
fn transform(
    args: &CompressArgs,
    original: &Checkpoint,
    options: &Transform,
    calibration: &Calibration,
    common: &Common,
    display: &Display,
) -> Result<Transformed, Error> {
    let name = args.output.file_name().unwrap_or_default().to_string_lossy();
    let staging = Staging::create(&args.output.with_file_name(format!("{name}.statistics")))?;
    let statistics = match calibration {
        Calibration::Statistics(statistics) => Some(statistics.clone()),
        Calibration::Text(text) if options.needs_calibration() => {
            let folder = staging.folder().join("statistics");
            calibrate(original, text, &folder, false, display).map_err(|e| match e {
                // What it stored goes with the folder.
                Error::Stopped { .. } => Error::StoppedEarly,
                e => e,
            })?;
            Some(Statistics::open(&folder)?)
        }
        _ => None,
    };
    let statistics = statistics.as_ref();
    Transformed::create(original, options, statistics, common.seed, &args.output, display)
}

/// The recipe that spends the budget that the flags name.
#[cfg(feature = "model")]
fn budget(
    args: &CompressArgs,
    checkpoint: &Checkpoint,
    plan: &Plan,
    calibration: &Calibration,
    display: &Display,
) -> Result<Option<(Recipe, BudgetReport)>, Error> {
    let target = match (args.target_bpw, args.target_size) {
        (Some(bits), _) if bits.is_nan() || bits <= 0.0 => {
            return Err(Error::Usage(format!("--target-bpw {bits}: must be above zero")));
        }
        (Some(bits), _) => Target::BitsPerWeight(bits),
        (None, Some(bytes)) => Target::Bytes(bytes),
        (None, None) => return Ok(None),
    };
    let Calibration::Text(text) = calibration else {
        let message = "a budget needs a --calibration text to probe the model with";
        return Err(Error::Usage(message.to_owned()));
    };
    let staging = Staging::create(&args.output)?;
    budget::fit(checkpoint, plan, text, target, staging.folder(), display).map(Some)
}

/// The solver that goes with a calibration.
#[cfg(feature = "model")]
fn solver<'a>(
    checkpoint: &'a Checkpoint,
    calibration: Calibration,
    transformed: Option<&Transformed>,
    memory_limit: Option<u64>,
) -> Result<Option<Box<dyn Solver + 'a>>, Error> {
    let options = SolveOptions::default();
    Ok(match calibration {
        Calibration::None => None,
        Calibration::Text(text) => {
            let mut solver = Sequential::new(checkpoint, text, options);
            if memory_limit.is_some() {
                solver.states_memory = 0;
            }
            Some(Box::new(solver))
        }
        Calibration::Statistics(statistics) => {
            let statistics = match transformed {
                Some(transformed) => transformed.statistics(statistics)?,
                None => statistics,
            };
            Some(Box::new(Parallel { checkpoint, statistics, options }))
        }
    })
}

fn render(report: &Report) -> String {
    let run = &report.run;
    let totals = &run.totals;
    let worst = run
        .worst
        .as_ref()
        .map_or(String::new(), |worst| format!(", worst {:.2} dB ({})", worst.sqnr_db, worst.name));
    let solving = run
        .solved
        .as_ref()
        .map_or(String::new(), |solved| format!("{:.1} s solving, ", solved.seconds));
    format!(
        "{}: recipe {}, {} coded, {} kept, {} tied\n\
         size       {} -> {} ({:.3} bits per weight; linear layers {:.3})\n\
         SQNR       {}{worst}\n\
         time       {:.1} s checking, {solving}{:.1} s compressing on {} thread{}\n\
         memory     {} peak, {} planned\n",
        run.output.display(),
        run.recipe,
        totals.coded,
        totals.kept,
        totals.tied,
        human_bytes(totals.source_bytes),
        human_bytes(totals.output_bytes),
        totals.bits_per_weight,
        totals.linear_bits_per_weight,
        human_db(run.sqnr_db),
        run.scan_seconds,
        run.code_seconds,
        report.threads,
        if report.threads == 1 { "" } else { "s" },
        report.peak_memory.map_or("unknown".to_owned(), human_bytes),
        human_bytes(run.planned_peak_memory),
    )
}
