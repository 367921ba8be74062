//! What `config.json` says about a decoder-only transformer, as one description for every family.
//!
//! Both styles are read: rope base and scaling at the top level, as most files on the Hub have
//! them, and `rope_parameters`, as transformers 5 writes them. What the forward pass does not do is
//! refused by name: an unknown family, activation, rope type or soft cap would only give wrong
//! numbers.

use serde_json::{Map, Value};

use super::rope::Rope;

/// A decoder-only transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// Family, `model_type`.
    pub model_type: String,
    /// Token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of a dense feed-forward block.
    pub intermediate_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Longest window in tokens.
    pub max_positions: usize,
    /// Added to the mean square in a norm.
    pub norm_eps: f32,
    /// Norms multiply by 1 + w instead of w (Gemma).
    pub norm_adds_one: bool,
    /// Norms after attention and feed-forward as well (Gemma 3).
    pub sandwich_norms: bool,
    /// Norms of each head's queries and keys.
    pub qk_norms: bool,
    /// Biases of the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias of the attention's output projection.
    pub output_bias: bool,
    /// Biases of the feed-forward projections.
    pub mlp_bias: bool,
    /// What attention scores are multiplied by.
    pub attention_scale: f32,
    /// What token embeddings are multiplied by.
    pub embedding_scale: f32,
    /// Activation of the gate.
    pub activation: Activation,
    /// The head is the token embedding.
    pub tied: bool,
    /// Rotary embeddings; layers name one by its place here.
    pub ropes: Vec<Rope>,
    /// The layers.
    pub layers: Vec<Layer>,
    /// Experts, in the layers that have them.
    pub experts: Option<Experts>,
}

/// What differs from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Keys that a query sees, its own included; `None` for all before it.
    pub window: Option<usize>,
    /// Place in [`Architecture::ropes`].
    pub rope: usize,
    /// Experts instead of a dense feed-forward block.
    pub experts: bool,
}

/// Activation of a gated feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x·sigmoid(x).
    Silu,
    /// The tanh form of GELU.
    GeluTanh,
}

/// A mixture of experts; no token is ever dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// Experts that each token takes, those with the largest router logits.
    pub per_token: usize,
    /// Width of an expert.
    pub intermediate_size: usize,
    /// The shares of the taken experts are scaled to sum to 1.
    pub normalised: bool,
}

impl Architecture {
    /// Reads a `config.json`; a multimodal one (`text_config`) for its text model.
    ///
    /// # Errors
    /// What is missing, wrong or unsupported, in words.
    pub fn parse(config: &Value) -> Result<Self, String> {
        let outer = config.as_object().ok_or("is no JSON object")?;
        let inner = outer.get("text_config").and_then(Value::as_object);
        let fields = Fields(inner.unwrap_or(outer));
        let model_type = fields.text("model_type").or_else(|| Fields(outer).text("model_type"));
        let model_type = model_type.ok_or("has no model_type")?;
        let family = Family::named(model_type).ok_or_else(|| {
            format!(
                "model_type {model_type:?} is not supported; these are: {}",
                FAMILIES.map(|(name, _)| name).join(", ")
            )
        })?;
        refuse_unsupported(&fields)?;
        let mut read = Self::common(&fields, family, model_type)?;
        read.layers = layers(&fields, family, fields.size("num_hidden_layers")?)?;
        let local = read.layers.iter().any(|layer| layer.rope == 1);
        read.ropes = ropes(&fields, family, local)?;
        read.set_experts(&fields, family)?;
        let tied = fields.flag("tie_word_embeddings").or(Fields(outer).flag("tie_word_embeddings"));
        read.tied = tied.unwrap_or(family == Family::Gemma3);
        Ok(read)
    }

    fn common(fields: &Fields<'_>, family: Family, model_type: &str) -> Result<Self, String> {
        let gemma = family == Family::Gemma3;
        let hidden_size = fields.size("hidden_size")?;
        let heads = fields.size("num_attention_heads")?;
        let kv_heads = fields.optional_size("num_key_value_heads")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!("num_attention_heads {heads} is no multiple of {kv_heads}"));
        }
        let head_dim = match fields.optional_size("head_dim")? {
            Some(head_dim) => head_dim,
            None if gemma => 256,
            None => hidden_size / heads,
        };
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(format!("head_dim {head_dim} is not even"));
        }
        let query_scalar = fields.number("query_pre_attn_scalar").filter(|_| gemma);
        let attention_bias = fields.flag("attention_bias").unwrap_or(false);
        let llama_like = matches!(family, Family::Llama | Family::Qwen3 | Family::Qwen3Moe);
        Ok(Self {
            model_type: model_type.to_owned(),
            vocab_size: fields.size("vocab_size")?,
            hidden_size,
            intermediate_size: fields.size("intermediate_size")?,
            heads,
            kv_heads,
            head_dim,
            max_positions: fields.size("max_position_embeddings")?,
            norm_eps: fields.number("rms_norm_eps").unwrap_or(1e-6) as f32,
            norm_adds_one: gemma,
            sandwich_norms: gemma,
            qk_norms: gemma || matches!(family, Family::Qwen3 | Family::Qwen3Moe),
            qkv_bias: family == Family::Qwen2 || (llama_like && attention_bias),
            output_bias: llama_like && attention_bias,
            mlp_bias: family == Family::Llama && fields.flag("mlp_bias").unwrap_or(false),
            attention_scale: 1.0 / (query_scalar.unwrap_or(head_dim as f64) as f32).sqrt(),
            embedding_scale: if gemma { (hidden_size as f32).sqrt() } else { 1.0 },
            activation: activation(fields)?,
            tied: false,
            ropes: Vec::new(),
            layers: Vec::new(),
            experts: None,
        })
    }

    fn set_experts(&mut self, fields: &Fields<'_>, family: Family) -> Result<(), String> {
        let (intermediate_size, normalised) = match family {
            Family::Mixtral => (self.intermediate_size, true),
            Family::Qwen3Moe => (
                fields.size("moe_intermediate_size")?,
                fields.flag("norm_topk_prob").unwrap_or(false),
            ),
            _ => return Ok(()),
        };
        let count = match fields.optional_size("num_local_experts")? {
            Some(count) => count,
            None => fields.size("num_experts")?,
        };
        let per_token = fields.size("num_experts_per_tok")?;
        if per_token > count {
            return Err(format!("num_experts_per_tok {per_token} is more than {count} experts"));
        }
        self.experts = Some(Experts { count, per_token, intermediate_size, normalised });
        let dense = fields.0.get("mlp_only_layers").and_then(Value::as_array);
        let step = fields.optional_size("decoder_sparse_step")?.unwrap_or(1).max(1);
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let listed = dense.is_some_and(|list| list.iter().any(|i| i == index));
            layer.experts = family == Family::Mixtral || (!listed && (index + 1) % step == 0);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Mixtral,
    Gemma3,
}

