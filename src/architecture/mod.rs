//! What `config.json` says about a decoder-only transformer, as one description for every family.
//!
//! Both styles are read: rope base and scaling at the top level, as most files on the Hub have
//! them, and `rope_parameters`, as transformers 5 writes them. A key that is not there means what
//! the family's class in transformers takes for it. What the forward pass does not do is refused by
//! name: an unknown family, activation, rope type or soft cap would only give wrong numbers.

mod content;
mod families;
mod fields;
mod layers;
mod rope;
mod tensors;

use serde_json::{Map, Value};

pub(crate) use self::content::{Content, Projection};
pub(crate) use self::families::{Family, LOCAL_THETA, QUERY_SCALAR};
use self::fields::Fields;
pub use self::rope::{Rope, Scaling};
pub(crate) use self::tensors::{EMBEDDING, HEAD};

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
    /// What is wrong or unsupported, in words.
    pub fn parse(config: &Value) -> Result<Self, String> {
        let outer = Fields(config.as_object().ok_or("is no JSON object")?);
        let fields = outer.object("text_config")?.map_or(outer, Fields);
        let model_type = match fields.text("model_type")? {
            None => outer.text("model_type")?.ok_or("has no model_type")?,
            Some(model_type) => model_type,
        };
        let family = Family::named(model_type).ok_or_else(|| {
            format!("model_type {model_type:?} is not supported; these are: {}", Family::names())
        })?;
        refuse_unsupported(fields)?;
        let mut read = Self::common(fields, family, model_type)?;
        let count = fields.size_or("num_hidden_layers", family.defaults().layers)?;
        read.layers = layers::layers(fields, family, count)?;
        let local = read.layers.iter().any(|layer| layer.rope == 1);
        read.ropes = ropes(fields, family, read.max_positions, local)?;
        read.set_experts(fields, family)?;
        let tied = match outer.flag("tie_word_embeddings")? {
            None => fields.flag("tie_word_embeddings")?,
            some => some,
        };
        read.tied = tied.unwrap_or(family.defaults().tied);
        Ok(read)
    }

    fn common(fields: Fields<'_>, family: Family, model_type: &str) -> Result<Self, String> {
        let defaults = family.defaults();
        let gemma = family == Family::Gemma3;
        let hidden_size = fields.size_or("hidden_size", defaults.hidden_size)?;
        let heads = fields.size_or("num_attention_heads", defaults.heads)?;
        let kv_heads = match fields.size("num_key_value_heads")? {
            None if fields.is_null("num_key_value_heads") => heads,
            None => defaults.kv_heads.unwrap_or(heads),
            Some(kv_heads) => kv_heads,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!(
                "num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}"
            ));
        }
        let head_dim = fields.size("head_dim")?.or(defaults.head_dim);
        let head_dim = head_dim.unwrap_or(hidden_size / heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(format!("head_dim {head_dim} is not even"));
        }
        let attention_bias =
            family.has_attention_bias() && fields.flag("attention_bias")?.unwrap_or(false);
        let scale = match fields.number("query_pre_attn_scalar")? {
            Some(scalar) if gemma => scalar,
            None if gemma => QUERY_SCALAR,
            _ => head_dim as f64,
        };
        let norm_eps = fields.number("rms_norm_eps")?.unwrap_or(defaults.norm_eps);
        let size = |key, default| fields.size_or(key, default);
        Ok(Self {
            model_type: model_type.to_owned(),
            vocab_size: size("vocab_size", defaults.vocab_size)?,
            hidden_size,
            intermediate_size: size("intermediate_size", defaults.intermediate_size)?,
            heads,
            kv_heads,
            head_dim,
            max_positions: size("max_position_embeddings", defaults.max_positions)?,
            norm_eps: norm_eps as f32,
            norm_adds_one: gemma,
            sandwich_norms: gemma,
            qk_norms: gemma || matches!(family, Family::Qwen3 | Family::Qwen3Moe),
            qkv_bias: family == Family::Qwen2 || attention_bias,
            output_bias: attention_bias,
            mlp_bias: family == Family::Llama && fields.flag("mlp_bias")?.unwrap_or(false),
            attention_scale: 1.0 / (scale as f32).sqrt(),
            embedding_scale: if gemma { (hidden_size as f32).sqrt() } else { 1.0 },
            activation: activation(fields, family)?,
            tied: false,
            ropes: Vec::new(),
            layers: Vec::new(),
            experts: None,
        })
    }

    fn set_experts(&mut self, fields: Fields<'_>, family: Family) -> Result<(), String> {
        let Some(defaults) = family.defaults().experts else { return Ok(()) };
        let intermediate_size = match defaults.intermediate_size {
            Some(default) => fields.size_or("moe_intermediate_size", default)?,
            None => self.intermediate_size,
        };
        let normalised = match defaults.normalised {
            Some(default) => fields.flag("norm_topk_prob")?.unwrap_or(default),
            None => true,
        };
        let count = match fields.size("num_local_experts")? {
            Some(count) => count,
            None => fields.size_or("num_experts", defaults.count)?,
        };
        let per_token = fields.size_or("num_experts_per_tok", defaults.per_token)?;
        if per_token > count {
            return Err(format!("num_experts_per_tok {per_token} is more than {count} experts"));
        }
        self.experts = Some(Experts { count, per_token, intermediate_size, normalised });
        if family == Family::Mixtral {
            self.layers.iter_mut().for_each(|layer| layer.experts = true);
            return Ok(());
        }
        let dense = fields.list("mlp_only_layers")?;
        let step = fields.size_or("decoder_sparse_step", 1)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let listed = dense.is_some_and(|list| list.iter().any(|i| i == index));
            layer.experts = !listed && (index + 1) % step == 0;
        }
        Ok(())
    }

    /// The family of the model.
    pub(crate) fn family(&self) -> Family {
        Family::named(&self.model_type).expect("invariant: only known families are read")
    }

    /// The window of layers that see one, where it is shorter than the longest text.
    pub(crate) fn short_window(&self) -> Option<usize> {
        let windows = self.layers.iter().filter_map(|layer| layer.window);
        windows.min().filter(|&window| window < self.max_positions)
    }
}

