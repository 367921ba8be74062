//! How much memory a run takes, reckoned before anything is computed.

use compress_model_qat::train::Treatment;

use super::loss::CHUNK_TOKENS;
use super::run::TrainRequest;
use super::subject::Subject;
use crate::checkpoint::Tensor;
use crate::checkpoint::role::Role;
use crate::model::Architecture;
use crate::pipeline::BASE_BYTES;

/// Bytes of an f32, which all numbers in training are.
const F32: u64 = 4;

/// Upper estimate of the resident memory of a run, in bytes: the text, and the larger of training and
/// of the calibration before it, which takes `calibrating` bytes. Training takes both models, gradients
/// and moments of what is trained, what the way back needs of each block, and the logits of some
/// tokens. Where blocks alone are trained, one is there at a time. An eighth is for what the allocator
/// does not give back.
pub(super) fn planned_peak_bytes(
    request: &TrainRequest<'_>,
    architecture: &Architecture,
    subject: Subject,
    calibrating: u64,
) -> u64 {
    let TrainRequest { checkpoint, plan, options, .. } = request;
    // Latent weights or factors as they are trained, their gradients and both moments.
    let average = u64::from(options.scales == Treatment::Report);
    let numbers = match subject {
        Subject::Weights => 4 + average,
        Subject::Adapters => 6,
    };
    let mut trained = subject.count(checkpoint, plan) * numbers * F32;
    let linear = checkpoint.tensors().iter().filter(|tensor| tensor.role == Role::Linear);
    let mut models = 2 * linear.map(Tensor::elements).sum::<u64>() * F32;
    let blocks = architecture.layers.len() as u64;
    if options.only_blocks() {
        (models, trained) = (models.div_ceil(blocks), trained.div_ceil(blocks));
    }
    let logits = architecture.vocab_size * (architecture.hidden_size + CHUNK_TOKENS);
    models += 2 * logits as u64 * F32;
    let tokens = (options.ctx * options.batch) as u64;
    let of_block = activations(architecture, subject) * F32;
    // Last hidden states of both models, and the gradient; one block on its way back besides.
    let last = 3 * architecture.hidden_size as u64 * F32;
    let kept = match (options.only_blocks(), options.recompute) {
        (true, _) => of_block,
        (_, true) => of_block + blocks * architecture.hidden_size as u64 * F32,
        (_, false) => blocks * of_block,
    };
    let bytes = models + trained + tokens * (kept + last + of_block);
    request.text.memory + calibrating.max(BASE_BYTES + bytes + bytes / 8)
}

/// Numbers a token that a block keeps for the way back: what every operation gives.
fn activations(architecture: &Architecture, subject: Subject) -> u64 {
    let Architecture { hidden_size, intermediate_size, heads, kv_heads, head_dim, .. } =
        *architecture;
    let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
    // Two norms, two outputs, two sums; queries and keys before and after they are rotated, values,
    // what attention gives; gate, up, their product.
    let mut numbers = 6 * hidden_size + 3 * queries + 3 * keys + 3 * intermediate_size;
    if subject == Subject::Adapters {
        // What B gives and the sum, for all that linear layers give.
        numbers += 2 * (2 * hidden_size + queries + 2 * keys + 2 * intermediate_size);
    }
    if architecture.sandwich_norms {
        numbers += 2 * hidden_size;
    }
    if architecture.qk_norms {
        numbers += queries + keys;
    }
    numbers as u64
}
