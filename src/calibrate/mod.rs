//! Calibration: what the linear layers of a model see while it reads a text.
//!
//! A text is cut into windows, and the model reads them block by block: memory holds one block
//! and the sums over its inputs, and hidden states wait in a file. The sums H = XᵀX are what the
//! solvers of [`crate::solve`] need.

mod activations;
mod collect;
mod text;

pub(crate) use activations::Activations;
pub(crate) use collect::{collect, collect_head, step_all};
pub use text::{CalibrationText, TextSettings};
