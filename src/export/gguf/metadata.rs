//! The model's sizes as GGUF metadata (ggml/docs/gguf.md, "Standardized key-value pairs").

use std::f64::consts::TAU;

use serde_json::Value;

use crate::checkpoint::read_json;
use crate::error::{Error, Result};
use crate::gguf::{Family, HeaderWriter, families};
use crate::pipeline::CompressedFolder;
use crate::pipeline::manifest::TOOL;

/// What the metadata says about the model.
#[derive(Debug)]
pub(in crate::export) struct Model {
    pub(in crate::export) family: Family,
    pub(in crate::export) heads: usize,
    pub(in crate::export) kv_heads: usize,
    /// Rows of the embedding.
    pub(super) vocab_size: usize,
    pub(super) config: Value,
    /// `generation_config.json`, or null.
    pub(super) generation: Value,
    name: String,
    head_dim: usize,
    sizes: Vec<(&'static str, u32)>,
    epsilon: f32,
    theta: f32,
    rope: Rope,
}

/// How rope frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rope {
    Plain,
    Linear { factor: f64 },
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
}

impl Model {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for what is missing or what this writer does not know.
    pub(in crate::export) fn read(input: &CompressedFolder) -> Result<Self> {
        let folder = input.stored.folder();
        let config = input.stored.config().ok_or_else(|| {
            Error::checkpoint(folder, "has no config.json, whose sizes a GGUF file needs")
        })?;
        let wrong = |message: String| Error::checkpoint(config.path(), message);
        let json = config.json().clone();
        let kind = config.model_type();
        let family = families().find(|family| family.hf == kind).ok_or_else(|| {
            let known: Vec<&str> = families().map(|family| family.hf).collect();
            wrong(format!(
                "model_type {kind:?} cannot be written as GGUF; these can: {}",
                known.join(", ")
            ))
        })?;
        let size = |key: &str| {
            let value = json[key].as_u64().and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
            value.ok_or_else(|| wrong(format!("has no size {key:?}")))
        };
        let heads = size("num_attention_heads")?;
        let kv_heads = if json["num_key_value_heads"].is_null() {
            heads
        } else {
            size("num_key_value_heads")?
        };
        let hidden = size("hidden_size")?;
        let head_dim = if json["head_dim"].is_null() { hidden / heads } else { size("head_dim")? };
        if json["sliding_window"].as_u64().is_some() && json["use_sliding_window"] != false {
            // llama.cpp has no window for these architectures: longer contexts would differ.
            tracing::warn!(
                "{}: the sliding window is not part of a GGUF file",
                config.path().display()
            );
        }
        let epsilon =
            json["rms_norm_eps"].as_f64().ok_or_else(|| wrong("has no rms_norm_eps".into()))?;
        let parameters = [&json["rope_parameters"], &json["rope_scaling"]];
        let parameters = parameters.into_iter().find(|p| p.is_object()).unwrap_or(&Value::Null);
        let theta = parameters["rope_theta"].as_f64().or(json["rope_theta"].as_f64());
        let name = config.name().unwrap_or(kind).to_owned();
        Ok(Self {
            family,
            heads: heads as usize,
            kv_heads: kv_heads as usize,
            vocab_size: size("vocab_size")? as usize,
            name,
            head_dim: head_dim as usize,
            sizes: vec![
                ("vocab_size", size("vocab_size")?),
                ("context_length", size("max_position_embeddings")?),
                ("embedding_length", hidden),
                ("block_count", size("num_hidden_layers")?),
                ("feed_forward_length", size("intermediate_size")?),
                ("attention.head_count", heads),
                ("attention.head_count_kv", kv_heads),
                ("attention.key_length", head_dim),
                ("attention.value_length", head_dim),
                ("rope.dimension_count", head_dim),
            ],
            epsilon: epsilon as f32,
            theta: theta.unwrap_or(10_000.0) as f32,
            rope: Rope::read(parameters).map_err(wrong)?,
            generation: read_json(&folder.join("generation_config.json"))?,
            config: json,
        })
    }

    /// Adds the metadata of the model.
    pub(super) fn describe(&self, header: &mut HeaderWriter, file_type: u32) {
        let arch = self.family.gguf;
        header.text("general.architecture", arch);
        header.text("general.type", "model");
        header.text("general.name", &self.name);
        header.text("general.quantized_by", TOOL);
        header.u32("general.quantization_version", 2);
        header.u32("general.file_type", file_type);
        for (key, value) in &self.sizes {
            header.u32(&format!("{arch}.{key}"), *value);
        }
        header.f32(&format!("{arch}.attention.layer_norm_rms_epsilon"), self.epsilon);
        header.f32(&format!("{arch}.rope.freq_base"), self.theta);
        if let Rope::Linear { factor } = self.rope {
            header.text(&format!("{arch}.rope.scaling.type"), "linear");
            header.f32(&format!("{arch}.rope.scaling.factor"), factor as f32);
        }
    }

    /// What each frequency of the rope is divided by, for a rope that is stretched unevenly.
    pub(super) fn rope_factors(&self) -> Option<Vec<f32>> {
        let Rope::Llama3 { factor, low, high, original } = self.rope else { return None };
        let one = |i: usize| {
            let exponent = -((2 * i) as f64) / self.head_dim as f64;
            let turns = original * f64::from(self.theta).powf(exponent) / TAU;
            let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 / ((1.0 - share) / factor + share)) as f32
        };
        Some((0..self.head_dim / 2).map(one).collect())
    }
}

impl Rope {
    fn read(parameters: &Value) -> Result<Self, String> {
        let kind = parameters["rope_type"].as_str().or(parameters["type"].as_str());
        let number =
            |key: &str| parameters[key].as_f64().ok_or_else(|| format!("the rope has no {key}"));
        match kind.unwrap_or("default") {
            "default" => Ok(Self::Plain),
            "linear" => Ok(Self::Linear { factor: number("factor")? }),
            "llama3" => Ok(Self::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original: number("original_max_position_embeddings")?,
            }),
            other => Err(format!("rope type {other:?} cannot be written as GGUF")),
        }
    }
}
