//! The flags of `qat` and `recover` that say how training goes, and its progress on stderr.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::bar::Bar;
use super::progress::Display;
use super::stop::stop_flag;
use super::{Common, Failure, human_bytes, print_json, print_text};
use crate::checkpoint::{Partial, check_output_path};
use crate::error::{Error, Result};
use crate::memory::peak_resident;
use crate::model::{Model, ModelOptions};
use crate::recipe::Recipe;
use crate::train::{TrainOptions, TrainProgress, TrainReport, TrainingText, Watch};

/// How training goes. What a flag does not say is in the table `[train]` of the recipe, or has its
/// default.
#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    /// UTF-8 text to train on (repeatable)
    #[arg(short = 'f', long, value_name = "FILE", required = true)]
    pub(super) text: Vec<PathBuf>,
    /// Output folder
    #[arg(short, long, value_name = "OUT")]
    pub(super) output: PathBuf,
    /// Steps of end-to-end training
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Tokens a window
    #[arg(long, value_name = "N")]
    ctx: Option<usize>,
    /// Windows whose gradients are computed together
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Batches that make a step
    #[arg(long, value_name = "N")]
    accumulate: Option<usize>,
    /// Rate, in multiples of the root mean square of each matrix
    #[arg(long, value_name = "R")]
    rate: Option<f32>,
    /// Compute blocks again on the way back: less memory, more time
    #[arg(long)]
    recompute: bool,
    /// Another setting of the table [train] of a recipe (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    train: Vec<String>,
    /// Go on where an earlier run stopped
    #[arg(long)]
    pub(super) resume: bool,
    /// Start again where an earlier run stopped, and drop what it did
    #[arg(long, conflicts_with = "resume")]
    restart: bool,
    /// Replace the output folder if it is there
    #[arg(long)]
    overwrite: bool,
}

impl TrainArgs {
    /// Checks that the output may be written, and drops what an earlier run left if it is to.
    pub(super) fn check_output(&self, inputs: &[&Path]) -> Result<()> {
        check_output_path(&self.output, inputs, self.overwrite)?;
        if self.restart { Partial::drop_left(&self.output) } else { Ok(()) }
    }

    /// The settings of `recipe` with the flags over them, which `recipe` then has too.
    pub(super) fn options(
        &self,
        recipe: &mut Recipe,
        defaults: &TrainOptions,
    ) -> Result<TrainOptions> {
        let mut table = recipe.train.take().unwrap_or_default();
        for setting in &self.train {
            let refuse = |e: &str| Error::Usage(format!("--train {setting}: {e}"));
            let (key, value) = setting.split_once('=').ok_or_else(|| refuse("is no KEY=VALUE"))?;
            let text = format!("value = {value}");
            let value = match text.parse::<toml::Table>() {
                Ok(mut table) => table.remove("value"),
                // A word without quotes.
                Err(_) => Some(toml::Value::String(value.to_owned())),
            };
            table.insert(key.to_owned(), value.ok_or_else(|| refuse("has no value"))?);
        }
        recipe.train = Some(table);
        let mut options = recipe.train_options(defaults)?;
        let Self { steps, ctx, batch, accumulate, rate, recompute, .. } = *self;
        options.steps = steps.unwrap_or(options.steps);
        options.ctx = ctx.unwrap_or(options.ctx);
        options.batch = batch.unwrap_or(options.batch);
        options.accumulate = accumulate.unwrap_or(options.accumulate);
        options.rate = rate.unwrap_or(options.rate);
        options.recompute |= recompute;
        options.check().map_err(Error::Usage)?;
        let table = toml::Table::try_from(&options);
        recipe.train = Some(table.expect("invariant: settings are plain data"));
        Ok(options)
    }
}

/// The texts of `args` in the tokens of `model`.
pub(super) fn read_text(
    args: &TrainArgs,
    model: &Path,
    options: &TrainOptions,
) -> Result<TrainingText> {
    let vocab_size = Model::open(model, ModelOptions::default())?.architecture().vocab_size;
    TrainingText::read(model, &args.text, options.ctx, options.held_out, vocab_size)
}

/// Trains with bars and signals, and prints the report.
pub(super) fn watched(
    common: &Common,
    train: impl FnOnce(Watch<'_>) -> Result<TrainReport>,
) -> Result<(), Failure> {
    let (stop, progress, coding) =
        (stop_flag(common), TrainBar(Bar::new(common)), Display::new(common));
    let report = train(Watch { stop: &stop, progress: &progress, coding: &coding })?;
    drop((progress, coding));
    print(&report, common)
}

/// Shows training on a terminal, and as log lines with `--verbose`.
#[derive(Debug)]
struct TrainBar(Bar);

impl TrainProgress for TrainBar {
    fn begin(&self, stage: &'static str, steps: u64, done: u64) {
        let style = "{prefix:>13} [{bar:30}] {pos}/{len} eta {eta} {msg}";
        let bar = self.0.begin(stage, steps, style);
        bar.set_position(done);
        bar.reset_eta();
    }

    fn step(&self, figures: &str) {
        let bar = self.0.get();
        bar.set_message(figures.to_owned());
        bar.inc(1);
        let position = bar.position();
        bar.suspend(|| tracing::info!("{position}: {figures}"));
    }

    fn say(&self, line: &str) {
        self.0.get().suspend(|| tracing::info!("{line}"));
    }
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    run: &'a TrainReport,
    threads: usize,
    peak_memory: Option<u64>,
}

/// Prints what a run reports.
fn print(run: &TrainReport, common: &Common) -> Result<(), Failure> {
    let peak_memory = peak_resident();
    if common.json {
        let threads = rayon::current_num_threads();
        return print_json(&Report { run, threads, peak_memory });
    }
    let output = match &run.output {
        Some(output) => output.display().to_string(),
        None => "nothing written".to_owned(),
    };
    let (train, held_out) = run.windows;
    let mut text = format!(
        "{output}: {} layers, {} parameters trained\n\
         text       {train} windows of {} tokens, {held_out} held out\n",
        run.layers, run.parameters, run.text.ctx
    );
    // The state that is written may be an earlier one than the last.
    let kept = run.evaluations.iter().find(|e| Some(e.step) == run.kept_step);
    let shown = [run.evaluations.first(), kept.or(run.evaluations.last())];
    for evaluation in shown.into_iter().flatten() {
        text += &format!(
            "held out   step {:>5}: KLD {:.4}, perplexity {:.3}\n",
            evaluation.step, evaluation.kld, evaluation.perplexity
        );
    }
    if let Some(compressed) = &run.compressed {
        let totals = &compressed.totals;
        text += &format!(
            "size       {} -> {} ({:.3} bits per weight; linear layers {:.3})\n",
            human_bytes(totals.source_bytes),
            human_bytes(totals.output_bytes),
            totals.bits_per_weight,
            totals.linear_bits_per_weight,
        );
    }
    text += &format!(
        "time       {:.1} s in all, {:.1} s training, {:.0} tokens/s\n\
         memory     {} peak, {} planned\n",
        run.seconds,
        run.training_seconds,
        run.tokens_per_second,
        peak_memory.map_or("unknown".to_owned(), human_bytes),
        human_bytes(run.planned_peak_memory),
    );
    print_text(&text)
}
