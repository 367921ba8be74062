//! How good a model is: perplexity, divergence from the original, answers to questions, gates,
//! and what it says.
//!
//! [`evaluate`] runs one model, or two side by side, over the windows of a text and over
//! multiple-choice questions; no logits are written anywhere. [`generate`](generate()) continues
//! a prompt. Conventions and definitions of the figures are in `docs/evaluation.md`.

mod divergence;
mod evaluate;
mod gate;
mod generate;
mod likelihood;
mod metrics;
mod pieces;
mod progress;
mod questions;
mod sampler;
mod softmax;
mod statistics;
mod stream;
mod subject;
#[cfg(test)]
mod table_model;
mod tasks;
mod text;
mod text_file;
mod top;
mod windows;

pub(crate) use divergence::mean_divergence;
pub use evaluate::{EvalOptions, EvalReport, evaluate};
pub use gate::{Gates, Verdict, broken_gates};
pub use generate::{Generated, Stop, generate};
pub use metrics::{Comparison, Spread, TextScores};
pub use progress::{EvalProgress, Silent};
pub use questions::{Question, TaskSet};
pub use sampler::{Sampler, Sampling};
pub use statistics::{Estimate, Share};
pub use subject::{Identity, Subject};
pub use tasks::{MethodScores, TaskScores};
pub use text::{Markup, TOKENIZER_FILE, TextTokenizer};
pub use text_file::Text;
pub use windows::{MIN_CTX, TextReport, Windows};
