//! Which layers see a window only.

use super::Layer;
use super::families::{FULL_LAYERS, Family, WINDOW_PATTERN};
use super::fields::Fields;

/// Windows and ropes of `count` layers; experts come later.
pub(super) fn layers(
    fields: Fields<'_>,
    family: Family,
    count: usize,
) -> Result<Vec<Layer>, String> {
    let window = window(fields, family)?;
    let slides = sliding(fields, family, count)?;
    let layer = |index: usize| Layer {
        window: window.filter(|_| slides[index]),
        rope: usize::from(family == Family::Gemma3 && slides[index]),
        experts: false,
    };
    Ok((0..count).map(layer).collect())
}

/// The window of layers that slide. Only `sliding_window: null` says that there is none: a key that
/// is absent means the family's own.
fn window(fields: Fields<'_>, family: Family) -> Result<Option<usize>, String> {
    let window = match fields.size("sliding_window")? {
        None if fields.is_null("sliding_window") => None,
        None => family.defaults().window,
        some => some,
    };
    let used = match family {
        Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe => {
            fields.flag("use_sliding_window")?.unwrap_or(false)
        }
        Family::Llama | Family::Mistral | Family::Mixtral | Family::Gemma3 => true,
    };
    Ok(window.filter(|_| used))
}

/// For each layer, whether it slides where there is a window.
fn sliding(fields: Fields<'_>, family: Family, count: usize) -> Result<Vec<bool>, String> {
    let listed = match family {
        Family::Qwen2 | Family::Qwen3 | Family::Gemma3 => fields.list("layer_types")?,
        // Classes without the key: all layers are of one kind.
        Family::Llama => return Ok(vec![false; count]),
        Family::Mistral | Family::Mixtral | Family::Qwen3Moe => return Ok(vec![true; count]),
    };
    if let Some(types) = listed {
        if types.len() != count {
            return Err(format!("layer_types has {} entries for {count} layers", types.len()));
        }
        let kind = |kind: &serde_json::Value| match kind.as_str() {
            Some("full_attention") => Ok(false),
            Some("sliding_attention") => Ok(true),
            _ => Err(format!("layer type {kind} is not supported")),
        };
        return types.iter().map(kind).collect();
    }
    if family == Family::Gemma3 {
        let pattern = fields.size_or("sliding_window_pattern", WINDOW_PATTERN)?;
        return Ok((1..=count).map(|layer| layer % pattern != 0).collect());
    }
    let first = fields.number("max_window_layers")?.unwrap_or(FULL_LAYERS as f64);
    Ok((0..count).map(|layer| layer as f64 >= first).collect())
}
