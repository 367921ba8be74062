//! The header of an `.astc` file, as ARM's `astcenc` reads it.

use super::texture::Texture;
use super::tiling::Tiling;

/// The 16 bytes in front of the blocks; layers are slices of a volume of flat blocks.
pub(super) fn head(texture: &Texture, tiling: &Tiling) -> [u8; 16] {
    let mut head = [0; 16];
    head[..4].copy_from_slice(&[0x13, 0xAB, 0xA1, 0x5C]);
    head[4..7].copy_from_slice(&[
        texture.footprint.width() as u8,
        texture.footprint.height() as u8,
        1,
    ]);
    for (at, side) in [tiling.width, tiling.height, tiling.layers].into_iter().enumerate() {
        head[7 + 3 * at..][..3].copy_from_slice(&(side as u32).to_le_bytes()[..3]);
    }
    head
}
