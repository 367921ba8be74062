//! Tensor names and row orders: Hugging Face's and llama.cpp's.
//!
//! llama.cpp rotates neighbouring elements of a head where Hugging Face rotates its halves, so that
//! the rows of the query and key projections of a Llama change places.

/// Tensors that a model has once: GGUF name, Hugging Face name.
const ONCE: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// Tensors of a layer, `blk.N.` and `model.layers.N.` left out.
const LAYER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Frequency factors of a rope, which have no counterpart in Hugging Face.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// A family of models that both programs know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Family {
    /// `general.architecture`.
    pub(crate) gguf: &'static str,
    /// `model_type`.
    pub(crate) hf: &'static str,
    /// `architectures`.
    pub(crate) class: &'static str,
    /// Whether query and key rows change places.
    pub(crate) permuted: bool,
}

const FAMILIES: [Family; 4] = [
    Family { gguf: "llama", hf: "llama", class: "LlamaForCausalLM", permuted: true },
    Family { gguf: "llama", hf: "mistral", class: "MistralForCausalLM", permuted: true },
    Family { gguf: "qwen2", hf: "qwen2", class: "Qwen2ForCausalLM", permuted: false },
    Family { gguf: "qwen3", hf: "qwen3", class: "Qwen3ForCausalLM", permuted: false },
];

/// All families.
pub(crate) fn families() -> impl Iterator<Item = Family> {
    FAMILIES.into_iter()
}

/// GGUF name of the Hugging Face tensor `name`; `None` for one that llama.cpp does not know.
pub(crate) fn to_gguf(name: &str) -> Option<String> {
    let (stem, suffix) = split(name)?;
    if let Some((gguf, _)) = ONCE.iter().find(|(_, hf)| *hf == stem) {
        return Some(format!("{gguf}{suffix}"));
    }
    let (layer, part) = stem.strip_prefix("model.layers.")?.split_once('.')?;
    layer.parse::<u32>().ok()?;
    let (gguf, _) = LAYER.iter().find(|(_, hf)| *hf == part)?;
    Some(format!("blk.{layer}.{gguf}{suffix}"))
}

/// Hugging Face name of the GGUF tensor `name`; `None` for one that is not known.
pub(crate) fn to_hf(name: &str) -> Option<String> {
    let (stem, suffix) = split(name)?;
    if let Some((_, hf)) = ONCE.iter().find(|(gguf, _)| *gguf == stem) {
        return Some(format!("{hf}{suffix}"));
    }
    let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
    layer.parse::<u32>().ok()?;
    let (_, hf) = LAYER.iter().find(|(gguf, _)| *gguf == part)?;
    Some(format!("model.layers.{layer}.{hf}{suffix}"))
}

fn split(name: &str) -> Option<(&str, &str)> {
    let dot = name.rfind('.')?;
    matches!(&name[dot..], ".weight" | ".bias").then(|| name.split_at(dot))
}

/// The change of places of a weight's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowOrder {
    /// Rows of a head; 0 where rows keep their places.
    head: usize,
}

impl RowOrder {
    /// Rows keep their places.
    pub(crate) const SAME: Self = Self { head: 0 };

    /// The order of Hugging Face tensor `name` with `rows` rows in a model of `heads` query and
    /// `kv_heads` key heads.
    pub(crate) fn of(
        family: Family,
        name: &str,
        rows: usize,
        heads: usize,
        kv_heads: usize,
    ) -> Result<Self, String> {
        let count = match split(name) {
            Some((stem, _)) if family.permuted && stem.ends_with("self_attn.q_proj") => heads,
            Some((stem, _)) if family.permuted && stem.ends_with("self_attn.k_proj") => kv_heads,
            _ => return Ok(Self::SAME),
        };
        if count == 0 || !rows.is_multiple_of(2 * count) {
            return Err(format!("{rows} rows are no {count} heads of even width"));
        }
        Ok(Self { head: rows / count })
    }

    /// Whether rows keep their places.
    pub(crate) fn is_same(self) -> bool {
        self.head == 0
    }

    /// Row in a GGUF file of row `row` in Hugging Face.
    pub(crate) fn to_gguf(self, row: usize) -> usize {
        if self.is_same() {
            return row;
        }
        let (start, within) = (row / self.head * self.head, row % self.head);
        let half = self.head / 2;
        start + 2 * (within % half) + within / half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_ways() {
        for (gguf, hf) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("blk.12.attn_q.bias", "model.layers.12.self_attn.q_proj.bias"),
            ("blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
        ] {
            assert_eq!(to_gguf(hf).as_deref(), Some(gguf));
            assert_eq!(to_hf(gguf).as_deref(), Some(hf));
        }
        for odd in ["model.layers.x.mlp.up_proj.weight", "lm_head", "model.layers.0.mlp.fc.weight"]
        {
            assert_eq!(to_gguf(odd), None);
        }
    }

    #[test]
    fn halves_become_neighbours_within_a_head() {
        let [llama, _, qwen2, _] = FAMILIES;
        let name = "model.layers.0.self_attn.k_proj.weight";
        let order = RowOrder::of(llama, name, 16, 4, 2).unwrap();
        let places: Vec<usize> = (0..16).map(|row| order.to_gguf(row)).collect();
        assert_eq!(places, [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]);
        assert_eq!(RowOrder::of(qwen2, name, 16, 4, 2), Ok(RowOrder::SAME));
        assert!(RowOrder::of(llama, name, 15, 4, 2).is_err());
    }
}
