//! Training: weights on the 2-bit grid (`qat`), and the adapters of a compressed model (`recover`).
//!
//! Both learn from the original model, on text: `loss.rs` says what is minimised. Weights, scales
//! and optimiser are those of [`compress_model_qat::train`], which also runs the steps; the forward
//! and backward passes are those of [`crate::model`]. What training starts from is a compressed
//! folder, and what it gives goes through [`crate::pipeline::compress`] like any other run.

mod blocks;
mod finished;
mod layer;
mod log;
mod loss;
mod memory;
mod network;
mod options;
mod pack;
mod qat;
mod recover;
mod report;
mod run;
mod state;
mod subject;
mod teacher;
mod text;

pub use blocks::BlockReport;
pub use log::{CURVE_FILE, Evaluation, LOG_FILE, TrainProgress};
pub use options::TrainOptions;
pub use pack::{Latent, pack};
pub use qat::{QatStart, qat};
pub use recover::{recover, with_ranks};
pub use report::TrainReport;
pub use run::{TrainRequest, Watch};
pub use text::TrainingText;
