//! What a reader and a writer of ASTC blocks share: Khronos Data Format Specification 1.3,
//! chapter 23 (ASTC), in exact integer arithmetic.
//!
//! A block is handled as one `u128`, `u128::from_le_bytes` of its 16 bytes: bit 0 of the
//! specification is bit 0 of the integer. Weights are stored from bit 127 downwards, which is a
//! sequence from bit 0 upwards of `block.reverse_bits()`.
//!
//! - [`Quant`]: the 21 quantisation ranges and the size of a sequence in them;
//! - [`read_ise`], [`write_ise`]: bounded integer sequence encoding;
//! - [`colour_values`], [`weight_values`]: stored integer to endpoint (0..=255) or weight (0..=64);
//! - [`BlockMode`]: the 11-bit block mode, both ways;
//! - [`Infill`]: texel weights from a grid coarser than the footprint;
//! - [`select_partition`], [`distinct_patterns`]: the partition hash and its distinct patterns.

mod block_mode;
mod infill;
mod ise;
mod partition;
mod quant;
mod unquant;

pub use block_mode::BlockMode;
pub use infill::{Infill, InfillPoint};
pub use ise::{QUINT_BLOCKS, TRIT_BLOCKS, pack_quints, pack_trits, read_ise, write_ise};
pub use partition::{
    PARTITION_SEEDS, PartitionPattern, PartitionPlanes, distinct_patterns, is_small_block,
    select_partition,
};
pub use quant::Quant;
pub use unquant::{colour_values, weight_values};
