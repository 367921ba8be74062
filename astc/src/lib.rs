//! Weights as ASTC textures: block codec, reference decoder, texture layout.

#[cfg(feature = "astcenc")]
mod arm;
mod coder;
pub mod decode;
pub mod encode;
mod error;
mod footprint;
mod grid;
mod row_scale;
mod simd;
pub mod tables;

pub use coder::{ArmQuality, Coder, DecodeMode, Encoder, Params};
pub use error::Error;
pub use footprint::Footprint;
pub use grid::BlockGrid;
