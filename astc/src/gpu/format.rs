//! The texture formats that are sampled.

use crate::{Footprint, TextureCodec};

/// A texture format, but for the footprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// ASTC blocks as unorm, or in the HDR format, which takes LDR blocks as well.
    Astc(wgpu::AstcChannel),
    /// BC4 unorm.
    Bc4,
}

impl Format {
    /// The formats in which a texture of `codec` may be sampled, the usual one first.
    pub(super) const fn of(codec: TextureCodec) -> &'static [Self] {
        match codec {
            TextureCodec::Astc => {
                &[Self::Astc(wgpu::AstcChannel::Unorm), Self::Astc(wgpu::AstcChannel::Hdr)]
            }
            TextureCodec::AstcHdr => &[Self::Astc(wgpu::AstcChannel::Hdr)],
            TextureCodec::Bc4 => &[Self::Bc4],
        }
    }

    /// wgpu's name.
    pub(super) fn texture_format(self, footprint: Footprint) -> wgpu::TextureFormat {
        match self {
            Self::Astc(channel) => {
                wgpu::TextureFormat::Astc { block: block_format(footprint), channel }
            }
            Self::Bc4 => wgpu::TextureFormat::Bc4RUnorm,
        }
    }
}

fn block_format(footprint: Footprint) -> wgpu::AstcBlock {
    use wgpu::AstcBlock as Block;
    match (footprint.width(), footprint.height()) {
        (4, _) => Block::B4x4,
        (5, 4) => Block::B5x4,
        (5, _) => Block::B5x5,
        (6, 5) => Block::B6x5,
        (6, _) => Block::B6x6,
        (8, 5) => Block::B8x5,
        (8, 6) => Block::B8x6,
        (8, _) => Block::B8x8,
        (10, 5) => Block::B10x5,
        (10, 6) => Block::B10x6,
        (10, 8) => Block::B10x8,
        (10, _) => Block::B10x10,
        (_, 10) => Block::B12x10,
        _ => Block::B12x12,
    }
}
