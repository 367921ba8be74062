//! `adapter_config.json`, as PEFT's `LoraConfig` writes and reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The keys that matter to us; PEFT fills in the rest with its defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LoraConfig {
    pub(super) peft_type: String,
    pub(super) task_type: Option<String>,
    #[serde(default)]
    pub(super) base_model_name_or_path: Option<String>,
    #[serde(default)]
    pub(super) inference_mode: bool,
    pub(super) r: usize,
    pub(super) lora_alpha: f64,
    #[serde(default)]
    pub(super) lora_dropout: f64,
    #[serde(default = "none")]
    pub(super) bias: String,
    #[serde(default)]
    pub(super) fan_in_fan_out: bool,
    #[serde(default)]
    pub(super) use_rslora: bool,
    #[serde(default)]
    pub(super) use_dora: bool,
    pub(super) target_modules: Targets,
    #[serde(default)]
    pub(super) rank_pattern: BTreeMap<String, usize>,
    #[serde(default)]
    pub(super) alpha_pattern: BTreeMap<String, f64>,
}

fn none() -> String {
    "none".to_owned()
}

/// PEFT takes a list of names or one regular expression.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Targets {
    /// Module paths or their last parts.
    Names(Vec<String>),
    /// A regular expression.
    Pattern(String),
}

impl LoraConfig {
    /// A configuration of rank `r`, scale 1, for `modules` given by their whole paths; those of
    /// another rank come with it.
    pub(super) fn new(
        r: usize,
        base_model: &str,
        modules: Vec<String>,
        other_ranks: BTreeMap<String, usize>,
    ) -> Self {
        let alpha_pattern = other_ranks.iter().map(|(m, &r)| (m.clone(), r as f64)).collect();
        Self {
            peft_type: "LORA".to_owned(),
            task_type: Some("CAUSAL_LM".to_owned()),
            base_model_name_or_path: (!base_model.is_empty()).then(|| base_model.to_owned()),
            inference_mode: true,
            r,
            lora_alpha: r as f64,
            lora_dropout: 0.0,
            bias: none(),
            fan_in_fan_out: false,
            use_rslora: false,
            use_dora: false,
            target_modules: Targets::Names(modules),
            rank_pattern: other_ranks,
            alpha_pattern,
        }
    }

    /// alpha / r of `module`, whose factors have rank `rank`. PEFT matches pattern keys against
    /// the end of the module's path.
    pub(super) fn scale(&self, module: &str, rank: usize) -> f64 {
        let alpha = self
            .alpha_pattern
            .iter()
            .find(|(key, _)| module == *key || module.ends_with(&format!(".{key}")))
            .map_or(self.lora_alpha, |(_, &alpha)| alpha);
        let rank = rank as f64;
        alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}
