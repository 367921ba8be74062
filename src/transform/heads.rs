//! Rotation of values within each head.

use std::sync::Arc;

use super::Context;
use super::edits::Edits;
use super::factor::Factor;
use super::rotation::Rotation;
use crate::recipe::RotationKind;

const ROTATED: &str = "values of heads rotated";

/// Rotates the values of every head of a block by one matrix, and the columns of the output
/// projection with them. Attention mixes values of one head over tokens, which commutes with it;
/// query heads that share a value head read the same rotated values.
pub(super) fn rotate(edits: &mut Edits<'_>, context: &Context<'_>, kind: RotationKind) {
    for block in &context.plan.blocks {
        let seed = context.seed(&format!("{} values", block.name));
        let rotation = Rotation::new(kind, context.architecture.head_dim, seed);
        let factor = Factor::Rotate(Arc::new(rotation));
        edits.output(&block.value, &factor, ROTATED);
        edits.input(&block.output, &factor, ROTATED);
    }
}
