//! How much memory solving takes.

use compress_model_feedback::{Factor, Gram};

use crate::checkpoint::Checkpoint;
use crate::checkpoint::role::Role;
use crate::pipeline::{Fate, Plan};

/// Layers of a site that are solved at the same time, at most.
const SIDE_BY_SIDE: u64 = 3;

/// Copies of a matrix as f32 while it is solved: weights, target, residual, what the codes decode
/// to, twice in the panels, the image of the error, and what comes back.
const MATRIX_COPIES: u64 = 8;

/// Upper estimate for the layers of `plan`: the largest matrices with their copies, and the sums,
/// the Hessian and the factor of the widest input.
pub(super) fn layers(checkpoint: &Checkpoint, plan: &Plan) -> u64 {
    let (mut largest, mut widest, mut stack) = (0, 0, 0);
    for planned in plan.tensors.iter().filter(|t| matches!(t.fate, Fate::Coded { .. })) {
        let tensor = &checkpoint.tensors()[planned.source];
        let Some((matrices, rows, cols)) = tensor.as_matrices() else { continue };
        if matrices > 1 {
            stack = stack.max(planned.output_bytes());
        }
        // Embeddings and heads stand alone at their sites.
        let beside = if tensor.role == Role::Linear { SIDE_BY_SIDE } else { 1 };
        largest = largest.max(beside * (rows * cols) as u64);
        widest = widest.max(cols);
    }
    let square = (widest * widest * size_of::<f32>()) as u64;
    // Two sums in f64, their means, H as given and as damped, and the factor.
    let sums = 2 * Gram::bytes(widest) + 4 * square + Factor::bytes(widest);
    // The codes of both stacks of a block wait for the last expert, and are put together then.
    MATRIX_COPIES * 4 * largest + sums + 3 * stack
}
