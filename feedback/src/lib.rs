//! Rounding a weight matrix so that the layer's output changes least.
//!
//! A linear layer maps inputs x to W·x. Over the tokens of a calibration text its output changes
//! by Σ |(W - Ŵ)·x|² = tr((W - Ŵ)·H·(W - Ŵ)ᵀ) with H = XᵀX, the squared error *in the norm of H*.
//! Rounding each weight to the nearest level ignores H; this crate does not:
//!
//! - [`Gram`] adds up H over any number of tokens, and [`Hessian`] makes it fit to work with:
//!   damped until it has a Cholesky factor, dead inputs counted.
//! - [`Factor`] is H = M·Mᵀ with M upper triangular, in an order of the columns that puts those
//!   that matter most first.
//! - [`round`] codes column after column and spreads what is left of each over the columns still
//!   to come (GPTQ, arXiv 2210.17323; the same as LDLQ of QuIP, arXiv 2307.13304).
//! - [`descend`] then codes every column again, given all others, and refits scales: each step
//!   lowers the error in the norm of H or is left out.
//!
//! What a level is, which columns are coded together and which weights share a scale is up to a
//! [`ColumnCoder`]: one column of the 2-bit grid, or six of 6x6 texture blocks.
//!
//! Rows do not depend on each other, so a matrix is worked off in [`Panel`]s of rows on any number
//! of threads with the same result.
#![forbid(unsafe_code)]

mod coder;
mod descend;
mod error;
mod factor;
mod gram;
mod hessian;
mod norm;
mod panel;
mod round;
mod triangle;
mod unit;

pub use coder::ColumnCoder;
pub use descend::descend;
pub use error::Error;
pub use factor::{Factor, Order};
pub use gram::{CrossGram, Gram};
pub use hessian::{Damping, Hessian};
pub use norm::{difference, squared_norm};
pub use panel::Panel;
pub use round::round;
