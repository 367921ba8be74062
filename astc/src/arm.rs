//! ARM's astcenc behind strip-sized calls; no C type leaves this file.

use std::ffi::c_void;
use std::fmt;

use ctt_astcenc::bindings::{astcenc_image, astcenc_type_ASTCENC_TYPE_F32};
use ctt_astcenc::{Context, Flags, Preset, Profile, Swizzle, config_init};
use half::f16;

use crate::row_scale::texel;
use crate::{ArmQuality, DecodeMode, Error, Footprint};

/// One single-threaded astcenc context and the image it reads from.
pub(crate) struct ArmContext {
    context: Context,
    texels: Vec<[f32; 4]>,
}

impl fmt::Debug for ArmContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArmContext").finish_non_exhaustive()
    }
}

impl ArmContext {
    pub(crate) fn new(
        footprint: Footprint,
        decode: DecodeMode,
        quality: ArmQuality,
    ) -> Result<Self, Error> {
        let preset = match quality {
            ArmQuality::Fastest => Preset::Fastest,
            ArmQuality::Fast => Preset::Fast,
            ArmQuality::Medium => Preset::Medium,
            ArmQuality::Thorough => Preset::Thorough,
            ArmQuality::Exhaustive => Preset::Exhaustive,
        };
        // The context only encodes, so it may leave out tables for blocks it would never write;
        // that makes it cheaper to build and changes no byte.
        let flags = Flags::SELF_DECOMPRESS_ONLY
            | match decode {
                DecodeMode::Unorm8 => Flags::USE_DECODE_UNORM8,
                DecodeMode::Fp16 => Flags::empty(),
            };
        let (width, height) = (footprint.width() as u32, footprint.height() as u32);
        let config = config_init(Profile::Ldr, width, height, 1, preset, flags)
            .map_err(|e| astcenc_error(&e))?;
        let context = Context::new(&config).map_err(|e| astcenc_error(&e))?;
        Ok(Self { context, texels: Vec::new() })
    }

    /// Encodes one row of blocks: `scales.len()` matrix rows, at most the footprint's height.
    ///
    /// astcenc repeats the last texel over the right and lower edge.
    pub(crate) fn encode_strip(
        &mut self,
        w: &[f32],
        cols: usize,
        scales: &[f16],
        blocks: &mut [u8],
    ) -> Result<(), Error> {
        debug_assert_eq!(w.len(), cols * scales.len());
        self.texels.clear();
        for (weights, scale) in w.chunks_exact(cols).zip(scales) {
            let scale = scale.to_f32();
            self.texels.extend(weights.iter().map(|&w| [texel(w, scale), 0.0, 0.0, 1.0]));
        }
        let mut plane: *mut c_void = self.texels.as_mut_ptr().cast();
        // astcenc reads cols x scales.len() RGBA texels through this pointer during the call below.
        let mut image = astcenc_image {
            dim_x: cols as u32,
            dim_y: scales.len() as u32,
            dim_z: 1,
            data_type: astcenc_type_ASTCENC_TYPE_F32,
            data: &mut plane,
        };
        self.context.compress(&mut image, Swizzle::RRR1, blocks).map_err(|e| astcenc_error(&e))?;
        // Without the reset the next call reports success and writes nothing.
        self.context.compress_reset().map_err(|e| astcenc_error(&e))
    }
}

fn astcenc_error(error: &ctt_astcenc::Error) -> Error {
    Error::Astcenc(error.to_string())
}
