//! Low-bit codes for weight matrices: the balanced 2-bit grid and 4-bit groups.
//!
//! - [`Grid2`]: ŵ = s·q with q in {-1.5, -0.5, 0.5, 1.5}, one scale a row or a group.
//! - [`Int4`]: ŵ = scale·q + min with q in 0..=15, for embeddings.
//! - [`newton`]: the exact least-squares scale of the 2-bit grid.
//! - [`ScaleEma`]: that scale followed by a moving average while the weights are trained.
//! - [`train`](mod@train): quantisation-aware training: fake quantisation, optimiser, loop.
//! - [`pack`]: codes to bytes and back.
//!
//! Matrices are row-major f32 slices; a row is an output channel. Codes are written as they will
//! be read: a scale is rounded to fp16 first and the codes are chosen for the rounded scale. The
//! same weights give the same bytes on every machine: sums run over a fixed number of lanes in a
//! fixed order, whichever vector unit executes them.
//!
//! ```
//! use compress_model_qat::Grid2;
//! use half::f16;
//!
//! let weights = [0.1, -0.3, 0.9, -1.1, 0.5];
//! let grid = Grid2::per_row();
//! let mut codes = vec![0; grid.code_bytes_per_row(5)];
//! let mut scales = vec![f16::ZERO; grid.scales_per_row(5)];
//! grid.encode_rows(&weights, 5, &mut codes, &mut scales)?;
//!
//! let mut decoded = [0.0; 5];
//! grid.decode_rows(&codes, &scales, 5, &mut decoded);
//! let scale = scales[0].to_f32();
//! assert_eq!(decoded, [0.5, -0.5, 1.5, -1.5, 0.5].map(|q| scale * q));
//! # Ok::<(), compress_model_qat::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod newton;
pub mod pack;
pub mod train;

mod ema;
mod error;
mod grid2;
mod groups;
mod int4;
mod lanes;

pub use ema::{DecayError, ScaleEma};
pub use error::Error;
pub use grid2::Grid2;
pub use int4::Int4;
