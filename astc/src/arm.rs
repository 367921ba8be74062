//! ARM's astcenc behind strip-sized calls; no C type leaves this file.

use std::ffi::c_void;
use std::fmt;

use ctt_astcenc::bindings::{
    astcenc_image, astcenc_type, astcenc_type_ASTCENC_TYPE_F32, astcenc_type_ASTCENC_TYPE_U8,
};
use ctt_astcenc::{Context, Flags, Preset, Profile, Swizzle, config_init};
use half::f16;

use crate::row_scale::{texel, weight};
use crate::{ArmQuality, DecodeMode, Error, Footprint};

/// One single-threaded astcenc context and the image it reads from.
pub(crate) struct ArmContext {
    context: Context,
    decode: DecodeMode,
    texels: Vec<[f32; 4]>,
    texels_u8: Vec<[u8; 4]>,
}

impl fmt::Debug for ArmContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArmContext").field("decode", &self.decode).finish_non_exhaustive()
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
        let flags = match decode {
            DecodeMode::Unorm8 => Flags::USE_DECODE_UNORM8,
            DecodeMode::Fp16 => Flags::empty(),
        };
        let (width, height) = (footprint.width() as u32, footprint.height() as u32);
        let config = config_init(Profile::Ldr, width, height, 1, preset, flags)
            .map_err(|e| astcenc_error(&e))?;
        let context = Context::new(&config).map_err(|e| astcenc_error(&e))?;
        Ok(Self { context, decode, texels: Vec::new(), texels_u8: Vec::new() })
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
        self.texels.clear();
        for (weights, scale) in w.chunks_exact(cols).zip(scales) {
            let scale = scale.to_f32();
            self.texels.extend(weights.iter().map(|&w| [texel(w, scale), 0.0, 0.0, 1.0]));
        }
        let mut plane = self.texels.as_mut_ptr().cast();
        let mut image = image(cols, scales.len(), astcenc_type_ASTCENC_TYPE_F32, &mut plane);
        self.context.compress(&mut image, Swizzle::RRR1, blocks).map_err(|e| astcenc_error(&e))?;
        // Without the reset the next call reports success and writes nothing.
        self.context.compress_reset().map_err(|e| astcenc_error(&e))
    }

    /// Decodes one row of blocks, the reverse of [`encode_strip`](Self::encode_strip).
    pub(crate) fn decode_strip(
        &mut self,
        blocks: &[u8],
        scales: &[f16],
        cols: usize,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let count = cols * scales.len();
        match self.decode {
            DecodeMode::Unorm8 => {
                self.texels_u8.resize(count, [0; 4]);
                let mut plane = self.texels_u8.as_mut_ptr().cast();
                let mut image = image(cols, scales.len(), astcenc_type_ASTCENC_TYPE_U8, &mut plane);
                self.context.decompress(blocks, &mut image, Swizzle::IDENTITY)
            }
            DecodeMode::Fp16 => {
                self.texels.resize(count, [0.0; 4]);
                let mut plane = self.texels.as_mut_ptr().cast();
                let mut image =
                    image(cols, scales.len(), astcenc_type_ASTCENC_TYPE_F32, &mut plane);
                self.context.decompress(blocks, &mut image, Swizzle::IDENTITY)
            }
        }
        .map_err(|e| astcenc_error(&e))?;
        self.context.decompress_reset().map_err(|e| astcenc_error(&e))?;
        for (row, (out, scale)) in out.chunks_exact_mut(cols).zip(scales).enumerate() {
            let scale = scale.to_f32();
            for (col, out) in out.iter_mut().enumerate() {
                let texel = match self.decode {
                    DecodeMode::Unorm8 => f32::from(self.texels_u8[row * cols + col][0]) / 255.0,
                    DecodeMode::Fp16 => self.texels[row * cols + col][0],
                };
                *out = weight(texel, scale);
            }
        }
        Ok(())
    }
}

/// A 2D RGBA image over `plane`, which must point at width·height texels of `data_type` and
/// outlive the image.
fn image(
    width: usize,
    height: usize,
    data_type: astcenc_type,
    plane: &mut *mut c_void,
) -> astcenc_image {
    astcenc_image { dim_x: width as u32, dim_y: height as u32, dim_z: 1, data_type, data: plane }
}

fn astcenc_error(error: &ctt_astcenc::Error) -> Error {
    Error::Astcenc(error.to_string())
}
