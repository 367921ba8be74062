//! Weights as ASTC textures: block codec, reference decoder, texture layout.

mod error;
mod footprint;
pub mod tables;

pub use error::Error;
pub use footprint::Footprint;
