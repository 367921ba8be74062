//! What a run says while it runs: a line of JSON a step in `train.jsonl`, and the curve of it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use compress_model_qat::train::{Losses, Position, Watcher};
use serde::Serialize;
use serde_json::json;

use crate::error::{Error, IoContext, Result};

/// Shows a run to a person.
pub trait TrainProgress {
    /// A stage of `steps` steps begins, `done` of them taken before.
    fn begin(&self, stage: &'static str, steps: u64, done: u64);
    /// A step is done; `figures` says how it went.
    fn step(&self, figures: &str);
    /// Something that does not happen at every step.
    fn say(&self, line: &str);
}

/// One evaluation on held-out windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Evaluation {
    /// Steps before it.
    pub step: u64,
    /// What is minimised.
    pub loss: f64,
    /// KLD from the original, in nats.
    pub kld: f64,
    /// Perplexity of the text.
    pub perplexity: f64,
}

/// Name of the log in work and output folders.
pub const LOG_FILE: &str = "train.jsonl";
/// Name of the picture of losses in the output folder.
pub const CURVE_FILE: &str = "training.svg";

/// Writes the log and keeps what the report needs.
pub(super) struct Log<'a> {
    path: PathBuf,
    file: File,
    progress: &'a dyn TrainProgress,
    stop: Arc<AtomicBool>,
    start: Instant,
    /// When the last step or evaluation ended.
    mark: Instant,
    /// Seconds of steps alone.
    step_seconds: f64,
    tokens: u64,
    last_loss: f64,
    /// (step, loss)
    pub(super) curve: Vec<(u64, f64)>,
    pub(super) evaluations: Vec<Evaluation>,
    pub(super) rollbacks: u32,
}

impl<'a> Log<'a> {
    /// Appends to the log in `folder`. Lines past step `from` are of a run that did not get as far
    /// as its next checkpoint: they are taken out.
    pub(super) fn open(
        folder: &Path,
        from: u64,
        progress: &'a dyn TrainProgress,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let path = folder.join(LOG_FILE);
        let mut log = Self {
            file: File::options().create(true).append(true).open(&path).at("open", &path)?,
            path,
            progress,
            stop,
            start: Instant::now(),
            mark: Instant::now(),
            step_seconds: 0.0,
            tokens: 0,
            last_loss: f64::NAN,
            curve: Vec::new(),
            evaluations: Vec::new(),
            rollbacks: 0,
        };
        log.keep_up_to(from)?;
        Ok(log)
    }

    fn keep_up_to(&mut self, from: u64) -> Result<()> {
        let text = std::fs::read_to_string(&self.path).at("read", &self.path)?;
        let mut kept = String::new();
        (self.curve, self.evaluations) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let number = |key: &str| value.get(key).and_then(serde_json::Value::as_f64);
            let step = value.get("step").and_then(serde_json::Value::as_u64);
            if step.is_some_and(|step| step > from) {
                continue;
            }
            if let (Some(step), Some(loss)) = (step, number("loss")) {
                match (number("held_out_kld"), number("perplexity")) {
                    (Some(kld), Some(perplexity)) => {
                        self.evaluations.push(Evaluation { step, loss, kld, perplexity });
                    }
                    _ => self.curve.push((step, loss)),
                }
            }
            let _ = writeln!(kept, "{line}");
        }
        std::fs::write(&self.path, kept).at("write", &self.path)?;
        let file = File::options().append(true).open(&self.path);
        self.file = file.at("open", &self.path)?;
        Ok(())
    }

    /// Appends a line. A log that cannot be written does not end a run.
    pub(super) fn line(&mut self, value: &serde_json::Value) {
        if let Err(e) = writeln!(self.file, "{value}") {
            self.progress.say(&format!("{}: cannot write: {e}", self.path.display()));
        }
    }

    /// Tokens a second of this process's steps.
    pub(super) fn speed(&self) -> f64 {
        self.tokens as f64 / self.step_seconds.max(1e-9)
    }

    /// Seconds since the log was opened.
    pub(super) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

