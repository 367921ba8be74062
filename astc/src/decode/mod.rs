//! The reference decoder: every legal 2D block, bit-exact with the standard.
//!
//! KDF 1.3 chapter 23. Both legal result precisions are exact: [`decode_unorm8`] (top 8 bits of
//! the interpolated 16-bit value) and [`decode_fp16`] (rounded towards zero to fp16).
//!
//! A block that breaks a rule of the standard decodes to the error colour and is reported as a
//! [`BlockError`]; nothing panics on any 16 bytes. In LDR the error colour is magenta, so a
//! luminance reader, which samples red, gets texel 1, the row's scale. HDR endpoints inside an LDR
//! image are no block error: their partition alone is magenta, as in hardware.

mod block;
mod endpoints;
pub(crate) mod hdr;
pub(crate) mod luminance;
pub(crate) mod luminance_tables;
pub(crate) mod texels;

use half::f16;

pub use block::BlockError;
pub(crate) use luminance::LuminanceDecoder;

use crate::Footprint;
use block::Block;

/// Which blocks an fp16 reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// LDR endpoints only; anything else is magenta.
    Ldr,
    /// LDR and HDR endpoints; an illegal block is NaN (0xFFFF) throughout.
    Hdr,
}

const MAGENTA_UNORM8: [u8; 4] = [255, 0, 255, 255];
const MAGENTA_FP16: [f16; 4] = [f16::ONE, f16::ZERO, f16::ONE, f16::ONE];
const NAN_FP16: [f16; 4] = [f16::from_bits(0xFFFF); 4];

/// Decodes one block to RGBA as an LDR reader with `unorm8` results returns it.
///
/// `out` takes the footprint's texels in raster order.
///
/// # Errors
/// A [`BlockError`] if the block is illegal; `out` is magenta then.
///
/// # Panics
/// If `out` is not as long as the footprint has texels.
pub fn decode_unorm8(
    block: [u8; 16],
    footprint: Footprint,
    out: &mut [[u8; 4]],
) -> Result<(), BlockError> {
    assert_eq!(out.len(), footprint.texels());
    match Block::parse(u128::from_le_bytes(block), footprint) {
        Ok(Block::Constant { hdr: false, colour }) => {
            out.fill(colour.map(|c| c.to_le_bytes()[1]));
            Ok(())
        }
        Ok(Block::Constant { hdr: true, .. }) => {
            out.fill(MAGENTA_UNORM8);
            Err(BlockError::HdrConstant)
        }
        Ok(Block::Interpolated(block)) => {
            texels::for_each(&block, footprint, Profile::Ldr, |texel, value| {
                out[texel] = value.channels.map(|c| (c >> 8) as u8);
            });
            Ok(())
        }
        Err(error) => {
            out.fill(MAGENTA_UNORM8);
            Err(error)
        }
    }
}

/// Decodes one block to RGBA as a reader with fp16 results returns it.
///
/// `out` takes the footprint's texels in raster order.
///
/// # Errors
/// A [`BlockError`] if the block is illegal in `profile`; `out` is the error colour then.
///
/// # Panics
/// If `out` is not as long as the footprint has texels.
pub fn decode_fp16(
    block: [u8; 16],
    footprint: Footprint,
    profile: Profile,
    out: &mut [[f16; 4]],
) -> Result<(), BlockError> {
    assert_eq!(out.len(), footprint.texels());
    let parsed = match Block::parse(u128::from_le_bytes(block), footprint) {
        Ok(Block::Constant { hdr: true, .. }) if profile == Profile::Ldr => {
            Err(BlockError::HdrConstant)
        }
        parsed => parsed,
    };
    match parsed {
        Ok(Block::Constant { hdr, colour }) => {
            out.fill(colour.map(if hdr { f16::from_bits } else { texels::unorm16_to_fp16 }));
            Ok(())
        }
        Ok(Block::Interpolated(block)) => {
            texels::for_each(&block, footprint, profile, |texel, value| {
                out[texel] = value.to_fp16();
            });
            Ok(())
        }
        Err(error) => {
            out.fill(if profile == Profile::Ldr { MAGENTA_FP16 } else { NAN_FP16 });
            Err(error)
        }
    }
}
