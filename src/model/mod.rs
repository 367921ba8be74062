//! Running a model: what a causal language model gives, whatever its architecture and storage.

mod causal;

pub use causal::{CausalModel, Continuation};
