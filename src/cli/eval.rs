//! `compress-model eval`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::network::NetworkArgs;
use super::table::table;
use super::token_bar::TokenBar;
use super::{Common, Failure, human_bytes, print_json, print_text};
use crate::error::Error;
use crate::eval::{
    Comparison, Estimate, EvalOptions, EvalReport, Gates, MethodScores, Share, Spread, TaskScores,
    TaskSet, Text, evaluate,
};
use crate::memory::peak_resident;

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// Folder that compress wrote, or an original checkpoint
    model: PathBuf,
    /// The original checkpoint, to compare with
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// UTF-8 text for perplexity and divergence
    #[arg(short = 'f', long, value_name = "FILE", required_unless_present = "tasks")]
    text: Option<PathBuf>,
    /// Tokens a window; the second half of each is scored
    #[arg(short = 'c', long, value_name = "N", default_value_t = 512)]
    ctx: usize,
    /// Windows from the start of the text [default: all]
    #[arg(long, visible_alias = "chunks", value_name = "N")]
    windows: Option<usize>,
    /// Windows that run through a model at once
    #[arg(short = 'b', long, value_name = "N", default_value = "8")]
    batch: NonZeroUsize,
    /// Multiple-choice questions, a JSON object a line: question, choices, answer
    #[arg(long, value_name = "FILE")]
    tasks: Option<PathBuf>,
    /// Solved examples before each question, from the start of the file
    #[arg(long, value_name = "N", default_value_t = 0, requires = "tasks")]
    shots: usize,
    /// Take the examples from this file
    #[arg(long, value_name = "FILE", requires = "shots")]
    shots_from: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    gates: GateArgs,
}

#[derive(Debug, Args)]
struct GateArgs {
    /// Exit 6 if the mean KLD from the original is larger, in nats
    #[arg(long, value_name = "NATS")]
    max_kld: Option<f64>,
    /// Exit 6 if the perplexity over the original's is larger
    #[arg(long, value_name = "RATIO")]
    max_ppl_ratio: Option<f64>,
    /// Exit 6 if the share of equal most probable tokens is smaller, 0 to 1
    #[arg(long, value_name = "SHARE")]
    min_top1: Option<f64>,
    /// Exit 6 if the accuracy by letter is smaller, 0 to 1
    #[arg(long, value_name = "SHARE")]
    min_accuracy: Option<f64>,
    /// TOML file with these bounds by the flags' names; a flag goes before the file
    #[arg(long, value_name = "FILE")]
    gate: Option<PathBuf>,
}

impl GateArgs {
    fn gates(&self) -> crate::Result<Gates> {
        let flags = Gates {
            max_kld: self.max_kld,
            max_ppl_ratio: self.max_ppl_ratio,
            min_top1: self.min_top1,
            min_accuracy: self.min_accuracy,
        };
        let file = self.gate.as_deref().map(Gates::read).transpose()?;
        Ok(flags.or(file.unwrap_or_default()))
    }
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    found: EvalReport,
    #[serde(flatten)]
    network: NetworkArgs,
    threads: usize,
    peak_memory: Option<u64>,
}

pub(super) fn run(args: &EvalArgs, common: &Common) -> Result<(), Failure> {
    let options = EvalOptions {
        ctx: args.ctx,
        windows: args.windows,
        batch: args.batch.get(),
        gates: args.gates.gates()?,
    };
    // What is wrong with the request should be known before a model is read.
    options.check(args.text.is_some(), args.tasks.is_some(), args.against.is_some())?;
    let text = args.text.as_deref().map(Text::read).transpose()?;
    let tasks = args
        .tasks
        .as_deref()
        .map(|path| TaskSet::read(path, args.shots, args.shots_from.as_deref()))
        .transpose()?;
    let mut model = args.network.open(&args.model)?;
    let mut against =
        args.against.as_deref().map(|folder| args.network.open_original(folder)).transpose()?;
    let bar = TokenBar::new(common);
    let found =
        evaluate(&mut model, against.as_mut(), text.as_ref(), tasks.as_ref(), &options, &bar)?;
    drop(bar);
    if found.same_source == Some(false) {
        tracing::warn!(
            "{} was not compressed from {}: their fingerprints differ",
            args.model.display(),
            args.against.as_deref().unwrap_or(&args.model).display()
        );
    }
    let report = Report {
        found,
        network: args.network,
        threads: rayon::current_num_threads(),
        peak_memory: peak_resident(),
    };
    if common.json {
        print_json(&report)?;
    } else {
        print_text(&render(&report))?;
    }
    let failures: Vec<String> = crate::eval::broken_gates(&report.found.gates);
    if failures.is_empty() { Ok(()) } else { Err(Error::Gate { failures }.into()) }
}

