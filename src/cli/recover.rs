//! `compress-model recover`.

use std::path::PathBuf;

use clap::Args;

use super::train_args::{TrainArgs, read_text, watched};
use super::{Common, Failure};
use crate::checkpoint::Checkpoint;
use crate::pipeline::{CompressedFolder, Plan};
use crate::train::{TrainOptions, TrainRequest, recover, with_ranks};

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
    args.train.check_output(&[&args.folder, &args.against])?;
    let mut recipe = with_ranks(&start, args.rank.map(|rank| rank as usize))?;
    recipe.refuse_transform("recover")?;
    // The folder may have been trained before, with settings of its own.
    recipe.train = None;
    let options = args.train.options(&mut recipe, &TrainOptions::of_adapters())?;
    let threads = rayon::current_num_threads();
    let plan = Plan::new(&checkpoint, recipe, args.max_shard_size, threads)?;
    let text = read_text(&args.train, &args.against, &options)?;
    let request = TrainRequest {
        checkpoint: &checkpoint,
        plan: &plan,
        options: &options,
        text: &text,
        output,
        seed: common.seed,
        resume: args.train.resume,
    };
    watched(common, |watch| recover(&request, &start, watch))
}
