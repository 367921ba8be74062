//! The weights that a model has, by the names of its checkpoint on the Hub.

use std::collections::BTreeMap;

use super::{Architecture, Family, Layer};

/// Name of the token embedding.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";

/// Name of the output projection.
pub(crate) const HEAD: &str = "lm_head.weight";

impl Architecture {
    /// Every weight with its shape, experts one by one; the head only where it is not tied.
    pub(crate) fn tensors(&self) -> BTreeMap<String, Vec<usize>> {
        let mut tensors = BTreeMap::new();
        let mut put = |name: String, shape: &[usize]| tensors.insert(name, shape.to_vec());
        put(EMBEDDING.to_owned(), &[self.vocab_size, self.hidden_size]);
        put("model.norm.weight".to_owned(), &[self.hidden_size]);
        if !self.tied {
            put(HEAD.to_owned(), &[self.vocab_size, self.hidden_size]);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let mut part = |name: &str, shape: &[usize]| {
                put(format!("model.layers.{index}.{name}"), shape);
            };
            self.attention(&mut part);
            self.feed_forward(layer, &mut part);
        }
        tensors
    }

    fn attention(&self, put: &mut impl FnMut(&str, &[usize])) {
        let hidden = self.hidden_size;
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        for (name, out, inner, bias) in [
            ("q", q, hidden, self.qkv_bias),
            ("k", kv, hidden, self.qkv_bias),
            ("v", kv, hidden, self.qkv_bias),
            ("o", hidden, q, self.output_bias),
        ] {
            put(&format!("self_attn.{name}_proj.weight"), &[out, inner]);
            if bias {
                put(&format!("self_attn.{name}_proj.bias"), &[out]);
            }
        }
        if self.qk_norms {
            put("self_attn.q_norm.weight", &[self.head_dim]);
            put("self_attn.k_norm.weight", &[self.head_dim]);
        }
        put("input_layernorm.weight", &[hidden]);
        put("post_attention_layernorm.weight", &[hidden]);
        if self.sandwich_norms {
            put("pre_feedforward_layernorm.weight", &[hidden]);
            put("post_feedforward_layernorm.weight", &[hidden]);
        }
    }

    fn feed_forward(&self, layer: &Layer, put: &mut impl FnMut(&str, &[usize])) {
        let hidden = self.hidden_size;
        let Some(experts) = self.experts.filter(|_| layer.experts) else {
            let width = self.intermediate_size;
            for (name, out, inner) in
                [("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)]
            {
                put(&format!("mlp.{name}_proj.weight"), &[out, inner]);
                if self.mlp_bias {
                    put(&format!("mlp.{name}_proj.bias"), &[out]);
                }
            }
            return;
        };
        let (module, [gate, up, down]) = self.expert_names();
        put(&format!("{module}.gate.weight"), &[experts.count, hidden]);
        let width = experts.intermediate_size;
        for expert in 0..experts.count {
            let name = |part: &str| format!("{module}.experts.{expert}.{part}.weight");
            put(&name(gate), &[width, hidden]);
            put(&name(up), &[width, hidden]);
            put(&name(down), &[hidden, width]);
        }
    }

    /// Module of the experts, and what gate, up and down projection of one are called.
    pub(crate) fn expert_names(&self) -> (&'static str, [&'static str; 3]) {
        match self.family() {
            Family::Mixtral => ("block_sparse_moe", ["w1", "w3", "w2"]),
            _ => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
        }
    }

    /// Holds the tensors that are there, `found`, against those of the model: none may be missing,
    /// of another shape, or left over. A head counts where it is stored, tied or not.
    ///
    /// # Errors
    /// The tensor and what is wrong with it.
    pub(crate) fn check_tensors(
        &self,
        found: &BTreeMap<String, Vec<usize>>,
    ) -> Result<(), (String, String)> {
        let mut wanted = self.tensors();
        if found.contains_key(HEAD) {
            wanted.insert(HEAD.to_owned(), vec![self.vocab_size, self.hidden_size]);
        }
        for (name, shape) in &wanted {
            match found.get(name) {
                None => return Err((name.clone(), "is missing".to_owned())),
                Some(other) if other != shape => {
                    let message =
                        format!("has shape {other:?}, but the configuration means {shape:?}");
                    return Err((name.clone(), message));
                }
                Some(_) => {}
            }
        }
        match found.keys().find(|name| !wanted.contains_key(*name)) {
            None => Ok(()),
            Some(name) => Err((
                name.clone(),
                format!("is no tensor of a {} model with this configuration", self.model_type),
            )),
        }
    }
}