impl Watcher<Error> for Log<'_> {
    fn stepped(&mut self, position: &Position, losses: &Losses, norm: f64, rate: f32) {
        let seconds = self.mark.elapsed().as_secs_f64();
        self.mark = Instant::now();
        self.step_seconds += seconds;
        self.tokens += losses.tokens;
        self.last_loss = losses.total;
        self.curve.push((position.step, losses.total));
        self.line(&json!({
            "step": position.step,
            "loss": losses.total,
            "kld": losses.divergence,
            "cross_entropy": losses.cross_entropy,
            "hidden": losses.hidden,
            "gradient_norm": norm,
            "rate_share": rate,
            "tokens": losses.tokens,
            "seconds": seconds,
        }));
        let figures = format!(
            "loss {:.4}, KLD {:.4}, {:.0} tokens/s",
            losses.total,
            losses.divergence,
            self.speed()
        );
        self.progress.step(&figures);
    }

    fn evaluated(&mut self, position: &Position, losses: &Losses) {
        let evaluation = Evaluation {
            step: position.step,
            loss: losses.total,
            kld: losses.divergence,
            perplexity: losses.cross_entropy.exp(),
        };
        self.evaluations.push(evaluation);
        self.mark = Instant::now();
        self.line(&json!({
            "step": position.step,
            "loss": losses.total,
            "held_out_kld": losses.divergence,
            "perplexity": evaluation.perplexity,
        }));
        self.progress.say(&format!(
            "step {}: held out: loss {:.4}, KLD {:.4}, perplexity {:.3}",
            position.step, losses.total, losses.divergence, evaluation.perplexity
        ));
    }

    fn rolled_back(&mut self, position: &Position, loss: f64) {
        self.rollbacks = position.rollbacks;
        self.line(&json!({ "rolled_back_to": position.step, "rate_factor": position.rate_factor }));
        self.progress.say(&format!(
            "loss {loss:.4}, after {:.4}: back to step {} at {} of the rate",
            self.last_loss, position.step, position.rate_factor
        ));
        if let Err(e) = self.keep_up_to(position.step) {
            self.progress.say(&e.to_string());
        }
    }

    fn not_saved(&mut self, error: Error) {
        self.progress.say(&format!("no checkpoint, training goes on: {error}"));
        self.line(&json!({ "not_saved": error.to_string() }));
    }

    fn wants_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Draws the losses: those of steps as dots, those held out as a line.
pub(super) fn curve_svg(curve: &[(u64, f64)], evaluations: &[Evaluation]) -> String {
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 320.0;
    const MARGIN: f64 = 48.0;
    let losses = || {
        let held_out = evaluations.iter().map(|e| (e.step, e.loss));
        curve.iter().copied().chain(held_out).filter(|(_, loss)| loss.is_finite())
    };
    let last = losses().map(|(step, _)| step).max().unwrap_or(1).max(1) as f64;
    let high = losses().map(|(_, loss)| loss).fold(f64::MIN_POSITIVE, f64::max);
    let x = |step: u64| MARGIN + step as f64 / last * (WIDTH - 2.0 * MARGIN);
    let y = |loss: f64| HEIGHT - MARGIN - loss / high * (HEIGHT - 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for part in 0..=4 {
        let loss = high * f64::from(part) / 4.0;
        let _ = writeln!(
            svg,
            "<path d=\"M{MARGIN} {at:.1}H{end}\" stroke=\"#ddd\"/>\
             <text x=\"{text}\" y=\"{at:.1}\" text-anchor=\"end\">{loss:.3}</text>",
            at = y(loss),
            end = WIDTH - MARGIN,
            text = MARGIN - 6.0,
        );
    }
    for &(step, loss) in curve.iter().filter(|(_, loss)| loss.is_finite()) {
        let (x, y) = (x(step), y(loss));
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.5\" fill=\"#88b\"/>");
    }
    let points: Vec<String> =
        evaluations.iter().map(|e| format!("{:.1},{:.1}", x(e.step), y(e.loss))).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#c33\" stroke-width=\"2\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">step {last}</text>\n\
         <text x=\"{MARGIN}\" y=\"20\">loss of each step (dots) and on held-out windows (line)\
         </text>\n</svg>",
        points.join(" "),
        WIDTH - MARGIN,
        HEIGHT - MARGIN / 2.0,
    );
    svg
}
