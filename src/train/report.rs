//! What a training run reports.

use std::path::{Path, PathBuf};

use compress_model_qat::train::Position;
use serde::Serialize;

use super::blocks::BlockReport;
use super::log::{CURVE_FILE, Evaluation, LOG_FILE, Log, curve_svg};
use super::text::TrainingText;
use crate::checkpoint::Partial;
use crate::error::{IoContext, Result};
use crate::pipeline::CompressReport;

/// What `qat` and `recover` report.
#[derive(Debug, Clone, Serialize)]
pub struct TrainReport {
    /// The output folder; absent where nothing is exported.
    pub output: Option<PathBuf>,
    /// What was trained on.
    pub text: TrainingText,
    /// Windows trained on, and held out.
    pub windows: (usize, usize),
    /// Layers trained.
    pub layers: usize,
    /// Parameters trained.
    pub parameters: usize,
    /// Steps taken, in this run and before.
    pub steps: u64,
    /// Steps that earlier runs had taken.
    pub resumed_steps: u64,
    /// Held-out losses no longer fell.
    pub stopped_early: bool,
    /// Steps of end-to-end training after which the weights were as they are written; null without it.
    pub kept_step: Option<u64>,
    /// Times that the run went back because of a spike.
    pub rollbacks: u32,
    /// Blocks trained on their own.
    pub blocks: Vec<BlockReport>,
    /// Held-out windows, as what is exported gives them.
    pub evaluations: Vec<Evaluation>,
    /// Tokens a second of the end-to-end steps.
    pub tokens_per_second: f64,
    /// Seconds of training.
    pub training_seconds: f64,
    /// Seconds in all.
    pub seconds: f64,
    /// Resident memory that the run was expected to stay under, in bytes.
    pub planned_peak_memory: u64,
    /// What was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compressed: Option<CompressReport>,
}

impl TrainReport {
    /// The report of a run that begins after `resumed_steps` steps.
    pub(super) fn new(text: &TrainingText, planned_peak_memory: u64, resumed_steps: u64) -> Self {
        Self {
            output: None,
            text: text.clone(),
            windows: (text.windows.len(), text.held_out.len()),
            layers: 0,
            parameters: 0,
            steps: 0,
            resumed_steps,
            stopped_early: false,
            kept_step: None,
            rollbacks: 0,
            blocks: Vec::new(),
            evaluations: Vec::new(),
            tokens_per_second: 0.0,
            training_seconds: 0.0,
            seconds: 0.0,
            planned_peak_memory,
            compressed: None,
        }
    }

    /// Adds what the log of a run knows at its end, `position`.
    pub(super) fn add_log(&mut self, position: &Position, log: &Log<'_>) {
        self.steps = position.step;
        self.rollbacks = position.rollbacks;
        self.evaluations.clone_from(&log.evaluations);
        self.tokens_per_second = log.speed();
        self.training_seconds = log.seconds();
    }
}

/// Draws the curve beside the log.
pub(super) fn write_history(folder: &Path, log: &Log<'_>) -> Result<()> {
    let path = folder.join(CURVE_FILE);
    std::fs::write(&path, curve_svg(&log.curve, &log.evaluations)).at("write", &path)
}

/// Moves the log and the curve into the output folder and removes the work folder.
pub(super) fn end(
    mut report: TrainReport,
    compressed: Option<CompressReport>,
    output: &Path,
    work: Partial,
    seconds: f64,
) -> Result<TrainReport> {
    if compressed.is_some() {
        for name in [LOG_FILE, CURVE_FILE] {
            let (from, to) = (work.folder().join(name), output.join(name));
            std::fs::copy(&from, &to).at("write", &to)?;
        }
        report.output = Some(output.to_path_buf());
    }
    work.remove()?;
    report.seconds = seconds;
    report.compressed = compressed;
    Ok(report)
}
