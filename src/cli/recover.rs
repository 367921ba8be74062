//! `compress-model recover`.

use std::path::PathBuf;

use clap::Args;

use super::progress::Display;
use super::train_args::{TrainArgs, TrainBar, print, stop_flag};
use super::{Common, Failure};
use crate::checkpoint::{Checkpoint, check_output_path};
use crate::model::{Model, ModelOptions};
use crate::pipeline::{CompressedFolder, Plan};
use crate::train::{RecoverRequest, TrainOptions, TrainingText, recover, with_ranks};

#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// Compressed folder
    folder: PathBuf,
    /// The checkpoint that it was compressed from
    #[arg(long, value_name = "MODEL")]
    against: PathBuf,
    /// Rank of new adapters for coded linear layers that have none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    rank: Option<u32>,
    #[command(flatten)]
    train: TrainArgs,
    /// Largest size of a weights file
    #[arg(long, value_name = "SIZE", value_parser = super::parse_bytes, default_value = super::DEFAULT_SHARD_SIZE)]
    max_shard_size: u64,
}

pub(super) fn run(args: &RecoverArgs, common: &Common) -> Result<(), Failure> {
    let start = CompressedFolder::open(&args.folder)?;
    let checkpoint = Checkpoint::open(&args.against)?;
    let output = &args.train.output;
    check_output_path(output, &[&args.folder, &args.against], args.train.overwrite)?;
    let mut recipe = with_ranks(&start, args.rank.map(|rank| rank as usize))?;
    recipe.refuse_transform("recover")?;
    // The folder may have been trained before, with settings of its own.
    recipe.train = None;
    let options = args.train.options(&mut recipe, &TrainOptions::of_adapters())?;
    let threads = rayon::current_num_threads();
    let plan = Plan::new(&checkpoint, recipe, args.max_shard_size, threads)?;
    let vocab_size = Model::open(&args.against, ModelOptions::default())?.architecture().vocab_size;
    let text = TrainingText::read(
        &args.against,
        &args.train.text,
        options.ctx,
        options.held_out,
        vocab_size,
    )?;
    let request = RecoverRequest {
        start: &start,
        checkpoint: &checkpoint,
        plan: &plan,
        options: &options,
        text: &text,
        output,
        seed: common.seed,
        resume: args.train.resume,
    };
    let (bar, coding) = (TrainBar::new(common), Display::new(common));
    let report = recover(&request, &stop_flag(), &bar, &coding)?;
    drop((bar, coding));
    print(&report, common)
}
