//! Recovery adapters: the top singular directions of a weight as a LoRA adapter.
//!
//! - [`truncated_svd`]: the leading singular triplets of a matrix that is read panel by panel.
//! - [`Adapter`]: W ≈ B·A in fp16, taken out of a weight before it is coded and put back after.
//! - [`PeftWriter`] and [`PeftReader`]: the files that PEFT calls an adapter.
//!
//! Results are the same at any number of threads: work is cut by shape alone, and partial sums
//! are added in a fixed order.
#![forbid(unsafe_code)]

mod adapter;
mod error;
#[cfg(feature = "lapack")]
pub mod lapack;
mod panels;
mod peft;
mod svd;

pub use adapter::Adapter;
pub use error::Error;
pub use panels::{DenseMatrix, PanelError, Panels};
pub use peft::{CONFIG_FILE, PeftReader, PeftWriter, PlannedAdapter, WEIGHTS_FILE};
pub use svd::{SvdOptions, TruncatedSvd, truncated_svd, working_set_bytes};
