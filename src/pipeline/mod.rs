//! From checkpoint to output folder and back: plan, compress, decompress, verify.

mod adapters;
pub(crate) mod card;
mod coding;
mod compress;
mod compressed;
pub(crate) mod decibels;
mod decompress;
mod error_sums;
mod files;
mod journal;
pub mod manifest;
mod memory;
mod panels;
mod plan;
mod progress;
mod rebuild;
mod record;
mod scan;
mod solved;
pub mod units;
mod verify;
#[cfg(feature = "gpu")]
mod verify_gpu;
mod waves;

pub use card::QUANT_METHOD;
pub use compress::{CompressReport, WorstTensor, compress, compress_resumable};
pub use compressed::CompressedFolder;
pub(crate) use compressed::DecodedPanel;
pub use decompress::{
    ADAPTER_FOLDER, AdapterMode, DecompressOptions, DecompressReport, OutputDtype, decompress,
};
pub use error_sums::ErrorSums;
pub use manifest::Transformation;
#[cfg(feature = "model")]
pub(crate) use memory::BASE_BYTES;
pub(crate) use panels::{Panel, panels};
pub use plan::{Fate, Plan, PlannedTensor, Totals, bits_per_weight};
pub use progress::{Progress, Silent};
pub use rebuild::rebuild;
pub(crate) use scan::hash_tensor;
#[cfg(feature = "model")]
pub(crate) use scan::source_fingerprint;
#[cfg(feature = "model")]
pub(crate) use solved::TRAINED;
pub use solved::{SolveReport, SolvedLayer, Solver, Spool};
pub use verify::{TensorCheck, VerifyReport, another_checkpoint, verify};
#[cfg(feature = "gpu")]
pub use verify_gpu::{GpuReference, GpuReport, TexelDifference, texture_codecs, verify_gpu};
