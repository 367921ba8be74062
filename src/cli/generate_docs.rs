//! `compress-model completions` and `compress-model man`: what packages install beside the program.

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure};
use crate::error::IoContext;

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "compress-model", &mut text);
    Ok(io::Write::write_all(&mut io::stdout().lock(), &text)?)
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Folder for the pages, one for the command and one for each subcommand
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.output).at("create", &args.output)?;
    clap_mangen::generate_to(Cli::command(), &args.output).at("write to", &args.output)?;
    Ok(())
}
