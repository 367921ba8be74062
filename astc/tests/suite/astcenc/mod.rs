//! astcenc's decompressor.

use compress_model_astc::Footprint;
use ctt_astcenc::bindings::{
    astcenc_image, astcenc_type, astcenc_type_ASTCENC_TYPE_F16, astcenc_type_ASTCENC_TYPE_U8,
};
use ctt_astcenc::{Context, Flags, Preset, Profile, Swizzle, config_init};

/// astcenc's decompressor for one footprint, profile and precision.
pub(crate) struct Astcenc {
    context: Context,
    footprint: Footprint,
}

impl Astcenc {
    pub(crate) fn new(footprint: Footprint, profile: Profile, flags: Flags) -> Self {
        let (width, height) = (footprint.width() as u32, footprint.height() as u32);
        let flags = flags | Flags::DECOMPRESS_ONLY;
        let config = config_init(profile, width, height, 1, Preset::Fastest, flags).unwrap();
        Self { context: Context::new(&config).unwrap(), footprint }
    }

    /// RGBA texels of a row of blocks, row-major over the whole image.
    pub(crate) fn decode_u8(&mut self, blocks: &[u8]) -> Vec<[u8; 4]> {
        self.decode(blocks, astcenc_type_ASTCENC_TYPE_U8, [0; 4])
    }

    /// The same as the bits of fp16.
    pub(crate) fn decode_fp16(&mut self, blocks: &[u8]) -> Vec<[u16; 4]> {
        self.decode(blocks, astcenc_type_ASTCENC_TYPE_F16, [0; 4])
    }

    fn decode<T: Copy>(&mut self, blocks: &[u8], data_type: astcenc_type, zero: T) -> Vec<T> {
        let (width, height) = (blocks.len() / 16 * self.footprint.width(), self.footprint.height());
        let mut texels = vec![zero; width * height];
        let mut plane = texels.as_mut_ptr().cast();
        let mut image = astcenc_image {
            dim_x: width as u32,
            dim_y: height as u32,
            dim_z: 1,
            data_type,
            data: &mut plane,
        };
        self.context.decompress(blocks, &mut image, Swizzle::IDENTITY).unwrap();
        self.context.decompress_reset().unwrap();
        texels
    }
}
