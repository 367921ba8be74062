//! The GPU paths against the CPU. In a binary of their own: the tests share the opened adapters, so
//! they run in one process, where a software renderer compiles its shaders once.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod adapters;
mod decode;
mod products;
#[path = "../random_blocks/mod.rs"]
mod random_blocks;