fn render(report: &Report) -> String {
    let found = &report.found;
    let mut text = String::new();
    if let (Some(about), Some(scores)) = (&found.text, &found.scores) {
        text += &format!(
            "{}: {} windows of {} tokens, {} scored\n",
            about.file.display(),
            about.windows,
            found.ctx,
            about.scored_tokens
        );
        text += &format!("perplexity  {}", perplexity(scores.perplexity, scores.ln_perplexity));
        text += &scores.comparison.as_ref().map_or("\n".to_owned(), render_comparison);
    }
    if let Some(tasks) = &found.tasks {
        text += &render_tasks(tasks);
    }
    for verdict in &found.gates {
        text += &format!(
            "gate        {} {}: {:.6}, {}\n",
            verdict.gate,
            verdict.bound,
            verdict.measured,
            if verdict.passed { "passed" } else { "FAILED" }
        );
    }
    let speed =
        found.tokens_per_second.map_or(String::new(), |speed| format!(", {speed:.0} tokens/s"));
    text += &format!(
        "time        {:.1} s{speed} on {} thread{}\nmemory      {} peak\n",
        found.seconds,
        report.threads,
        if report.threads == 1 { "" } else { "s" },
        report.peak_memory.map_or("unknown".to_owned(), human_bytes),
    );
    text
}

fn render_comparison(c: &Comparison) -> String {
    let mut text = format!(
        ", original {}\nratio       {}, ln {}\n",
        perplexity(c.perplexity_against, c.ln_perplexity_against),
        perplexity(c.perplexity_ratio, c.ln_perplexity_ratio),
        plus_minus(c.ln_perplexity_ratio, 5)
    );
    let row = |name: &str, s: &Spread| {
        let mut row = vec![name.to_owned(), format!("{:.5} ± {:.5}", s.mean, s.error)];
        row.extend([s.median, s.p90, s.p95, s.p99, s.max].map(|x| format!("{x:.5}")));
        row
    };
    text += &table(
        &["KLD", "mean", "median", "90 %", "95 %", "99 %", "max"],
        &[1, 2, 3, 4, 5, 6],
        &[row("of original", &c.kld), row("reverse", &c.kld_reverse)],
    );
    let percent = |e: Estimate| format!("{:.3} ± {:.3} %", 100.0 * e.mean, 100.0 * e.error);
    text + &format!(
        "same top    {}, top 5 {}\nchange of p {}, RMS {}\n",
        percent(c.top1),
        percent(c.top5),
        percent(c.probability_change),
        percent(c.probability_change_rms)
    )
}

fn render_tasks(tasks: &TaskScores) -> String {
    let share = |s: Share| {
        let [value, low, high] = [s.value, s.low, s.high].map(|x| 100.0 * x);
        format!("{value:.1} % ({low:.1}-{high:.1})")
    };
    let optional = |s: Option<Share>| s.map_or("-".to_owned(), share);
    let row = |name: &str, m: &MethodScores| {
        vec![
            name.to_owned(),
            share(m.accuracy),
            optional(m.accuracy_against),
            optional(m.agreement),
        ]
    };
    format!(
        "{}: {} questions, {} examples before each\n{}",
        tasks.file.display(),
        tasks.questions,
        tasks.shots,
        table(
            &["answers by", "accuracy", "original", "agreement"],
            &[1, 2, 3],
            &[
                row("letter", &tasks.letter),
                row("text", &tasks.text),
                row("text a byte", &tasks.text_normalised),
            ],
        )
    )
}

/// A perplexity, or its ln where the number itself is too large.
fn perplexity(found: Estimate, ln: Estimate) -> String {
    match found.mean.is_finite() {
        true => plus_minus(found, 4),
        false => format!("over 1e308 (ln {})", plus_minus(ln, 4)),
    }
}

fn plus_minus(e: Estimate, digits: usize) -> String {
    format!("{:.digits$} ± {:.digits$}", e.mean, e.error)
}
