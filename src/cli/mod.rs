//! The command line: one file a subcommand. Results go to stdout, everything else to stderr.

mod bar;
#[cfg(feature = "model")]
mod calibrate;
mod compress;
mod decompress;
#[cfg(feature = "model")]
mod eval;
mod export;
#[cfg(feature = "model")]
mod generate;
mod generate_docs;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod gpu_info;
mod inspect;
#[cfg(feature = "model")]
mod network;
#[cfg(feature = "model")]
mod pack;
mod plan;
mod progress;
#[cfg(feature = "model")]
mod qat;
mod recipe_args;
#[cfg(feature = "model")]
mod recover;
mod stderr;
mod stop;
mod table;
#[cfg(feature = "model")]
mod token_bar;
#[cfg(feature = "model")]
mod train_args;
mod units;
mod verify;
mod view;

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use stderr::Stderr;

use crate::build;
use crate::error::{Error, Result};

/// Largest weights file unless asked otherwise, as Hugging Face and MLX have it.
const DEFAULT_SHARD_SIZE: &str = "5GB";

/// Exit code for a failure that no error type describes.
const UNEXPECTED: u8 = 1;

/// Compress Hugging Face checkpoints: 2-bit weights for devices, ASTC textures for servers.
///
/// Exit codes: 0 ok, 1 unexpected, 2 usage or recipe, 3 invalid or unsupported input, 4 I/O,
/// 5 out of memory, 6 verification or accuracy gate failed, 75 stopped safely: run again with
/// --resume.
#[derive(Debug, Parser)]
#[command(name = "compress-model", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

/// Flags of every subcommand.
#[derive(Debug, Args)]
struct Common {
    /// Print the result as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Threads to use [default: all cores]
    #[arg(short = 't', long, global = true, value_name = "N", env = "COMPRESS_MODEL_THREADS",
        value_parser = parse_threads)]
    threads: Option<NonZeroUsize>,
    /// Seed of everything random; the same seed gives the same bytes
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Say what is going on; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How messages on stderr are written
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// No progress and no warnings
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Whether the process was started to outlive its terminal.
    #[arg(skip)]
    ignores_hangup: bool,
}

impl Common {
    /// Says on stderr why the command ends with `code`.
    fn fail(&self, why: &dyn std::fmt::Display, code: u8) {
        let line = match self.log_format {
            LogFormat::Text => format!("compress-model: error: {why}"),
            LogFormat::Json => serde_json::json!({
                "level": "ERROR", "message": why.to_string(), "exit_code": code
            })
            .to_string(),
        };
        let _ = writeln!(Stderr, "{line}");
    }
}

/// How messages on stderr are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the tensors of a checkpoint
    Inspect(inspect::InspectArgs),
    /// Show what each tensor would become, and write nothing
    Plan(plan::PlanArgs),
    /// Compress a checkpoint into an output folder
    Compress(compress::CompressArgs),
    /// Do one unit of a compression that `plan --units` cut for many machines
    Work(units::WorkArgs),
    /// Merge the pieces of all units into an output folder
    Merge(units::MergeArgs),
    /// Collect what the linear layers of a model see while it reads a text
    #[cfg(feature = "model")]
    Calibrate(calibrate::CalibrateArgs),
    /// Train the weights of a checkpoint on the 2-bit grid, and compress it
    #[cfg(feature = "model")]
    Qat(qat::QatArgs),
    /// Train the adapters of a compressed folder
    #[cfg(feature = "model")]
    Recover(recover::RecoverArgs),
    /// Compress latent weights that another trainer left, with the scales that it trained
    #[cfg(feature = "model")]
    Pack(pack::PackArgs),
    /// Turn an output folder back into a plain checkpoint
    Decompress(decompress::DecompressArgs),
    /// Check an output folder: files, hashes, manifest, SQNR
    Verify(verify::VerifyArgs),
    /// Measure a model: perplexity, divergence from the original, answers to questions
    #[cfg(feature = "model")]
    Eval(eval::EvalArgs),
    /// Continue a prompt
    #[cfg(feature = "model")]
    Generate(generate::GenerateArgs),
    /// List the GPUs of this machine and how each decodes which texture codec
    #[cfg(feature = "gpu")]
    GpuInfo(gpu_info::GpuInfoArgs),
    /// Write the model, its textures or its adapters for other programs
    Export(export::ExportArgs),
    /// Print shell completions
    Completions(generate_docs::CompletionsArgs),
    /// Write manual pages
    Man(generate_docs::ManArgs),
    /// Write a web page that shows texture-coded weights and their blocks
    View(view::ViewArgs),
}

/// Runs the command with the process's arguments and returns its exit code. `ignores_hangup` says
/// whether the process was started to outlive its terminal; else SIGHUP stops a run as SIGTERM does.
#[must_use]
pub fn main(ignores_hangup: bool) -> u8 {
    if asks_for_build(std::env::args_os().skip(1)) {
        let _ = print_text(&build::describe());
        return 0;
    }
    let cli = match Cli::try_parse() {
        Ok(mut cli) => {
            cli.common.ignores_hangup = ignores_hangup;
            cli
        }
        Err(e) => {
            let _ = e.print();
            return u8::try_from(e.exit_code()).unwrap_or(UNEXPECTED);
        }
    };
    start_logging(&cli.common);
    match run(&cli) {
        Ok(()) => 0,
        Err(Failure::Library(e)) => {
            cli.common.fail(&e, e.exit_code());
            e.exit_code()
        }
        // The reader of our output has gone: not a failure of ours.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(Failure::Output(e)) => {
            cli.common.fail(&format!("cannot write to stdout: {e}"), 4);
            4
        }
        Err(Failure::Pool(e)) => {
            cli.common.fail(&format!("cannot start threads: {e}"), UNEXPECTED);
            UNEXPECTED
        }
    }
}

