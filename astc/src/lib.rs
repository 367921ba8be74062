//! Weights as ASTC textures: block codec, reference decoder, texture layout.
//!
//! A matrix becomes a one-channel LDR texture with a scale for each row: texel t = 0.5 + w/(2a),
//! decoded weight ŵ = a·(2t̂ - 1). [`Coder`] turns rows into 16-byte blocks and back,
//! [`decode`] is the bit-exact reference for single blocks, [`tables`] holds what readers and
//! writers of blocks share. [`bc4`] does the same with BC4 blocks, for GPUs without ASTC.
//!
//! ```
//! # #[cfg(feature = "astcenc")] {
//! use compress_model_astc::{ArmQuality, BlockGrid, Coder, DecodeMode, Encoder, Params};
//! use half::f16;
//!
//! let footprint = "6x6".parse()?;
//! let encoder = Encoder::Arm(ArmQuality::Fast);
//! let mut coder = Coder::new(Params { footprint, decode: DecodeMode::Unorm8, encoder })?;
//!
//! let (rows, cols) = (6, 12);
//! let weights: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.7).sin()).collect();
//! let mut blocks = vec![0; BlockGrid::new(rows, cols, footprint).byte_len()];
//! let mut scales = vec![f16::ZERO; rows];
//! coder.encode_rows(&weights, rows, cols, &mut blocks, &mut scales)?;
//! assert_eq!(blocks.len(), 2 * 16);
//!
//! let mut decoded = vec![0.0; rows * cols];
//! coder.decode_rows(&blocks, &scales, rows, cols, &mut decoded)?;
//! assert!(weights.iter().zip(&decoded).all(|(w, d)| (w - d).abs() < 1.0));
//! # }
//! # Ok::<(), compress_model_astc::Error>(())
//! ```

#[cfg(feature = "astcenc")]
mod arm;
pub mod bc4;
mod coder;
pub mod decode;
pub mod encode;
mod error;
mod footprint;
#[cfg(feature = "gpu")]
pub mod gpu;
mod grid;
pub mod hdr;
mod row_scale;
mod simd;
pub mod tables;
mod texel_mode;
mod texture;

pub use coder::{ArmQuality, Coder, DecodeMode, Encoder, Params, RowScale, full_range_scales};
pub use error::Error;
pub use footprint::Footprint;
pub use grid::BlockGrid;
pub use texel_mode::{TexelMode, TextureCodec};
pub use texture::{TexelPosition, TextureLayout, Tile};
