//! What a tensor does in the model, told from its name and shape.
//!
//! Recipes match on roles so that one preset serves every architecture; a `match` expression on
//! the name overrides it where the guess is wrong.

use serde::{Deserialize, Serialize};

/// Part that a tensor plays in a transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Token embedding table, [vocabulary, hidden].
    Embedding,
    /// Output projection to the vocabulary.
    Head,
    /// Weight of a linear layer, [out, in].
    Linear,
    /// Stacked expert weights, [experts, out, in].
    Experts,
    /// Projection that picks experts.
    Router,
    /// Position or segment embedding table.
    Position,
    /// Normalisation gain or offset.
    Norm,
    /// Bias of a linear layer.
    Bias,
    /// Anything else.
    Other,
}

impl Role {
    /// The role's name in recipes and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Head => "head",
            Self::Linear => "linear",
            Self::Experts => "experts",
            Self::Router => "router",
            Self::Position => "position",
            Self::Norm => "norm",
            Self::Bias => "bias",
            Self::Other => "other",
        }
    }

    /// Tells the role of tensor `name` of dimensions `shape`.
    #[must_use]
    pub fn of(name: &str, shape: &[usize]) -> Self {
        let parts: Vec<&str> = name.split('.').collect();
        let last = parts.last().copied().unwrap_or_default();
        let module = if last == "weight" || last == "bias" {
            parts.iter().rev().nth(1).copied().unwrap_or_default()
        } else {
            last
        };
        let is_norm = {
            let module = module.to_ascii_lowercase();
            module.contains("norm")
                || module.starts_with("ln_")
                || last == "gamma"
                || last == "beta"
        };
        match shape.len() {
            1 if is_norm => Self::Norm,
            1 if last == "bias" => Self::Bias,
            2 if is_norm => Self::Norm,
            2 if is_token_embedding(module) => Self::Embedding,
            2 if is_position_embedding(module) => Self::Position,
            2 if matches!(module, "lm_head" | "embed_out") || name == "output.weight" => Self::Head,
            2 if is_router(module) => Self::Router,
            2 if last == "weight" || name.contains("experts") => Self::Linear,
            3 if name.contains("experts") => Self::Experts,
            _ => Self::Other,
        }
    }
}

fn is_token_embedding(module: &str) -> bool {
    matches!(
        module,
        "embed_tokens" | "wte" | "word_embeddings" | "tok_embeddings" | "embed_in" | "shared"
    )
}

fn is_position_embedding(module: &str) -> bool {
    matches!(
        module,
        "position_embeddings"
            | "token_type_embeddings"
            | "wpe"
            | "embed_positions"
            | "relative_attention_bias"
    )
}

/// `gate` is a router; the gated MLP's own projection is called `gate_proj`.
fn is_router(module: &str) -> bool {
    matches!(module, "gate" | "router" | "shared_expert_gate" | "wg")
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn names_of_the_families_we_serve() {
        let cases: &[(&str, &[usize], Role)] = &[
            ("model.embed_tokens.weight", &[10, 4], Role::Embedding),
            ("lm_head.weight", &[10, 4], Role::Head),
            ("model.layers.0.self_attn.q_proj.weight", &[4, 4], Role::Linear),
            ("model.layers.0.self_attn.q_proj.bias", &[4], Role::Bias),
            ("model.layers.0.self_attn.q_norm.weight", &[4], Role::Norm),
            ("model.layers.0.mlp.gate_proj.weight", &[8, 4], Role::Linear),
            ("model.layers.0.mlp.gate.weight", &[2, 4], Role::Router),
            ("model.layers.0.block_sparse_moe.gate.weight", &[2, 4], Role::Router),
            ("model.layers.0.mlp.shared_expert_gate.weight", &[1, 4], Role::Router),
            ("model.layers.0.mlp.experts.0.up_proj.weight", &[8, 4], Role::Linear),
            ("model.layers.0.mlp.experts.gate_up_proj", &[2, 8, 4], Role::Experts),
            ("model.norm.weight", &[4], Role::Norm),
            ("encoder.layer.0.attention.output.LayerNorm.bias", &[4], Role::Norm),
            ("embeddings.word_embeddings.weight", &[10, 4], Role::Embedding),
            ("embeddings.position_embeddings.weight", &[10, 4], Role::Position),
            ("embeddings.position_ids", &[1, 512], Role::Other),
            ("encoder.layer.0.attention.self.query.weight", &[4, 4], Role::Linear),
            ("vision.patch_embed.weight", &[4, 3, 2, 2], Role::Other),
        ];
        for &(name, shape, role) in cases {
            assert_eq!(Role::of(name, shape), role, "{name}");
        }
    }
}
