//! `compress-model calibrate`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::progress::Display;
use super::stop::stop_flag;
use super::{Common, Failure, human_bytes, print_json, print_text};
use crate::calibrate::{
    CalibrateReport, CalibrationText, DESCRIPTION_FILE, TextSettings, calibrate,
};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::memory::peak_resident;

/// How a calibration text is cut; the flags of `calibrate` and `compress`.
#[derive(Debug, Args)]
pub(super) struct WindowArgs {
    /// Tokens a window of the calibration text
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(3..))]
    calibration_ctx: u32,
    /// Most windows of the calibration text, spread evenly over it
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    calibration_windows: u32,
}

impl WindowArgs {
    /// The windows of `files` for the model of `checkpoint`.
    pub(super) fn read(
        &self,
        checkpoint: &Checkpoint,
        files: &[PathBuf],
    ) -> Result<CalibrationText> {
        let settings = TextSettings {
            ctx: self.calibration_ctx as usize,
            windows: self.calibration_windows as usize,
        };
        CalibrationText::read(checkpoint.folder(), files, settings)
    }
}

#[derive(Debug, Args)]
pub(super) struct CalibrateArgs {
    /// Checkpoint folder, or GGUF file
    model: PathBuf,
    /// UTF-8 text to read (repeatable)
    #[arg(short = 'f', long, value_name = "FILE", required = true)]
    text: Vec<PathBuf>,
    /// Folder for the statistics
    #[arg(short, long, value_name = "STATS")]
    output: PathBuf,
    #[command(flatten)]
    windows: WindowArgs,
    /// Go on where an earlier run stopped
    #[arg(long)]
    resume: bool,
    /// Replace the output folder if it is there
    #[arg(long)]
    overwrite: bool,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    run: CalibrateReport,
    peak_memory: Option<u64>,
}

pub(super) fn run(args: &CalibrateArgs, common: &Common) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open(&args.model)?;
    let is_ours = args.output.join(DESCRIPTION_FILE).is_file();
    if args.output.exists() && !(args.overwrite && is_ours) {
        return Err(Error::OutputExists { path: args.output.clone() }.into());
    }
    let text = args.windows.read(&checkpoint, &args.text)?;
    let display = Display::stoppable(common, stop_flag());
    let run = calibrate(&checkpoint, &text, &args.output, args.resume, &display)?;
    drop(display);
    let report = Report { run, peak_memory: peak_resident() };
    if common.json { print_json(&report) } else { print_text(&render(&report)) }
}

fn render(report: &Report) -> String {
    let run = &report.run;
    let dead: usize = run.sites.iter().map(|site| site.dead).sum();
    let few = run.sites.iter().filter(|site| site.tokens < site.width as u64).count();
    let rare = run.sites.iter().filter(|site| site.all_experts).count();
    format!(
        "{}: {} sites, {} tokens\n\
         inputs     {dead} always zero; {few} sites saw fewer tokens than they have inputs; {rare} \
         of experts use those of all experts\n\
         time       {:.1} s, {:.0} tokens/s\n\
         memory     {} peak\n",
        run.output.display(),
        run.sites.len(),
        run.tokens,
        run.seconds,
        run.tokens as f64 / run.seconds,
        report.peak_memory.map_or("unknown".to_owned(), human_bytes),
    )
}
