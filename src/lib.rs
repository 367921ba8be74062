//! Model compression: checkpoints in, 2-bit or texture-coded folders out.
//!
//! The pipeline: open a [`checkpoint::Checkpoint`], choose a [`recipe::Recipe`], make a
//! [`pipeline::Plan`], run [`pipeline::compress`], then [`pipeline::verify`] or
//! [`pipeline::decompress`] what it wrote, or [`export::export`] its textures. The codecs
//! themselves are in the crates `compress-model-qat` (2-bit grid, 4-bit groups),
//! `compress-model-astc` (textures) and `compress-model-lora` (adapters).
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("weights are read in place as little-endian");

pub mod architecture;
#[cfg(feature = "model")]
pub mod budget;
mod build;
#[cfg(feature = "model")]
pub mod calibrate;
pub mod checkpoint;
#[doc(hidden)]
pub mod cli;
pub mod codec;
pub mod error;
#[cfg(feature = "model")]
pub mod eval;
pub mod export;
mod gguf;
mod memory;
#[cfg(feature = "model")]
pub mod model;
pub mod pipeline;
pub mod recipe;
#[cfg(feature = "model")]
pub mod solve;
#[cfg(feature = "model")]
pub mod train;
#[cfg(feature = "model")]
pub mod transform;
pub mod view;

pub use error::{Error, Result};
