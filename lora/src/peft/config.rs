//! `adapter_config.json`, as PEFT's `LoraConfig` (0.21) writes and reads it.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

/// Settings under which a module's update is not (alpha / r)·B·A of its own two factors.
const UNSUPPORTED: [&str; 13] = [
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
];

/// Starts of values of `init_lora_weights` that change the base weights too.
const CHANGES_BASE: [&str; 5] = ["corda", "lora_ga", "loftq", "olora", "pissa"];

/// The keys that matter to us; PEFT fills in the rest with its defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LoraConfig {
    peft_type: String,
    task_type: Option<String>,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    #[serde(default)]
    inference_mode: bool,
    r: usize,
    lora_alpha: Number,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default = "none")]
    bias: String,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    target_modules: Value,
    /// In the file's order: the first that matches counts.
    #[serde(default)]
    rank_pattern: Map<String, Value>,
    #[serde(default)]
    alpha_pattern: Map<String, Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn none() -> String {
    "none".to_owned()
}

impl LoraConfig {
    /// A configuration of rank `r`, scale 1, for `modules` given by their whole paths; those of
    /// another rank come with it.
    pub(super) fn new(
        r: usize,
        base_model: &str,
        modules: Vec<String>,
        other_ranks: &BTreeMap<String, usize>,
    ) -> Self {
        // The caret keeps a pattern from matching the end of a longer path.
        let patterns: Map<String, Value> = other_ranks
            .iter()
            .map(|(module, &rank)| (format!("^{}", regex::escape(module)), rank.into()))
            .collect();
        Self {
            peft_type: "LORA".to_owned(),
            task_type: Some("CAUSAL_LM".to_owned()),
            base_model_name_or_path: (!base_model.is_empty()).then(|| base_model.to_owned()),
            inference_mode: true,
            r,
            lora_alpha: r.into(),
            lora_dropout: 0.0,
            bias: none(),
            use_rslora: false,
            target_modules: modules.into(),
            rank_pattern: patterns.clone(),
            alpha_pattern: patterns,
            rest: Map::new(),
        }
    }

    /// What the configuration says about single modules, or why it cannot be honoured.
    pub(super) fn scaling(&self) -> Result<Scaling, String> {
        if self.peft_type != "LORA" {
            return Err(format!("peft_type is {:?}, not \"LORA\"", self.peft_type));
        }
        if self.bias != "none" {
            return Err(format!("bias {:?} is not supported", self.bias));
        }
        if let Some(key) = UNSUPPORTED.iter().find(|key| self.rest.get(**key).is_some_and(is_set)) {
            return Err(format!("{key} is not supported"));
        }
        let init = self.rest.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
        if CHANGES_BASE.iter().any(|start| init.starts_with(start)) {
            return Err(format!("init_lora_weights {init:?} belongs to changed base weights"));
        }
        let alpha = self.lora_alpha.as_f64().filter(|alpha| alpha.is_finite());
        Ok(Scaling {
            rank: self.r,
            alpha: alpha.ok_or_else(|| format!("lora_alpha {} is no number", self.lora_alpha))?,
            ranks: patterns("rank_pattern", &self.rank_pattern, |value| {
                value.as_u64().and_then(|rank| usize::try_from(rank).ok())
            })?,
            alphas: patterns("alpha_pattern", &self.alpha_pattern, Value::as_f64)?,
            by_root: self.use_rslora,
        })
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
        _ => true,
    }
}

/// PEFT's rule (`get_pattern_key`): a key is a regular expression for the end of a module's
/// path, from a dot or from its start on.
fn patterns<T>(
    name: &str,
    map: &Map<String, Value>,
    number: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<(Regex, T)>, String> {
    map.iter()
        .map(|(key, value)| {
            let pattern = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$"))
                .map_err(|e| format!("{name} {key:?} is no regular expression we read: {e}"))?;
            let number =
                number(value).ok_or_else(|| format!("{name} {key:?} is {value}, no number"))?;
            Ok((pattern, number))
        })
        .collect()
}

/// Rank and alpha of every module.
#[derive(Debug)]
pub(super) struct Scaling {
    rank: usize,
    alpha: f64,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
    /// rsLoRA: alpha / √r.
    by_root: bool,
}

impl Scaling {
    /// Rank of `module`.
    pub(super) fn rank(&self, module: &str) -> usize {
        self.ranks.iter().find(|(key, _)| key.is_match(module)).map_or(self.rank, |&(_, r)| r)
    }

    /// alpha / r of `module`.
    pub(super) fn scale(&self, module: &str) -> f64 {
        let alpha = self
            .alphas
            .iter()
            .find(|(key, _)| key.is_match(module))
            .map_or(self.alpha, |&(_, a)| a);
        let rank = self.rank(module) as f64;
        alpha / if self.by_root { rank.sqrt() } else { rank }
    }
}
