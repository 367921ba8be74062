//! The parts of a KTX2 file in front of its blocks (KTX 2.0 specification; descriptor: Khronos Data
//! Format 1.3 chapter 5).

use super::texture::Texture;
use super::tiling::Tiling;

const IDENTIFIER: [u8; 12] = *b"\xABKTX 20\xBB\r\n\x1A\n";
const HEADER_BYTES: usize = 80;
const LEVEL_INDEX_BYTES: usize = 24;
/// Total size, one basic block with one sample.
const DESCRIPTOR_BYTES: usize = 44;

/// Header, level index, format descriptor, key/value data and padding of a file with one level of
/// `block_count` blocks, which follow.
///
/// `entries` are keys and values, in ascending order of keys.
pub(super) fn head(
    texture: &Texture,
    tiling: &Tiling,
    block_count: u64,
    entries: &[(&str, Vec<u8>)],
) -> Vec<u8> {
    let values = key_values(entries);
    let values_at = HEADER_BYTES + LEVEL_INDEX_BYTES + DESCRIPTOR_BYTES;
    // Blocks begin at a multiple of their size, which 4 divides.
    let level_at = (values_at + values.len()).next_multiple_of(texture.block_bytes);
    let level_bytes = block_count * texture.block_bytes as u64;
    let layers = if tiling.layers == 1 { 0 } else { tiling.layers };

    let mut head = IDENTIFIER.to_vec();
    let type_size = 1;
    let (depth, faces, levels, no_supercompression) = (0, 1, 1, 0);
    for word in [
        texture.vk_format as usize,
        type_size,
        tiling.width,
        tiling.height,
        depth,
        layers,
        faces,
        levels,
        no_supercompression,
        HEADER_BYTES + LEVEL_INDEX_BYTES,
        DESCRIPTOR_BYTES,
        values_at,
        values.len(),
    ] {
        head.extend((word as u32).to_le_bytes());
    }
    // No supercompression data: offset and length.
    head.extend([0; 16]);
    for long in [level_at as u64, level_bytes, level_bytes] {
        head.extend(long.to_le_bytes());
    }
    head.extend(descriptor(texture));
    head.extend(values);
    head.resize(level_at, 0);
    head
}

/// The data format descriptor: linear, one sample that fills the block.
fn descriptor(texture: &Texture) -> [u8; DESCRIPTOR_BYTES] {
    const VERSION: u16 = 2;
    const BLOCK_SIZE: u16 = 40;
    const PRIMARIES_BT709: u8 = 1;
    const TRANSFER_LINEAR: u8 = 1;

    let mut bytes = [0; DESCRIPTOR_BYTES];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &(DESCRIPTOR_BYTES as u32).to_le_bytes());
    put(8, &VERSION.to_le_bytes());
    put(10, &BLOCK_SIZE.to_le_bytes());
    put(12, &[texture.colour_model, PRIMARIES_BT709, TRANSFER_LINEAR]);
    put(16, &[texture.footprint.width() as u8 - 1, texture.footprint.height() as u8 - 1]);
    put(20, &[texture.block_bytes as u8]);
    // The sample: bits of the block less one, channel 0, from 0 to the largest number.
    put(30, &[(8 * texture.block_bytes - 1) as u8]);
    put(40, &u32::MAX.to_le_bytes());
    bytes
}

fn key_values(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    debug_assert!(entries.is_sorted_by_key(|(key, _)| *key));
    let mut out = Vec::new();
    for (key, value) in entries {
        out.extend(((key.len() + 1 + value.len()) as u32).to_le_bytes());
        out.extend(key.as_bytes());
        out.push(0);
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// A text as a value: UTF-8 with a final NUL.
pub(super) fn text(value: &str) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    bytes
}
