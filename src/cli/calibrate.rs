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
use crate::checkpoint::{Checkpoint, Partial};
use crate::error::{Error, Result};
use crate::memory::peak_resident;

/// How a calibration text is cut; the flags of `calibrate` and `compress`.
#[derive(Debug, Args)]
pub(super) struct WindowArgs {
    /// Tokens a window of the calibration text [default: 512]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..))]
    calibration_ctx: Option<u32>,
    /// Most windows of the calibration text, spread evenly over it [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    calibration_windows: Option<u32>,
}

/// Tokens of a window unless asked otherwise.
const CTX: u32 = 512;
/// Windows of a text unless asked otherwise.
const WINDOWS: u32 = 128;

impl WindowArgs {
    /// Refuses the flags where no text is cut into windows.
    pub(super) fn refuse(&self, why: &str) -> Result<()> {
        let given = [
            ("--calibration-ctx", self.calibration_ctx),
            ("--calibration-windows", self.calibration_windows),
        ];
        match given.iter().find(|(_, given)| given.is_some()) {
            None => Ok(()),
            Some((flag, _)) => Err(Error::Usage(format!("{flag} has no meaning {why}"))),
        }
    }

    /// The windows of `files` for the model of `checkpoint`.
    pub(super) fn read(
        &self,
        checkpoint: &Checkpoint,
        files: &[PathBuf],
    ) -> Result<CalibrationText> {
        let settings = TextSettings {
            ctx: self.calibration_ctx.unwrap_or(CTX) as usize,
            windows: self.calibration_windows.unwrap_or(WINDOWS) as usize,
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
    /// Start again where an earlier run stopped, and drop what it did
    #[arg(long, conflicts_with = "resume")]
    restart: bool,
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
    if args.restart {
        Partial::drop_left(&args.output)?;
    }
    let text = args.windows.read(&checkpoint, &args.text)?;
    let display = Display::stoppable(common, stop_flag(common));
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
