//! Rotation of the residual stream.

use std::sync::Arc;

use super::Context;
use super::edits::Edits;
use super::factor::Factor;
use super::layers::{readers, writers};
use super::rotation::Rotation;
use crate::error::{Error, Result};
use crate::model::LinearPlan;
use crate::recipe::RotationKind;

const FOLDED: &str = "norm gains folded";
const ROTATED: &str = "residual stream rotated";
const UNTIED: &str = "a head of its own";

/// Rotates what the blocks add to and read from: x·R for x. A root mean square norm without gains
/// commutes with R, so that gains go into the layers behind each norm first.
///
/// # Errors
/// [`Error::Model`] for norms behind a block's outputs, and for a tied head that would need a
/// weight of its own where `untie` does not allow it.
pub(super) fn rotate(
    edits: &mut Edits<'_>,
    context: &Context<'_>,
    kind: RotationKind,
    untie: bool,
) -> Result<()> {
    let Context { architecture, plan, .. } = context;
    if architecture.sandwich_norms {
        let family = &architecture.model_type;
        let message = format!(
            "transform.rotation: {family} norms what blocks add to the residual stream; the gains \
             of those norms cannot be folded away"
        );
        return Err(context.fault(message));
    }
    for block in &plan.blocks {
        for (norm, layers) in readers(block) {
            let gains = context.gains(edits, norm)?;
            fold(edits, context, norm, &gains, &layers);
        }
    }
    let head = head(edits, context, untie)?;
    let seed = context.seed("residual stream");
    let rotation = Factor::Rotate(Arc::new(Rotation::new(kind, architecture.hidden_size, seed)));
    edits.rows(&plan.embedding, &rotation, ROTATED);
    if let Some(head) = head {
        edits.rows(&head, &rotation, ROTATED);
    }
    for block in &plan.blocks {
        for (_, layers) in readers(block) {
            layers.iter().for_each(|layer| edits.input(layer, &rotation, ROTATED));
        }
        for layer in writers(block) {
            edits.output(layer, &rotation, ROTATED);
        }
    }
    Ok(())
}

fn fold(
    edits: &mut Edits<'_>,
    context: &Context<'_>,
    norm: &str,
    gains: &[f64],
    layers: &[&LinearPlan],
) {
    let factor = Factor::Scale(gains.into());
    layers.iter().for_each(|layer| edits.input(layer, &factor, FOLDED));
    context.set_gains(edits, norm, &vec![1.0; gains.len()], FOLDED);
}

/// Folds the gains of the final norm into the head, and gives the head's name if it is not the
/// embedding table's. Equal gains may stay where they are: they commute with a rotation.
fn head(edits: &mut Edits<'_>, context: &Context<'_>, untie: bool) -> Result<Option<String>> {
    let Context { architecture, plan, .. } = context;
    let gains = context.gains(edits, &plan.final_norm)?;
    let own = (plan.head != plan.embedding).then(|| plan.head.clone());
    if gains.iter().all(|gain| *gain == gains[0]) {
        return Ok(own);
    }
    if architecture.tied {
        let table = edits.source(&plan.embedding);
        if !untie {
            let message = format!(
                "transform.rotation: the head is tied to {}, but the final norm's gains differ, \
                 so that it needs a weight of its own: {} weights more; say untie_head = true in \
                 [transform], or leave the rotation out",
                plan.embedding,
                table.elements()
            );
            return Err(Error::Recipe { origin: context.origin(), message });
        }
        if own.is_none() {
            edits.add(context.new_head(), &plan.embedding, UNTIED);
        }
    }
    let head = own.unwrap_or_else(|| context.new_head().to_owned());
    edits.rows(&head, &Factor::Scale(gains.as_slice().into()), FOLDED);
    context.set_gains(edits, &plan.final_norm, &vec![1.0; gains.len()], FOLDED);
    Ok(Some(head))
}
