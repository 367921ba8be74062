//! `compress-model work` and `compress-model merge`: one compression on many machines.

use std::path::PathBuf;

use clap::Args;

use super::progress::Display;
use super::stop::stop_flag;
use super::{Common, Failure, human_bytes, human_db, print_json, print_text};
use crate::pipeline::units;

#[derive(Debug, Args)]
pub(super) struct WorkArgs {
    /// The units, as `plan --units` wrote them
    units: PathBuf,
    /// Which unit to do, from 0 on
    #[arg(long, value_name = "I")]
    unit: usize,
    /// Folder for pieces, shared by all workers; a unit that is there already is left alone
    #[arg(short, long, value_name = "PIECES")]
    output: PathBuf,
    /// Where this machine has the checkpoint, if not where `plan` found it
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
}

pub(super) fn work(args: &WorkArgs, common: &Common) -> Result<(), Failure> {
    let display = Display::new(common);
    let report =
        units::work(&args.units, args.unit, args.model.as_deref(), &args.output, &display)?;
    drop(display);
    if common.json {
        return print_json(&report);
    }
    print_text(&format!(
        "unit {} of {}: {} of the source in {:.1} s{}\n",
        report.unit,
        report.units,
        human_bytes(report.source_bytes),
        report.seconds,
        if report.already_done { ", was done already" } else { "" }
    ))
}

#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// The units, as `plan --units` wrote them
    units: PathBuf,
    /// The folder of their pieces
    pieces: PathBuf,
    /// Output folder
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Where this machine has the checkpoint, if not where `plan` found it
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Replace the output folder if it is there
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn merge(args: &MergeArgs, common: &Common) -> Result<(), Failure> {
    let display = Display::stoppable(common, stop_flag(common));
    let model = args.model.as_deref();
    let report =
        units::merge(&args.units, &args.pieces, model, &args.output, args.overwrite, &display)?;
    drop(display);
    if common.json {
        return print_json(&report);
    }
    print_text(&format!(
        "{}: {} units, {} -> {}, SQNR {}, {:.1} s\n",
        report.output.display(),
        report.units,
        human_bytes(report.totals.source_bytes),
        human_bytes(report.totals.output_bytes),
        human_db(report.sqnr_db),
        report.seconds
    ))
}
