//! `compress-model export`.

use std::path::PathBuf;

use clap::Args;
use regex::Regex;

use super::progress::Display;
use super::{Common, Failure, human_bytes, print_json, print_text};
use crate::checkpoint::check_output_path;
use crate::error::Error;
use crate::export::{ExportOptions, FileFormat, export, is_export};
use crate::pipeline::CompressedFolder;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Folder that compress wrote
    compressed: PathBuf,
    /// Kind of the files
    #[arg(long, value_enum)]
    format: FileFormat,
    /// Output folder
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Only tensors whose name matches; may be repeated
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    tensor: Vec<Regex>,
    /// Largest side of a texture; larger matrices become tiles in the layers of an array
    #[arg(long, value_name = "TEXELS", default_value_t = 16384,
        value_parser = clap::value_parser!(u32).range(12..1 << 24))]
    max_dimension: u32,
    /// Replace the output folder if it holds an export
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn run(args: &ExportArgs, common: &Common) -> Result<(), Failure> {
    let input = CompressedFolder::open(&args.compressed)?;
    match check_output_path(&args.output, &[&args.compressed], false) {
        Err(Error::OutputExists { .. }) if args.overwrite => {
            if !is_export(&args.output) {
                let message = "is no export; --overwrite will not remove it";
                return Err(Error::Usage(format!("{}: {message}", args.output.display())).into());
            }
        }
        checked => checked?,
    }
    let options = ExportOptions {
        format: args.format,
        tensors: args.tensor.clone(),
        max_dimension: args.max_dimension,
    };
    let display = Display::new(common);
    let report = export(&input, &args.output, &options, &display)?;
    drop(display);
    if common.json {
        return print_json(&report);
    }
    print_text(&format!(
        "{}: {} tensors, {}; {} left out\n",
        report.output.display(),
        report.exported,
        human_bytes(report.bytes),
        report.left_out
    ))
}
