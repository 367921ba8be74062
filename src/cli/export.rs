//! `compress-model export`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use regex::Regex;

use super::progress::Display;
use super::stop::stop_flag;
use super::{Common, Failure, human_bytes, print_json, print_text};
use crate::checkpoint::check_output_path;
use crate::error::{Error, Result};
use crate::export::{
    AdapterReport, ExportOptions, FileFormat, GgufDtype, GgufOptions, MlxOptions, export,
    export_gguf, export_gguf_adapters, export_mlx, export_mlx_adapters, is_export, is_mlx_adapter,
};
use crate::gguf;
use crate::pipeline::{AdapterMode, CompressedFolder, OutputDtype};
use crate::recipe::compile;

/// Largest side of a texture unless asked otherwise: what desktop GPUs take.
const MAX_DIMENSION: u32 = 16384;

/// Largest weights file unless asked otherwise, as MLX has it.
const MAX_SHARD_BYTES: u64 = 5_000_000_000;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Folder that compress wrote
    compressed: PathBuf,
    /// What to write
    #[arg(long, value_enum)]
    format: Format,
    /// Output folder; with gguf and gguf-adapter, output file
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Replace the output if it is an export of the same kind
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    textures: TextureArgs,
    #[command(flatten)]
    models: ModelArgs,
}

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Textures as KTX 2.0, with scales and shape in their key/value data
    Ktx2,
    /// Textures as ARM's .astc, with the scales in a .npy file beside each
    Astc,
    /// A model folder for mlx-lm
    Mlx,
    /// A model file for llama.cpp
    Gguf,
    /// The adapters alone as a folder for mlx-lm
    MlxAdapter,
    /// The adapters alone as a file for llama.cpp
    GgufAdapter,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Textures")]
