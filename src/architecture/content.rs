//! What a stored tensor holds of a model: one weight, or the experts of a layer stacked.

use super::{Architecture, Family};

/// Where the text model starts inside multimodal ones, as the Hub has them and as transformers 5
/// writes them.
const INSIDE: [&str; 2] = ["language_model.model.", "model.language_model."];

/// Parts of multimodal models that are not the text model.
const TOWERS: [&str; 4] = [
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
];

/// A projection of an expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Projection {
    Gate,
    Up,
    Down,
}

/// What a tensor holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// The weight of this name in a model of its own.
    One(String),
    /// A projection of one expert.
    Expert { layer: usize, expert: usize, projection: Projection },
    /// These projections of all experts, one expert after the other.
    Stack { layer: usize, projections: &'static [Projection] },
}

impl Architecture {
    /// What tensor `name` holds; `None` for one that stands outside the text model.
    pub(crate) fn content(&self, name: &str) -> Option<Content> {
        if TOWERS.iter().any(|tower| name.starts_with(tower)) {
            return None;
        }
        let plain = match INSIDE.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            Some(rest) => format!("model.{rest}"),
            None => name.strip_prefix("language_model.").unwrap_or(name).to_owned(),
        };
        Some(self.of_experts(&plain).unwrap_or(Content::One(plain)))
    }

    fn of_experts(&self, name: &str) -> Option<Content> {
        self.experts?;
        let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let layer = layer.parse().ok()?;
        let (module, parts) = self.expert_names();
        // Modules of transformers 5 have one name for the experts of every family.
        match part {
            "mlp.experts.gate_up_proj" => {
                let projections = &[Projection::Gate, Projection::Up];
                return Some(Content::Stack { layer, projections });
            }
            "mlp.experts.down_proj" => {
                return Some(Content::Stack { layer, projections: &[Projection::Down] });
            }
            "mlp.gate.weight" if self.family() == Family::Mixtral => {
                return Some(Content::One(format!("model.layers.{layer}.{module}.gate.weight")));
            }
            _ => {}
        }
        let rest = part.strip_prefix(module)?.strip_prefix(".experts.")?;
        let (expert, rest) = rest.split_once('.')?;
        let place = parts.iter().position(|part| rest.strip_suffix(".weight") == Some(part))?;
        let projection = [Projection::Gate, Projection::Up, Projection::Down][place];
        Some(Content::Expert { layer, expert: expert.parse().ok()?, projection })
    }

    /// Names and shapes, as [`Self::tensors`] has them, of the weights in `content` whose tensor has
    /// `shape`.
    pub(crate) fn weights_in(
        &self,
        content: &Content,
        shape: &[usize],
    ) -> Vec<(String, Vec<usize>)> {
        let (module, parts) = self.expert_names();
        let name = |layer: usize, expert: usize, projection: Projection| {
            let part = parts[projection as usize];
            format!("model.layers.{layer}.{module}.experts.{expert}.{part}.weight")
        };
        match (content, shape) {
            (Content::One(name), _) => vec![(name.clone(), shape.to_vec())],
            (&Content::Expert { layer, expert, projection }, _) => {
                vec![(name(layer, expert, projection), shape.to_vec())]
            }
            (&Content::Stack { layer, projections }, &[experts, rows, cols])
                if rows.is_multiple_of(projections.len()) =>
            {
                let shape = vec![rows / projections.len(), cols];
                let of = |expert| projections.iter().map(move |&projection| (expert, projection));
                (0..experts)
                    .flat_map(of)
                    .map(|(expert, projection)| (name(layer, expert, projection), shape.clone()))
                    .collect()
            }
            // No stack of matrices: nothing that is wanted has this name.
            (&Content::Stack { layer, projections }, _) => {
                vec![(name(layer, usize::MAX, projections[0]), shape.to_vec())]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn experts_and_prefixes() {
        let of = |model_type: &str, name: &str| {
            let config = json!({ "model_type": model_type, "num_hidden_layers": 1 });
            Architecture::parse(&config).unwrap().content(name)
        };
        let one = |name: &str| Some(Content::One(name.to_owned()));
        for name in ["model.language_model.norm.weight", "language_model.model.norm.weight"] {
            assert_eq!(of("gemma3", name), one("model.norm.weight"));
        }
        assert_eq!(of("gemma3", "language_model.lm_head.weight"), one("lm_head.weight"));
        assert_eq!(of("gemma3", "model.vision_tower.a.weight"), None);
        let expert = |projection| Some(Content::Expert { layer: 3, expert: 7, projection });
        let mixtral = "model.layers.3.block_sparse_moe.experts.7.w2.weight";
        assert_eq!(of("mixtral", mixtral), expert(Projection::Down));
        let qwen = "model.layers.3.mlp.experts.7.up_proj.weight";
        assert_eq!(of("qwen3_moe", qwen), expert(Projection::Up));
        assert_eq!(of("llama", qwen), one(qwen));
        let stack = "model.layers.3.mlp.experts.gate_up_proj";
        let projections = &[Projection::Gate, Projection::Up];
        assert_eq!(of("mixtral", stack), Some(Content::Stack { layer: 3, projections }));
        let router = of("mixtral", "model.layers.3.mlp.gate.weight");
        assert_eq!(router, one("model.layers.3.block_sparse_moe.gate.weight"));
    }
}
