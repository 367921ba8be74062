//! Decoding on the GPU through wgpu: Vulkan, GL, Metal or Direct3D 12, loaded at run time.
//!
//! [`GpuAdapter`] lists and opens the adapters, [`SelfTest`] says what a texture unit really
//! returns, [`GpuDecoder`] uploads matrices and decodes them along one [`DecodePath`]: sampled
//! from ASTC or BC4 textures, or computed from the blocks by a shader on adapters without them. Both
//! give the weights of the CPU reference bit for bit. No failure of a driver panics, and nothing falls
//! back to the CPU.
//!
//! ```no_run
//! use compress_model_astc::gpu::{GpuAdapter, GpuDecoder, PathChoice};
//! use compress_model_astc::{BlockGrid, DecodeMode, TextureCodec};
//! use half::f16;
//!
//! let gpu = GpuAdapter::find(None, &[TextureCodec::Astc])?.open()?;
//! let decoder = GpuDecoder::choose(&gpu, PathChoice::Auto, DecodeMode::Unorm8)?;
//! println!("{}: {}", gpu.info().label(), decoder.path());
//!
//! let grid = BlockGrid::new(6, 12, "6x6".parse()?);
//! let matrix = decoder.upload(grid, &[0; 32], &[f16::ONE; 6])?;
//! let mut weights = vec![0.0; 6 * 12];
//! decoder.decode(&matrix, 0..6, &mut weights)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adapter;
mod bindings;
mod decoder;
mod device;
mod error;
mod format;
mod known;
mod matrix;
mod path;
mod product;
mod self_test;
mod tables;

pub use adapter::{AdapterInfo, AdapterKind, GpuAdapter};
pub use decoder::GpuDecoder;
pub use device::Gpu;
pub use error::GpuError;
pub use matrix::GpuMatrix;
pub use path::{DecodePath, PathChoice};
pub use product::{GpuLinear, GpuProducts, Grid2, Input, LowRank};
pub use self_test::{SelfTest, Verdict};
