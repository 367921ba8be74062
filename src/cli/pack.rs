//! `compress-model pack`.

use std::path::PathBuf;

use clap::Args;

use super::compress::print_run;
use super::progress::Display;
use super::recipe_args::RecipeArgs;
use super::{Common, Failure};
use crate::checkpoint::{Checkpoint, check_output_path};
use crate::error::Error;
use crate::pipeline::Plan;
use crate::train::{Latent, pack};

#[derive(Debug, Args)]
pub(super) struct PackArgs {
    /// Checkpoint folder with the latent weights that another trainer left
    #[arg(long, value_name = "FOLDER")]
    latent: PathBuf,
    /// Safetensors file with the scales that it trained: NAME.scale for each weight NAME, one for
    /// each group, row or matrix; weights without one get their least-squares scales
    #[arg(long, value_name = "FILE")]
    scales: Option<PathBuf>,
    /// Output folder
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Replace the output folder if it is there
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn run(args: &PackArgs, common: &Common) -> Result<(), Failure> {
    let latent = Checkpoint::open(&args.latent)?;
    check_output_path(&args.output, &[&args.latent], args.overwrite)?;
    if latent.config().is_none() {
        let message = "has no config.json; pack takes whole model folders";
        return Err(Error::checkpoint(&args.latent, message).into());
    }
    let scales = args.scales.as_deref().map(Latent::read).transpose()?;
    let threads = rayon::current_num_threads();
    let recipe = args.recipe.recipe(false)?;
    recipe.refuse_transform("pack")?;
    let plan = Plan::new(&latent, recipe, args.recipe.edits.max_shard_size, threads)?;
    let display = Display::new(common);
    let run = pack(&latent, &plan, scales.as_ref(), &args.output, common.seed, &display)?;
    drop(display);
    print_run(run, common)
}
