//! The `compress-model` command: exit codes and nothing else; the subcommands are in
//! `compress_model::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(compress_model::cli::main())
}
