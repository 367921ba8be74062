//! Coding in the norm of a layer's inputs: the codes and adapters that change a layer's output
//! least, found by `compress-model-feedback` for any codec that can code column by column.

mod adapter;
mod layers;
mod matrix;
mod memory;
mod options;
mod parallel;
mod product;
mod sequential;
mod stack;
mod target;
#[cfg(test)]
mod tests;
mod trial;

pub use options::SolveOptions;
pub use parallel::Parallel;
pub use sequential::Sequential;
pub(crate) use trial::{adapter_shares, output_error, plain_codes};
