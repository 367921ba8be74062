//! The files of a PEFT LoRA adapter: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! A module at path M has `base_model.model.M.lora_A.weight` [r, in] and
//! `base_model.model.M.lora_B.weight` [out, r]; its update is (alpha / r)·B·A. An embedding, whose
//! rows are looked up and not multiplied, has the transposes: `lora_embedding_A` [r, out], that of
//! B, and `lora_embedding_B` [in, r], that of A.

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

/// The module that an adapter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Linear,
    Embedding,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Linear, Self::Embedding];

    /// How the keys of the two factors end.
    fn suffixes(self) -> [&'static str; 2] {
        match self {
            Self::Linear => [".lora_A.weight", ".lora_B.weight"],
            Self::Embedding => [".lora_embedding_A", ".lora_embedding_B"],
        }
    }

    /// Keys of the two factors of `module`.
    fn keys(self, module: &str) -> [String; 2] {
        self.suffixes().map(|suffix| format!("{PREFIX}{module}{suffix}"))
    }
}

/// `matrix` of `cols` columns, transposed.
fn transposed<T: Copy>(matrix: &[T], cols: usize) -> Vec<T> {
    let rows = matrix.len() / cols.max(1);
    (0..cols).flat_map(|col| (0..rows).map(move |row| matrix[row * cols + col])).collect()
}