/// Whether the arguments are `--version --verbose`, in any order and form.
fn asks_for_build(args: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let (mut version, mut verbose) = (false, false);
    for arg in args {
        match arg.to_str() {
            Some("--version" | "-V") => version = true,
            Some("--verbose" | "-v") => verbose = true,
            Some("-vV" | "-Vv") => (version, verbose) = (true, true),
            _ => return false,
        }
    }
    version && verbose
}

/// Why a subcommand stopped.
#[derive(Debug)]
enum Failure {
    Library(Error),
    Output(io::Error),
    Pool(rayon::ThreadPoolBuildError),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Library(e)
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}

fn run(cli: &Cli) -> std::result::Result<(), Failure> {
    let threads = cli.common.threads.map_or(0, bounded_threads);
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(Failure::Pool)?;
    pool.install(|| match &cli.command {
        Command::Inspect(args) => inspect::run(args, &cli.common),
        Command::Plan(args) => plan::run(args, &cli.common),
        Command::Work(args) => units::work(args, &cli.common),
        Command::Merge(args) => units::merge(args, &cli.common),
        Command::Compress(args) => compress::run(args, &cli.common),
        #[cfg(feature = "model")]
        Command::Calibrate(args) => calibrate::run(args, &cli.common),
        #[cfg(feature = "model")]
        Command::Qat(args) => qat::run(args, &cli.common),
        #[cfg(feature = "model")]
        Command::Recover(args) => recover::run(args, &cli.common),
        #[cfg(feature = "model")]
        Command::Pack(args) => pack::run(args, &cli.common),
        Command::Decompress(args) => decompress::run(args, &cli.common),
        Command::Verify(args) => verify::run(args, &cli.common),
        #[cfg(feature = "model")]
        Command::Eval(args) => eval::run(args, &cli.common),
        #[cfg(feature = "model")]
        Command::Generate(args) => generate::run(args, &cli.common),
        #[cfg(feature = "gpu")]
        Command::GpuInfo(args) => gpu_info::run(args, &cli.common),
        Command::Export(args) => export::run(args, &cli.common),
        Command::Completions(args) => generate_docs::completions(args),
        Command::Man(args) => generate_docs::man(args),
        Command::View(args) => view::run(args, &cli.common),
    })
}

/// The threads to start where `asked` are asked for: more than some a core only take memory.
fn bounded_threads(asked: NonZeroUsize) -> usize {
    const PER_CORE: usize = 4;
    const ALWAYS: usize = 64;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let most = (PER_CORE * cores).max(ALWAYS);
    if asked.get() > most {
        tracing::warn!("--threads {asked}: {most} are started; this machine has {cores} cores");
    }
    asked.get().min(most)
}

/// Parses a number of threads.
fn parse_threads(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "must be a whole number, 1 or more".to_owned())
}

/// Logs go to stderr; `RUST_LOG` overrides the flags.
fn start_logging(common: &Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let mut filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    if !common.quiet && level == LevelFilter::WARN {
        let minutes = format!("{}=info", bar::TARGET);
        filter = filter.add_directive(minutes.parse().expect("invariant: a target and a level"));
    }
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log =
        tracing_subscriber::fmt().with_ansi(colours).with_env_filter(filter).with_writer(|| Stderr);
    match common.log_format {
        LogFormat::Text => log.without_time().with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Prints `value` as JSON on stdout.
fn print_json(value: &impl Serialize) -> std::result::Result<(), Failure> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Prints `text` on stdout.
fn print_text(text: &str) -> std::result::Result<(), Failure> {
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// Bytes for people: `1.21 GB`.
fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.3} {}", UNITS[unit]) }
}

/// dB for people.
fn human_db(db: Option<f64>) -> String {
    db.map_or("exact".to_owned(), |db| format!("{db:.2} dB"))
}

/// Parses `5GB`, `5G`, `300 mb`, `1GiB` or a number of bytes.
fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] =
        [("k", 1_000), ("m", 1_000_000), ("g", 1_000_000_000), ("t", 1_000_000_000_000)];
    const BINARY: [(&str, u64); 4] =
        [("ki", 1 << 10), ("mi", 1 << 20), ("gi", 1 << 30), ("ti", 1 << 40)];
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, unit) = BINARY
        .iter()
        .chain(&UNITS)
        .find_map(|(name, unit)| Some((bare.strip_suffix(name)?, *unit)))
        .unwrap_or((bare, 1));
    let wrong = || "must be a size such as 5GB, 300MB, 1.5GiB or a number of bytes".to_owned();
    let bytes = number.trim().parse::<f64>().map_err(|_| wrong())? * unit as f64;
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("5GB"), Ok(5_000_000_000));
        assert_eq!(parse_bytes("1.5 MiB"), Ok(1_572_864));
        for two in ["2GB", "2G", "2gb", "2 g", "2000MB", "2000000000", "2000000000b"] {
            assert_eq!(parse_bytes(two), Ok(2_000_000_000), "{two}");
        }
        assert_eq!(parse_bytes("1Ti"), Ok(1 << 40));
        assert_eq!(parse_bytes("70"), Ok(70));
        for bad in ["", "GB", "-1GB", "0", "1e30TB", "5XB", "nan", "inf", "5.5.5G"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(human_bytes(999), "999 B");
        assert_eq!(human_bytes(999_999), "1.000 MB");
        assert_eq!(human_bytes(269_060_552), "269.061 MB");
    }
}
