//! The fields of a block (KDF 1.3 sections 23.9 to 23.14 and 23.23).

use crate::Footprint;
use crate::tables::{BlockMode, Infill, Quant, colour_values, read_ise, weight_values};

/// The rule of the standard that a block breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The block mode is reserved, or its weights are too many, too few or too long.
    #[error("reserved block mode")]
    ReservedMode,
    /// The weight grid is larger than the footprint.
    #[error("weight grid larger than the footprint")]
    GridTooLarge,
    /// Four partitions with two planes of weights.
    #[error("dual plane with four partitions")]
    DualPlaneFourPartitions,
    /// More than 18 endpoint values.
    #[error("more than 18 endpoint values")]
    TooManyEndpointValues,
    /// The endpoint values do not fit at 6 levels.
    #[error("endpoint values do not fit")]
    EndpointsDoNotFit,
    /// Void-extent coordinates or reserved bits are invalid.
    #[error("malformed void extent")]
    VoidExtent,
    /// A void-extent block of fp16 colour in an LDR image.
    #[error("HDR void extent in an LDR image")]
    HdrConstant,
}

/// A block whose fields are legal.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one block")]
pub(super) enum Block {
    /// One colour: unorm16, or the bits of fp16 in HDR.
    Constant { hdr: bool, colour: [u16; 4] },
    /// Endpoints and weights.
    Interpolated(Interpolated),
}

/// The fields of an ordinary block, unquantised.
#[derive(Debug)]
pub(super) struct Interpolated {
    pub(super) grid_width: u8,
    pub(super) grid_height: u8,
    /// Channel that the second plane of weights drives.
    pub(super) second_plane: Option<usize>,
    pub(super) partitions: usize,
    pub(super) seed: u16,
    /// Colour endpoint mode of each partition, 0..=15.
    pub(super) formats: [u8; 4],
    /// Endpoint values 0..=255 of all partitions, one after the other.
    pub(super) endpoints: [u8; MAX_ENDPOINT_VALUES],
    /// Weights 0..=64 of both planes.
    pub(super) weights: [[u8; Infill::PADDED_WEIGHTS]; 2],
}

const MAX_ENDPOINT_VALUES: usize = 18;
const SEED_BITS: u32 = 10;

fn field(bits: u128, position: u32, width: u32) -> u32 {
    (bits >> position) as u32 & ((1 << width) - 1)
}

/// Endpoint values that a colour endpoint mode takes: 2, 4, 6 or 8.
pub(super) fn endpoint_values(format: u8) -> usize {
    2 * (usize::from(format >> 2) + 1)
}

impl Block {
    pub(super) fn parse(bits: u128, footprint: Footprint) -> Result<Self, BlockError> {
        if field(bits, 0, 9) == 0b1_1111_1100 {
            return parse_constant(bits);
        }
        let mode = BlockMode::decode(field(bits, 0, 11) as u16).ok_or(BlockError::ReservedMode)?;
        if !mode.fits(footprint) {
            return Err(BlockError::GridTooLarge);
        }
        let partitions = field(bits, 11, 2) as usize + 1;
        if mode.dual_plane && partitions == 4 {
            return Err(BlockError::DualPlaneFourPartitions);
        }

        let mut top = 128 - mode.weight_bits() as u32;
        let formats = parse_formats(bits, partitions, &mut top);
        let second_plane = mode.dual_plane.then(|| {
            top -= 2;
            field(bits, top, 2) as usize
        });
        let endpoints = parse_endpoints(bits, partitions, formats, top)?;
        Ok(Self::Interpolated(Interpolated {
            grid_width: mode.grid_width,
            grid_height: mode.grid_height,
            second_plane,
            partitions,
            seed: field(bits, 13, SEED_BITS) as u16,
            formats,
            endpoints,
            weights: parse_weights(bits, mode),
        }))
    }
}

/// A void-extent block. Its rectangle promises a constant region and never changes the result,
/// but it must be well formed or all ones.
fn parse_constant(bits: u128) -> Result<Block, BlockError> {
    let corner = |position| field(bits, position, 13);
    let (low_s, high_s, low_t, high_t) = (corner(12), corner(25), corner(38), corner(51));
    let absent = [low_s, high_s, low_t, high_t].iter().all(|&c| c == 0x1FFF);
    if field(bits, 10, 2) != 0b11 || (!absent && (low_s >= high_s || low_t >= high_t)) {
        return Err(BlockError::VoidExtent);
    }
    let colour = [64, 80, 96, 112].map(|position| (bits >> position) as u16);
    Ok(Block::Constant { hdr: field(bits, 9, 1) == 1, colour })
}

/// Colour endpoint mode of each partition; lowers `top`, the end of the bits not yet read, past
/// the mode bits that are stored below the weights.
fn parse_formats(bits: u128, partitions: usize, top: &mut u32) -> [u8; 4] {
    if partitions == 1 {
        return [field(bits, 13, 4) as u8, 0, 0, 0];
    }
    let low = field(bits, 13 + SEED_BITS, 6);
    let Some(base_class) = (low & 3).checked_sub(1) else {
        return [(low >> 2) as u8; 4];
    };
    let high_width = 3 * partitions as u32 - 4;
    *top -= high_width;
    let encoded = (low | (field(bits, *top, high_width) << 6)) >> 2;
    let mut formats = [0; 4];
    for (partition, format) in formats.iter_mut().take(partitions).enumerate() {
        let class = base_class + ((encoded >> partition) & 1);
        let within_class = (encoded >> (partitions + 2 * partition)) & 3;
        *format = ((class << 2) | within_class) as u8;
    }
    formats
}

/// The endpoint values, in the largest range that fits between the header and `top`.
fn parse_endpoints(
    bits: u128,
    partitions: usize,
    formats: [u8; 4],
    top: u32,
) -> Result<[u8; MAX_ENDPOINT_VALUES], BlockError> {
    let start: u32 = if partitions == 1 { 17 } else { 29 };
    let count = formats[..partitions].iter().map(|&format| endpoint_values(format)).sum();
    if count > MAX_ENDPOINT_VALUES {
        return Err(BlockError::TooManyEndpointValues);
    }
    let quant = Quant::largest_fitting(count, top.saturating_sub(start) as usize)
        .filter(|&quant| quant >= Quant::COLOUR_MIN)
        .ok_or(BlockError::EndpointsDoNotFit)?;
    let mut endpoints = [0; MAX_ENDPOINT_VALUES];
    let values = colour_values(quant);
    read_ise(bits, start as usize, quant, &mut endpoints[..count]);
    for value in &mut endpoints[..count] {
        *value = values[usize::from(*value)];
    }
    Ok(endpoints)
}

/// The weights of both planes; those of two planes are stored alternately.
fn parse_weights(bits: u128, mode: BlockMode) -> [[u8; Infill::PADDED_WEIGHTS]; 2] {
    let mut stored = [0; 64];
    let stored = &mut stored[..mode.weight_count()];
    read_ise(bits.reverse_bits(), 0, mode.weights, stored);
    let values = weight_values(mode.weights);
    let planes = if mode.dual_plane { 2 } else { 1 };
    let mut weights = [[0; Infill::PADDED_WEIGHTS]; 2];
    for (index, &value) in stored.iter().enumerate() {
        weights[index % planes][index / planes] = values[usize::from(value)];
    }
    weights
}
