//! Calibration: what the linear layers of a model see while it reads a text.
//!
//! A text is cut into windows, and the model reads them site by site: memory holds one block and
//! the sums over the inputs of one site, and hidden states wait in memory or in files. The sums
//! H = XᵀX are what the solvers of [`crate::solve`] need.

mod activations;
mod moments;
mod pass;
mod statistics;
mod stream;
mod text;

pub(crate) use activations::ActivationFile;
pub(crate) use moments::{
    Moments, collect_experts, collect_head, collect_site, pass_site, with_fallback,
};
pub use pass::{CalibrateReport, calibrate};
pub use statistics::{DESCRIPTION_FILE, SiteStatistics, Statistics};
pub(crate) use stream::Stream;
pub use text::{CalibrationText, TextSettings};
