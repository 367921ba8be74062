//! `compress-model qat`.

use std::path::PathBuf;

use clap::Args;

use super::recipe_args::RecipeEdits;
use super::train_args::{TrainArgs, read_text, watched};
use super::{Common, Failure};
use crate::checkpoint::Checkpoint;
use crate::pipeline::{CompressedFolder, Plan};
use crate::recipe::{Preset, Recipe};
use crate::train::{QatStart, TrainOptions, TrainRequest, qat};

#[derive(Debug, Args)]
pub(super) struct QatArgs {
    /// Checkpoint folder
    model: PathBuf,
    #[command(flatten)]
    train: TrainArgs,
    /// A recipe that ships with the program, in its calibrated variant
    #[arg(long, value_enum, default_value_t = Preset::OnDevice)]
    preset: Preset,
    /// A recipe of your own, TOML; tensors coded with grid2 are trained
    #[arg(long, visible_alias = "config", value_name = "FILE", conflicts_with = "preset")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    edits: RecipeEdits,
    /// A compressed folder of this checkpoint to start from, with its recipe; without one, the
    /// recipe's calibrated solution is computed first
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["preset", "recipe"])]
    start: Option<PathBuf>,
    /// Windows of the text that the calibrated solution is computed on
    #[arg(long, value_name = "N", conflicts_with = "start", default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(1..))]
    calibration_windows: u32,
}

pub(super) fn run(args: &QatArgs, common: &Common) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open(&args.model)?;
    let output = &args.train.output;
    let inputs: Vec<&std::path::Path> =
        [Some(args.model.as_path()), args.start.as_deref()].into_iter().flatten().collect();
    args.train.check_output(&inputs)?;
    let start = args.start.as_deref().map(CompressedFolder::open).transpose()?;
    let mut recipe = match &args.start {
        Some(start) => {
            args.edits.refuse_rules("with --start, whose recipe is kept")?;
            let mut recipe = Recipe::read(&start.join("recipe.toml"))?;
            // It may have been trained before, with settings of its own.
            recipe.train = None;
            recipe
        }
        None => args.edits.put_before(match &args.recipe {
            Some(path) => Recipe::read(path)?,
            None => args.preset.calibrated_recipe(),
        })?,
    };
    recipe.refuse_transform("qat")?;
    let options = args.train.options(&mut recipe, &TrainOptions::default())?;
    let threads = rayon::current_num_threads();
    let plan = Plan::new(&checkpoint, recipe, args.edits.max_shard_size, threads)?;
    let text = read_text(&args.train, &args.model, &options)?;
    let request = TrainRequest {
        checkpoint: &checkpoint,
        plan: &plan,
        options: &options,
        text: &text,
        output,
        seed: common.seed,
        resume: args.train.resume,
    };
    let start = match &start {
        Some(folder) => QatStart::Folder(folder),
        None => QatStart::Calibrated(args.calibration_windows as usize),
    };
    watched(common, |watch| qat(&request, start, watch))
}
