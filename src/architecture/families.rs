//! The families, and what each takes for a key that its `config.json` leaves out.
//!
//! The values are those of transformers' configuration classes (5.24): a file says only what differs
//! from its class, and that of one family is wrong for another.

use super::Activation;

/// A family of models that share a configuration class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Mixtral,
    Gemma3,
}

/// Names in `model_type`, and the family that each is of.
const NAMES: [(&str, Family); 8] = [
    ("llama", Family::Llama),
    ("mistral", Family::Mistral),
    ("qwen2", Family::Qwen2),
    ("qwen3", Family::Qwen3),
    ("qwen3_moe", Family::Qwen3Moe),
    ("mixtral", Family::Mixtral),
    ("gemma3_text", Family::Gemma3),
    ("gemma3", Family::Gemma3),
];

/// Values of keys that are not there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    /// `None`: as many as query heads.
    pub(super) kv_heads: Option<usize>,
    /// `None`: the width of the residual stream, shared out among the heads.
    pub(super) head_dim: Option<usize>,
    pub(super) max_positions: usize,
    pub(super) norm_eps: f64,
    pub(super) rope_theta: f64,
    /// `None`: all keys are seen.
    pub(super) window: Option<usize>,
    /// The key of the activation, and its value.
    pub(super) activation: (&'static str, Activation),
    pub(super) tied: bool,
    pub(super) experts: Option<ExpertDefaults>,
}

/// Values of a mixture's keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpertDefaults {
    pub(super) count: usize,
    pub(super) per_token: usize,
    /// `None`: `intermediate_size`.
    pub(super) intermediate_size: Option<usize>,
    /// `None`: shares are always scaled to sum to 1.
    pub(super) normalised: Option<bool>,
}

const LLAMA: Defaults = Defaults {
    vocab_size: 32_000,
    hidden_size: 4096,
    intermediate_size: 11_008,
    layers: 32,
    heads: 32,
    kv_heads: None,
    head_dim: None,
    max_positions: 2048,
    norm_eps: 1e-6,
    rope_theta: 10_000.0,
    window: None,
    activation: ("hidden_act", Activation::Silu),
    tied: false,
    experts: None,
};

const MISTRAL: Defaults = Defaults {
    intermediate_size: 14_336,
    kv_heads: Some(8),
    max_positions: 131_072,
    window: Some(4096),
    ..LLAMA
};

const MIXTRAL: Defaults = Defaults {
    norm_eps: 1e-5,
    rope_theta: 1_000_000.0,
    window: None,
    experts: Some(ExpertDefaults {
        count: 8,
        per_token: 2,
        intermediate_size: None,
        normalised: None,
    }),
    ..MISTRAL
};

const QWEN2: Defaults = Defaults {
    vocab_size: 151_936,
    intermediate_size: 22_016,
    kv_heads: Some(32),
    max_positions: 32_768,
    window: Some(4096),
    ..LLAMA
};

const QWEN3: Defaults = Defaults { head_dim: Some(128), ..QWEN2 };

const QWEN3_MOE: Defaults = Defaults {
    hidden_size: 2048,
    intermediate_size: 6144,
    layers: 24,
    kv_heads: Some(4),
    experts: Some(ExpertDefaults {
        count: 128,
        per_token: 8,
        intermediate_size: Some(768),
        normalised: Some(false),
    }),
    ..QWEN2
};

const GEMMA3: Defaults = Defaults {
    vocab_size: 262_208,
    hidden_size: 2304,
    intermediate_size: 9216,
    layers: 26,
    heads: 8,
    kv_heads: Some(4),
    head_dim: Some(256),
    max_positions: 131_072,
    rope_theta: 1_000_000.0,
    window: Some(4096),
    activation: ("hidden_activation", Activation::GeluTanh),
    tied: true,
    ..LLAMA
};

/// Gemma's `rope_local_base_freq`.
pub(crate) const LOCAL_THETA: f64 = 10_000.0;

/// Gemma's `query_pre_attn_scalar`.
pub(crate) const QUERY_SCALAR: f64 = 256.0;

/// Gemma's `sliding_window_pattern`.
pub(super) const WINDOW_PATTERN: usize = 6;

/// Qwen's `max_window_layers`.
pub(super) const FULL_LAYERS: usize = 28;

impl Family {
    /// The family that `model_type` names.
    pub(crate) fn named(model_type: &str) -> Option<Self> {
        NAMES.into_iter().find(|(name, _)| *name == model_type).map(|(_, family)| family)
    }

    /// All names, for messages.
    pub(super) fn names() -> String {
        NAMES.map(|(name, _)| name).join(", ")
    }

    pub(super) fn defaults(self) -> &'static Defaults {
        match self {
            Self::Llama => &LLAMA,
            Self::Mistral => &MISTRAL,
            Self::Qwen2 => &QWEN2,
            Self::Qwen3 => &QWEN3,
            Self::Qwen3Moe => &QWEN3_MOE,
            Self::Mixtral => &MIXTRAL,
            Self::Gemma3 => &GEMMA3,
        }
    }

    /// Whether `attention_bias` puts biases on the four projections of attention.
    pub(super) fn has_attention_bias(self) -> bool {
        matches!(self, Self::Llama | Self::Qwen3 | Self::Qwen3Moe | Self::Gemma3)
    }
}
