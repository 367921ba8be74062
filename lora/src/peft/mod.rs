//! The files of a PEFT LoRA adapter: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! A module at path M has `base_model.model.M.lora_A.weight` [r, in] and
//! `base_model.model.M.lora_B.weight` [out, r]; its update is (alpha / r)·B·A.

mod config;
mod read;
mod write;

pub use read::PeftReader;
pub use write::{PeftWriter, PlannedAdapter};

/// Name of the configuration file.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// Name of the weights file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

const PREFIX: &str = "base_model.model.";
const SUFFIX_A: &str = ".lora_A.weight";
const SUFFIX_B: &str = ".lora_B.weight";

fn key_a(module: &str) -> String {
    format!("{PREFIX}{module}{SUFFIX_A}")
}

fn key_b(module: &str) -> String {
    format!("{PREFIX}{module}{SUFFIX_B}")
}
