//! Tests of the command and the library, a module a subject. One binary holds them all: with one
//! each, most of the time of a build went into linking the same libraries again and again.
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod bad_input;
#[cfg(feature = "model")]
mod border_runs;
#[cfg(feature = "model")]
mod calibrated;
mod cli;
mod defaults;
mod end_to_end;
#[cfg(feature = "model")]
mod eval;
mod export;
mod export_config;
mod format;
mod gguf_input;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod gpu_failures;
#[cfg(feature = "gpu")]
mod gpu_grid2;
mod interop;
mod lenient_input;
mod messages;
#[cfg(feature = "model")]
mod model;
mod mutations;
mod stopped;
mod streams;
mod support;
#[cfg(feature = "model")]
mod training;
#[cfg(feature = "model")]
mod transform;
mod units;
mod view;
mod view_decoder;
