//! `compress-model generate`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::network::NetworkArgs;
use super::{Common, Failure, print_json, print_text};
use crate::error::Result;
use crate::eval::{Generated, Markup, Sampler, Sampling, Stop, TextTokenizer, generate};
use crate::model::{CausalModel, Model, ModelOptions};

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// Folder that compress wrote, or an original checkpoint
    model: PathBuf,
    /// Text to continue; names of special tokens stand for them, no chat template is applied
    #[arg(short, long)]
    prompt: String,
    /// The original checkpoint, to hear what it says
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// Most tokens to add
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// 0 takes the most probable token always
    #[arg(
        long,
        visible_alias = "temp",
        value_name = "T",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    temperature: f64,
    /// Draw from the most probable tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, requires = "temperature")]
    top_p: f64,
    /// Draw from this many of the most probable tokens; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0, requires = "temperature")]
    top_k: usize,
    #[command(flatten)]
    network: NetworkArgs,
}

#[derive(Serialize)]
struct Report {
    prompt: String,
    sampling: Sampling,
    #[serde(flatten)]
    network: NetworkArgs,
    model: Generated,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Generated>,
    /// Tokens from the start that both say alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_alike: Option<usize>,
}

pub(super) fn run(args: &GenerateArgs, common: &Common) -> Result<(), Failure> {
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        seed: common.seed,
    };
    // Refused before a model is read.
    Sampler::new(sampling)?;
    let heading = |name: &str, folder: &Path| {
        if common.json || args.against.is_none() {
            return Ok(());
        }
        print_text(&format!("=== {name}: {}\n", folder.display()))
    };
    heading("model", &args.model)?;
    let model = say(args, &args.model, args.network, sampling, common)?;
    let against = match &args.against {
        Some(folder) => {
            heading("original", folder)?;
            Some(say(args, folder, args.network.of_original(), sampling, common)?)
        }
        None => None,
    };
    let alike = |other: &Generated| {
        model.tokens.iter().zip(&other.tokens).take_while(|(a, b)| a == b).count()
    };
    let tokens_alike = against.as_ref().map(alike);
    if common.json {
        let prompt = args.prompt.clone();
        let network = args.network;
        return print_json(&Report { prompt, sampling, network, model, against, tokens_alike });
    }
    if let Some(alike) = tokens_alike {
        let plural = if alike == 1 { " is" } else { "s are" };
        print_text(&format!("=== the first {alike} token{plural} alike\n"))?;
    }
    Ok(())
}

/// Lets the model of `folder` continue the prompt, streamed to stdout unless JSON is wanted.
fn say(
    args: &GenerateArgs,
    folder: &Path,
    network: NetworkArgs,
    sampling: Sampling,
    common: &Common,
) -> Result<Generated, Failure> {
    let tokenizer = TextTokenizer::open(folder)?;
    let mut prompt: Vec<u32> = tokenizer.bos().into_iter().collect();
    prompt.extend(tokenizer.encode(&args.prompt, Markup::Parsed)?);
    let mut failed = None;
    let model = Model::open(folder, ModelOptions { resident: true, ..network.options() })?;
    let mut sequence = model.start();
    let mut out = io::stdout().lock();
    let mut piece = |text: &str| {
        if common.json {
            return true;
        }
        failed = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
        failed.is_none()
    };
    piece(&args.prompt);
    let mut sampler = Sampler::new(sampling)?;
    let said = generate(
        &mut sequence,
        &tokenizer,
        &prompt,
        args.max_tokens,
        model.max_positions(),
        &mut sampler,
        &mut piece,
    )?;
    piece("\n");
    if let Some(e) = failed {
        return Err(e.into());
    }
    report_speed(&said);
    Ok(said)
}

fn report_speed(said: &Generated) {
    let why = match said.stop {
        Stop::EndOfText => "end of text",
        Stop::MaxTokens => "--max-tokens reached",
        Stop::ContextFull => "context full",
        Stop::Unheard => "nobody listens",
    };
    tracing::info!(
        "{} tokens of prompt in {:.2} s, {} new in {:.2} s ({:.1} tokens/s); {why}",
        said.prompt_tokens,
        said.prompt_seconds,
        said.tokens.len(),
        said.seconds,
        said.tokens.len() as f64 / said.seconds.max(1e-9),
    );
}