fn refuse_unsupported(fields: Fields<'_>) -> Result<(), String> {
    let unsupported = ["attn_logit_softcapping", "final_logit_softcapping"];
    if let Some(key) = unsupported.into_iter().find(|key| fields.get(key).is_some()) {
        return Err(format!("{key} is not supported"));
    }
    if fields.flag("use_bidirectional_attention")? == Some(true) {
        return Err("use_bidirectional_attention is not supported".to_owned());
    }
    match fields.number("partial_rotary_factor")? {
        None | Some(1.0) => Ok(()),
        Some(other) => Err(format!("partial_rotary_factor {other} is not supported")),
    }
}

fn activation(fields: Fields<'_>, family: Family) -> Result<Activation, String> {
    let (key, default) = family.defaults().activation;
    match fields.text(key)? {
        None => Ok(default),
        Some("silu") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some(other) => Err(format!("{key} {other:?} is not supported")),
    }
}

/// The rope of full attention and, for Gemma's `local` layers, that of sliding attention.
fn ropes(
    fields: Fields<'_>,
    family: Family,
    max_positions: usize,
    local: bool,
) -> Result<Vec<Rope>, String> {
    let filled = |key| Ok::<_, String>(fields.object(key)?.filter(|map| !map.is_empty()));
    let (scaling, parameters) = (filled("rope_scaling")?, filled("rope_parameters")?);
    let theta = fields.number("rope_theta")?.unwrap_or(family.defaults().rope_theta);
    if family != Family::Gemma3 {
        // The class takes `rope_scaling` in place of the other, not beside it.
        let map = scaling.or(parameters);
        let by_layer = ["full_attention", "sliding_attention"];
        if map.is_some_and(|map| by_layer.iter().any(|kind| map.contains_key(*kind))) {
            return Err("rope_parameters by kind of layer are for Gemma 3 only".to_owned());
        }
        let original = fields.number("original_max_position_embeddings")?;
        return Ok(vec![Rope::parse(map, theta, max_positions, original)?]);
    }
    let of = |kind: &str| match parameters {
        Some(parameters) => Fields(parameters).object(kind),
        None => Ok(None),
    };
    let mut full: Map<String, Value> = of("full_attention")?.cloned().unwrap_or_default();
    full.extend(scaling.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
    let mut ropes = vec![Rope::parse(Some(&full), theta, max_positions, None)?];
    if local {
        let theta = fields.number("rope_local_base_freq")?.unwrap_or(LOCAL_THETA);
        ropes.push(Rope::parse(of("sliding_attention")?, theta, max_positions, None)?);
    }
    Ok(ropes)
}