const FAMILIES: [(&str, Family); 8] = [
    ("llama", Family::Llama),
    ("mistral", Family::Mistral),
    ("qwen2", Family::Qwen2),
    ("qwen3", Family::Qwen3),
    ("qwen3_moe", Family::Qwen3Moe),
    ("mixtral", Family::Mixtral),
    ("gemma3_text", Family::Gemma3),
    ("gemma3", Family::Gemma3),
];

impl Family {
    fn named(name: &str) -> Option<Self> {
        FAMILIES.into_iter().find(|(known, _)| *known == name).map(|(_, family)| family)
    }
}

/// The keys of a configuration; a null counts as absent.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(Value::as_f64)
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().filter(|&size| size > 0 && size < 1 << 31);
        size.map_or_else(|| Err(format!("{key} is {value}")), |size| Ok(Some(size as usize)))
    }

    fn size(&self, key: &str) -> Result<usize, String> {
        self.optional_size(key)?.ok_or_else(|| format!("has no {key}"))
    }
}

fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), String> {
    let unsupported = ["attn_logit_softcapping", "final_logit_softcapping"];
    if let Some(key) = unsupported.into_iter().find(|key| fields.get(key).is_some()) {
        return Err(format!("{key} is not supported"));
    }
    if fields.flag("use_bidirectional_attention") == Some(true) {
        return Err("use_bidirectional_attention is not supported".to_owned());
    }
    Ok(())
}

fn activation(fields: &Fields<'_>) -> Result<Activation, String> {
    let name = fields.text("hidden_activation").or_else(|| fields.text("hidden_act"));
    match name {
        None | Some("silu") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some(other) => Err(format!("activation {other:?} is not supported")),
    }
}

/// Windows and ropes of the layers; experts come later.
fn layers(fields: &Fields<'_>, family: Family, count: usize) -> Result<Vec<Layer>, String> {
    let window = fields.optional_size("sliding_window")?;
    let slides: Box<dyn Fn(usize) -> bool> = match (family, fields.get("layer_types")) {
        (_, Some(types)) => {
            let types = types.as_array().ok_or("layer_types is no list")?;
            if types.len() != count {
                return Err(format!("layer_types has {} entries for {count} layers", types.len()));
            }
            for kind in types {
                if kind != "full_attention" && kind != "sliding_attention" {
                    return Err(format!("layer type {kind} is not supported"));
                }
            }
            Box::new(|layer| types[layer] == "sliding_attention")
        }
        (Family::Gemma3, None) => {
            let pattern = fields.optional_size("sliding_window_pattern")?.unwrap_or(6);
            Box::new(move |layer| (layer + 1) % pattern != 0)
        }
        (Family::Mistral | Family::Mixtral, None) => Box::new(|_| true),
        (Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe, None)
            if fields.flag("use_sliding_window") == Some(true) =>
        {
            let first = fields.number("max_window_layers").unwrap_or(0.0) as usize;
            Box::new(move |layer| layer >= first)
        }
        _ => Box::new(|_| false),
    };
    let layer = |index: usize| Layer {
        window: window.filter(|_| slides(index)),
        rope: usize::from(family == Family::Gemma3 && slides(index)),
        experts: false,
    };
    Ok((0..count).map(layer).collect())
}

/// The rope of full attention and, for Gemma's `local` layers, that of sliding attention.
fn ropes(fields: &Fields<'_>, family: Family, local: bool) -> Result<Vec<Rope>, String> {
    let theta = fields.number("rope_theta");
    let parameters = fields.get("rope_parameters").and_then(Value::as_object);
    let of = |kind: &str| {
        let all = parameters.map(Fields)?;
        all.get(kind).map_or(Some(all.0), Value::as_object)
    };
    let scaling = fields.get("rope_scaling").and_then(Value::as_object);
    let mut ropes = vec![Rope::parse(of("full_attention").or(scaling), theta)?];
    if family == Family::Gemma3 && local {
        let base = fields.number("rope_local_base_freq").unwrap_or(10_000.0);
        ropes.push(Rope::parse(of("sliding_attention"), Some(base))?);
    }
    Ok(ropes)
}
