//! Tests of the codecs against independent programs, brute force and themselves.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod any_bytes;
#[cfg(feature = "astcenc")]
mod astcenc;
mod bc4;
#[cfg(feature = "astcenc")]
mod coder;
#[cfg(feature = "astcenc")]
mod decoder_against_astcenc;
mod decoder_against_astcenc_command;
mod decoder_against_basisu;
mod hdr;
#[path = "../random_blocks/mod.rs"]
mod random_blocks;
#[cfg(feature = "astcenc")]
mod weights_against_astcenc;