struct TextureArgs {
    /// Only tensors whose name matches; may be repeated
    #[arg(long, value_name = "REGEX", value_parser = compile)]
    tensor: Vec<Regex>,
    /// Largest side of a texture; larger matrices become tiles in the layers of an array [default: 16384]
    #[arg(long, value_name = "TEXELS", value_parser = clap::value_parser!(u32).range(12..1 << 24))]
    max_dimension: Option<u32>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Models")]
struct ModelArgs {
    /// Refuse if any weight would change; without it, what is lost is reported
    #[arg(long)]
    exact: bool,
    /// Type of decoded weights, and of MLX's scales [default: f16; with --exact: f32]
    #[arg(long, value_enum)]
    dtype: Option<ModelDtype>,
    /// Add adapters into their weights, which are decoded then, or leave them out [default: merge]
    #[arg(long, value_enum)]
    adapters: Option<Adapters>,
    /// Largest size of a weights file of an MLX folder [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = super::parse_bytes)]
    max_shard_size: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Adapters {
    /// Added into their weights.
    Merge,
    /// Left out; the formats mlx-adapter and gguf-adapter write them.
    Separate,
}

impl From<Adapters> for AdapterMode {
    fn from(adapters: Adapters) -> Self {
        match adapters {
            Adapters::Merge => Self::Merge,
            Adapters::Separate => Self::Separate,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModelDtype {
    /// fp16.
    #[value(alias = "float16", alias = "fp16")]
    F16,
    /// bf16.
    #[value(alias = "bfloat16")]
    Bf16,
    /// fp32.
    #[value(alias = "float32", alias = "fp32")]
    F32,
    /// GGUF only: 8 bits and a scale for each 32 weights.
    #[value(name = "q8_0")]
    Q8_0,
}

impl ModelArgs {
    fn dtype(&self) -> ModelDtype {
        self.dtype.unwrap_or(if self.exact { ModelDtype::F32 } else { ModelDtype::F16 })
    }

    fn adapters(&self) -> AdapterMode {
        self.adapters.unwrap_or(Adapters::Merge).into()
    }
}

/// Refuses flags that say nothing to the format.
fn check_flags(args: &ExportArgs) -> Result<()> {
    let (textures, models) = (&args.textures, &args.models);
    let is_texture = matches!(args.format, Format::Ktx2 | Format::Astc);
    let is_model = matches!(args.format, Format::Mlx | Format::Gguf);
    let given = [
        ("--tensor", !textures.tensor.is_empty(), is_texture),
        ("--max-dimension", textures.max_dimension.is_some(), is_texture),
        ("--exact", models.exact, is_model),
        ("--dtype", models.dtype.is_some(), is_model),
        ("--adapters", models.adapters.is_some(), is_model),
        ("--max-shard-size", models.max_shard_size.is_some(), args.format == Format::Mlx),
    ];
    match given.iter().find(|(_, given, applies)| *given && !applies) {
        None => Ok(()),
        Some((flag, ..)) => {
            let format = args.format.to_possible_value();
            let format = format.as_ref().map_or("this", |value| value.get_name());
            Err(Error::Usage(format!("{flag} has no meaning for --format {format}")))
        }
    }
}

pub(super) fn run(args: &ExportArgs, common: &Common) -> Result<(), Failure> {
    check_flags(args)?;
    let input = CompressedFolder::open(&args.compressed)?;
    check_output(args)?;
    match args.format {
        Format::Ktx2 => run_textures(&input, args, FileFormat::Ktx2, common),
        Format::Astc => run_textures(&input, args, FileFormat::Astc, common),
        Format::Mlx => run_mlx(&input, args, common),
        Format::Gguf => run_gguf(&input, args, common),
        Format::MlxAdapter => print_adapters(&export_mlx_adapters(&input, &args.output)?, common),
        Format::GgufAdapter => print_adapters(&export_gguf_adapters(&input, &args.output)?, common),
    }
}

fn check_output(args: &ExportArgs) -> Result<()> {
    let inputs: [&Path; 1] = [&args.compressed];
    if args.format == Format::Mlx {
        return check_output_path(&args.output, &inputs, args.overwrite);
    }
    match check_output_path(&args.output, &inputs, false) {
        Err(Error::OutputExists { .. }) if args.overwrite => {
            let same_kind = match args.format {
                Format::Gguf | Format::GgufAdapter => gguf::is_gguf(&args.output),
                Format::MlxAdapter => is_mlx_adapter(&args.output),
                _ => is_export(&args.output),
            };
            if same_kind {
                return Ok(());
            }
            let message = "is no export of the same kind; --overwrite will not remove it";
            Err(Error::Usage(format!("{}: {message}", args.output.display())))
        }
        checked => checked,
    }
}

fn print_adapters(report: &AdapterReport, common: &Common) -> Result<(), Failure> {
    if common.json {
        return print_json(report);
    }
    print_text(&format!(
        "{}: {} adapters of rank {} at most\n",
        report.output.display(),
        report.adapters,
        report.rank
    ))
}

fn run_textures(
    input: &CompressedFolder,
    args: &ExportArgs,
    format: FileFormat,
    common: &Common,
) -> Result<(), Failure> {
    let options = ExportOptions {
        format,
        tensors: args.textures.tensor.clone(),
        max_dimension: args.textures.max_dimension.unwrap_or(MAX_DIMENSION),
    };
    let display = Display::stoppable(common, stop_flag(common));
    let report = export(input, &args.output, &options, &display)?;
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

fn run_mlx(input: &CompressedFolder, args: &ExportArgs, common: &Common) -> Result<(), Failure> {
    let dtype = match args.models.dtype() {
        ModelDtype::F16 => OutputDtype::F16,
        ModelDtype::Bf16 => OutputDtype::Bf16,
        ModelDtype::F32 => OutputDtype::F32,
        ModelDtype::Q8_0 => {
            return Err(Error::Usage("--dtype q8_0 is a type of GGUF".to_owned()).into());
        }
    };
    let options = MlxOptions {
        dtype,
        adapters: args.models.adapters(),
        exact: args.models.exact,
        max_shard_bytes: args.models.max_shard_size.unwrap_or(MAX_SHARD_BYTES),
    };
    let display = Display::stoppable(common, stop_flag(common));
    let report = export_mlx(input, &args.output, options, &display)?;
    drop(display);
    if common.json {
        return print_json(&report);
    }
    print_text(&format!(
        "{}: {} weights coded, {} tensors plain, {}\nweights    {}\n",
        report.output.display(),
        report.coded,
        report.plain,
        human_bytes(report.bytes),
        report.precision.describe()
    ))
}

fn run_gguf(input: &CompressedFolder, args: &ExportArgs, common: &Common) -> Result<(), Failure> {
    let dtype = match args.models.dtype() {
        ModelDtype::F16 => GgufDtype::F16,
        ModelDtype::Bf16 => GgufDtype::Bf16,
        ModelDtype::F32 => GgufDtype::F32,
        ModelDtype::Q8_0 => GgufDtype::Q8_0,
    };
    let options = GgufOptions { dtype, adapters: args.models.adapters(), exact: args.models.exact };
    let display = Display::stoppable(common, stop_flag(common));
    let report = export_gguf(input, &args.output, options, &display)?;
    drop(display);
    if common.json {
        return print_json(&report);
    }
    let types: Vec<String> =
        report.types.iter().map(|(name, count)| format!("{count} {name}")).collect();
    print_text(&format!(
        "{}: {}, {}\nweights    {}\n",
        report.output.display(),
        types.join(", "),
        human_bytes(report.bytes),
        report.precision.describe()
    ))
}
