//! Which coded tensors are textures, and of what format.

use compress_model_astc::{BlockGrid, Footprint, TexelMode, bc4};

use crate::codec::Codec;

/// A block format as texture loaders know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Texture {
    /// Name of the Vulkan format.
    pub(super) vk_name: &'static str,
    /// Number of the Vulkan format.
    pub(super) vk_format: u32,
    /// Colour model of the Khronos Data Format.
    pub(super) colour_model: u8,
    /// Texels of a block, across and down.
    pub(super) footprint: Footprint,
    /// Bytes of a block.
    pub(super) block_bytes: usize,
}

const MODEL_BC4: u8 = 131;
const MODEL_ASTC: u8 = 162;

/// Width, height, number and name of each ASTC LDR UNORM format.
const ASTC: [(usize, usize, u32, &str); 14] = [
    (4, 4, 157, "VK_FORMAT_ASTC_4x4_UNORM_BLOCK"),
    (5, 4, 159, "VK_FORMAT_ASTC_5x4_UNORM_BLOCK"),
    (5, 5, 161, "VK_FORMAT_ASTC_5x5_UNORM_BLOCK"),
    (6, 5, 163, "VK_FORMAT_ASTC_6x5_UNORM_BLOCK"),
    (6, 6, 165, "VK_FORMAT_ASTC_6x6_UNORM_BLOCK"),
    (8, 5, 167, "VK_FORMAT_ASTC_8x5_UNORM_BLOCK"),
    (8, 6, 169, "VK_FORMAT_ASTC_8x6_UNORM_BLOCK"),
    (8, 8, 171, "VK_FORMAT_ASTC_8x8_UNORM_BLOCK"),
    (10, 5, 173, "VK_FORMAT_ASTC_10x5_UNORM_BLOCK"),
    (10, 6, 175, "VK_FORMAT_ASTC_10x6_UNORM_BLOCK"),
    (10, 8, 177, "VK_FORMAT_ASTC_10x8_UNORM_BLOCK"),
    (10, 10, 179, "VK_FORMAT_ASTC_10x10_UNORM_BLOCK"),
    (12, 10, 181, "VK_FORMAT_ASTC_12x10_UNORM_BLOCK"),
    (12, 12, 183, "VK_FORMAT_ASTC_12x12_UNORM_BLOCK"),
];

impl Texture {
    /// The format of what `codec` writes.
    ///
    /// # Errors
    /// Why that is no LDR texture.
    pub(super) fn of(codec: &dyn Codec) -> Result<Self, String> {
        match (codec.texture(), codec.name()) {
            (Some((footprint, TexelMode::Astc(_))), _) => {
                let &(.., vk_format, vk_name) = ASTC
                    .iter()
                    .find(|(w, h, ..)| Footprint::new(*w, *h) == Some(footprint))
                    .expect("invariant: the table has every footprint");
                let block_bytes = BlockGrid::BLOCK_BYTES;
                Ok(Self { vk_name, vk_format, colour_model: MODEL_ASTC, footprint, block_bytes })
            }
            (Some((footprint, TexelMode::Bc4(_))), _) => Ok(Self {
                vk_name: "VK_FORMAT_BC4_UNORM_BLOCK",
                vk_format: 139,
                colour_model: MODEL_BC4,
                footprint,
                block_bytes: bc4::BLOCK_BYTES,
            }),
            (Some((_, TexelMode::AstcHdr)), _) => {
                Err("profile hdr needs more than one texture".to_owned())
            }
            (None, other) => Err(format!("codec {other} has no texture blocks")),
        }
    }

    /// Whether it is an ASTC format.
    pub(super) fn is_astc(&self) -> bool {
        self.colour_model == MODEL_ASTC
    }
}
