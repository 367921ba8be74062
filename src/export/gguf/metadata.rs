//! The model's sizes as GGUF metadata (ggml/docs/gguf.md, "Standardized key-value pairs").

use serde_json::Value;

use crate::architecture::{Activation, Architecture, Scaling};
use crate::checkpoint::read_json;
use crate::error::{Error, Result};
use crate::gguf::{Family, HeaderWriter, families};
use crate::pipeline::CompressedFolder;
use crate::pipeline::manifest::TOOL;

/// What the metadata says about the model.
#[derive(Debug)]
pub(in crate::export) struct Model {
    pub(in crate::export) family: Family,
    pub(in crate::export) architecture: Architecture,
    pub(super) config: Value,
    /// `generation_config.json`, or null.
    pub(super) generation: Value,
    name: String,
}

impl Model {
    /// Reads `config.json`, and makes sure that llama.cpp computes what it says.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a configuration that llama.cpp's graph of the family has no form for.
    pub(in crate::export) fn read(input: &CompressedFolder) -> Result<Self> {
        let folder = input.stored.folder();
        let config = input.stored.config().ok_or_else(|| {
            Error::checkpoint(folder, "has no config.json, whose sizes a GGUF file needs")
        })?;
        let wrong = |message: String| Error::checkpoint(config.path(), message);
        let kind = config.model_type();
        let family = families().find(|family| family.hf == kind).ok_or_else(|| {
            let known: Vec<&str> = families().map(|family| family.hf).collect();
            wrong(format!(
                "model_type {kind:?} cannot be written as GGUF; these can: {}",
                known.join(", ")
            ))
        })?;
        let architecture = Architecture::parse(config.json()).map_err(wrong)?;
        if let Some(what) = not_in_llama_cpp(family, &architecture) {
            return Err(wrong(format!("llama.cpp's {} models have no {what}", family.gguf)));
        }
        if let Some(window) = architecture.short_window() {
            tracing::warn!(
                "{}: llama.cpp's {} models have no sliding window: texts longer than {window} tokens \
                 give other numbers",
                config.path().display(),
                family.gguf
            );
        }
        Ok(Self {
            family,
            architecture,
            config: config.json().clone(),
            generation: read_json(&folder.join("generation_config.json"))?,
            name: config.name().unwrap_or(kind).to_owned(),
        })
    }

    /// Adds the metadata of the model.
    pub(super) fn describe(&self, header: &mut HeaderWriter, file_type: u32) {
        let arch = self.family.gguf;
        let a = &self.architecture;
        header.text("general.architecture", arch);
        header.text("general.type", "model");
        header.text("general.name", &self.name);
        header.text("general.quantized_by", TOOL);
        header.u32("general.quantization_version", 2);
        header.u32("general.file_type", file_type);
        for (key, value) in [
            ("vocab_size", a.vocab_size),
            ("context_length", a.max_positions),
            ("embedding_length", a.hidden_size),
            ("block_count", a.layers.len()),
            ("feed_forward_length", a.intermediate_size),
            ("attention.head_count", a.heads),
            ("attention.head_count_kv", a.kv_heads),
            ("attention.key_length", a.head_dim),
            ("attention.value_length", a.head_dim),
            ("rope.dimension_count", a.head_dim),
        ] {
            header.u32(&format!("{arch}.{key}"), value as u32);
        }
        header.f32(&format!("{arch}.attention.layer_norm_rms_epsilon"), a.norm_eps);
        let rope = &a.ropes[0];
        header.f32(&format!("{arch}.rope.freq_base"), rope.theta as f32);
        if let Scaling::Linear { factor } = rope.scaling {
            header.text(&format!("{arch}.rope.scaling.type"), "linear");
            header.f32(&format!("{arch}.rope.scaling.factor"), factor as f32);
        }
    }

    /// What each frequency of the rope is divided by, for a rope that is stretched unevenly.
    pub(super) fn rope_factors(&self) -> Option<Vec<f32>> {
        let Architecture { ropes, head_dim, .. } = &self.architecture;
        let Scaling::Llama3 { .. } = ropes[0].scaling else { return None };
        Some(ropes[0].factors(*head_dim).into_iter().map(|factor| factor as f32).collect())
    }
}

/// What the configuration has that llama.cpp does not load or compute for the family.
fn not_in_llama_cpp(family: Family, a: &Architecture) -> Option<String> {
    if a.activation != Activation::Silu {
        return Some(format!("activation {:?}", a.activation));
    }
    if family.gguf == "llama" {
        return None;
    }
    // Only Llama's graph reads frequency factors and a bias of the attention's output.
    if let Scaling::Llama3 { .. } = a.ropes[0].scaling {
        return Some("rope of type llama3".to_owned());
    }
    if a.output_bias {
        return Some("attention_bias".to_owned());
    }
    if family.gguf == "qwen2" && a.heads * a.head_dim != a.hidden_size {
        return Some(format!(
            "head_dim but hidden_size / num_attention_heads, here {}",
            a.head_dim
        ));
    }
    None
}
