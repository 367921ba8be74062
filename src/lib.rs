//! Model compression: checkpoints in, 2-bit or texture-coded folders out.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod error;

pub use error::{Error, Result};
