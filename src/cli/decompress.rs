//! `compress-model decompress`.

use std::path::PathBuf;

use clap::Args;

use super::progress::Display;
use super::stop::stop_flag;
use super::{Common, Failure, human_bytes, print_json, print_text};
use crate::checkpoint::check_output_path;
use crate::pipeline::{AdapterMode, CompressedFolder, DecompressOptions, OutputDtype, decompress};

#[derive(Debug, Args)]
pub(super) struct DecompressArgs {
    /// Folder that compress wrote
    compressed: PathBuf,
    /// Output folder
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Element type of the weights
    #[arg(long, value_enum, default_value_t = OutputDtype::Source)]
    dtype: OutputDtype,
    /// Add the adapters into the weights, or put them in the folder `adapter` for PEFT
    #[arg(long, value_enum, default_value_t = AdapterMode::Merge)]
    adapters: AdapterMode,
    /// Largest size of a weights file
    #[arg(long, value_name = "SIZE", value_parser = super::parse_bytes, default_value = super::DEFAULT_SHARD_SIZE)]
    max_shard_size: u64,
    /// Replace the output folder if it is there
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn run(args: &DecompressArgs, common: &Common) -> Result<(), Failure> {
    let input = CompressedFolder::open(&args.compressed)?;
    check_output_path(&args.output, &[&args.compressed], args.overwrite)?;
    let options = DecompressOptions {
        dtype: args.dtype,
        adapters: args.adapters,
        max_shard_bytes: args.max_shard_size,
    };
    let display = Display::stoppable(common, stop_flag(common));
    let report = decompress(&input, &args.output, options, &display)?;
    drop(display);
    if common.json {
        return print_json(&report);
    }
    print_text(&format!(
        "{}: {} tensors, {}, {} adapters merged\n",
        report.output.display(),
        report.tensors,
        human_bytes(report.bytes),
        report.adapters_merged
    ))
}
