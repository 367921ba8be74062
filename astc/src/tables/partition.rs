//! The partition hash (KDF 1.3 section 23.21) and its distinct patterns.
//!
//! A block with 2 to 4 partitions stores a 10-bit seed; the hash turns seed and texel position
//! into a partition index. Many seeds give the same partition of the texels, or leave a
//! partition empty, so a search should look at [`distinct_patterns`] only.

use std::collections::HashSet;

use crate::Footprint;

/// Number of partition seeds that a block can store.
pub const PARTITION_SEEDS: u16 = 1024;

/// Whether the footprint doubles its texel coordinates in the hash: fewer than 31 texels.
pub const fn is_small_block(footprint: Footprint) -> bool {
    footprint.texels() < 31
}

const fn hash52(seed: u32) -> u32 {
    let mut p = seed;
    p ^= p >> 15;
    p = p.wrapping_sub(p << 17);
    p = p.wrapping_add(p << 7);
    p = p.wrapping_add(p << 4);
    p ^= p >> 5;
    p = p.wrapping_add(p << 16);
    p ^= p >> 7;
    p ^= p >> 3;
    p ^= p << 6;
    p ^= p >> 17;
    p
}

/// The partition hash of one block: a saw-tooth plane for each partition, the highest of which
/// owns a texel.
#[derive(Debug, Clone, Copy)]
pub struct PartitionPlanes {
    /// Slope in x, slope in y and phase of each plane, of which bits 5..=0 of the sum count.
    planes: [[u32; 3]; 4],
    partitions: usize,
}

impl PartitionPlanes {
    /// The planes of a 2D block with the 10-bit `seed`, 1..=4 `partitions`, and `small_block` as
    /// [`is_small_block`] says.
    ///
    /// # Panics
    /// If there are more than four partitions.
    pub const fn new(seed: u16, partitions: usize, small_block: bool) -> Self {
        let mut planes = [[0; 3]; 4];
        if partitions == 1 {
            return Self { planes, partitions };
        }
        let hash = hash52(seed as u32 + (partitions as u32 - 1) * 1024);
        let by_count = if partitions == 3 { 6 } else { 5 };
        let by_seed = if seed & 2 != 0 { 4 } else { 5 };
        let (shift_x, shift_y) =
            if seed & 1 != 0 { (by_seed, by_count) } else { (by_count, by_seed) };
        // A small block doubles its coordinates, which is the same as doubling the slopes.
        let double = small_block as u32;

        // The depth slopes (nibbles 9 to 12 of the specification) meet z = 0 in a 2D block.
        let mut partition = 0;
        while partition < partitions {
            let nibble_x = (hash >> (8 * partition)) & 0xF;
            let nibble_y = (hash >> (8 * partition + 4)) & 0xF;
            planes[partition] = [
                ((nibble_x * nibble_x) >> shift_x) << double,
                ((nibble_y * nibble_y) >> shift_y) << double,
                (hash >> (14 - 4 * partition)) & 0x3F,
            ];
            partition += 1;
        }
        Self { planes, partitions }
    }

    /// Partition of the texel in column `x`, row `y`; ties go to the lower index.
    pub const fn partition(&self, x: u32, y: u32) -> u8 {
        let mut best = 0;
        let mut best_height = 0;
        let mut partition = 0;
        while partition < self.partitions {
            let [slope_x, slope_y, phase] = self.planes[partition];
            let height = (slope_x * x + slope_y * y + phase) & 0x3F;
            if height > best_height {
                best = partition;
                best_height = height;
            }
            partition += 1;
        }
        best as u8
    }
}

/// Partition index (0..`partitions`) of one texel, see [`PartitionPlanes`].
pub const fn select_partition(seed: u16, x: u32, y: u32, partitions: u32, small_block: bool) -> u8 {
    PartitionPlanes::new(seed, partitions as usize, small_block).partition(x, y)
}

/// One way of cutting a block's texels into partitions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartitionPattern {
    /// The smallest seed that gives this pattern.
    pub seed: u16,
    /// Partition of each texel in raster order, as the hash numbers them.
    pub texels: Vec<u8>,
}

impl PartitionPattern {
    /// The pattern of one seed.
    pub fn of_seed(footprint: Footprint, partitions: usize, seed: u16) -> Self {
        let planes = PartitionPlanes::new(seed, partitions, is_small_block(footprint));
        let (width, height) = (footprint.width() as u32, footprint.height() as u32);
        let texels =
            (0..height).flat_map(|y| (0..width).map(move |x| planes.partition(x, y))).collect();
        Self { seed, texels }
    }

    /// Texels in each of `N` partitions.
    pub fn counts<const N: usize>(&self) -> [usize; N] {
        let mut counts = [0; N];
        for &partition in &self.texels {
            counts[usize::from(partition)] += 1;
        }
        counts
    }

    /// The texels of one partition as a bit mask, texel 0 in bit 0 of the first word.
    pub fn mask(&self, partition: u8) -> [u64; Footprint::MAX_TEXELS.div_ceil(64)] {
        let mut mask = [0; Footprint::MAX_TEXELS.div_ceil(64)];
        for (texel, &owner) in self.texels.iter().enumerate() {
            if owner == partition {
                mask[texel / 64] |= 1 << (texel % 64);
            }
        }
        mask
    }
}

/// The patterns of a footprint with `partitions` (2..=4) partitions that differ by more than the
/// numbering of the partitions and leave none empty, in order of their smallest seed.
///
/// Endpoints are stored for each partition, so patterns that differ only in numbering can
/// represent exactly the same blocks. 6x6 has 521 patterns with two partitions, 333 with three
/// and 305 with four (566, 338 and 305 if numberings are told apart).
pub fn distinct_patterns(footprint: Footprint, partitions: usize) -> Vec<PartitionPattern> {
    let mut seen = HashSet::new();
    (0..PARTITION_SEEDS)
        .map(|seed| PartitionPattern::of_seed(footprint, partitions, seed))
        .filter(|pattern| {
            let (canonical, used) = relabelled(&pattern.texels);
            used == partitions && seen.insert(canonical)
        })
        .collect()
}

/// The texels with partitions renumbered by first appearance, and how many appear.
fn relabelled(texels: &[u8]) -> (Vec<u8>, usize) {
    let mut names = [None; 4];
    let mut used = 0;
    let canonical = texels
        .iter()
        .map(|&partition| {
            *names[usize::from(partition)].get_or_insert_with(|| {
                used += 1;
                used as u8 - 1
            })
        })
        .collect();
    (canonical, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 6x6 counts that are usually quoted, 566 and 338, tell numberings of the same cut apart.
    #[test]
    fn six_by_six_pattern_counts() {
        let six = Footprint::new(6, 6).unwrap();
        for (partitions, numbered, distinct) in [(2, 566, 521), (3, 338, 333), (4, 305, 305)] {
            let raw: HashSet<_> = (0..PARTITION_SEEDS)
                .map(|seed| PartitionPattern::of_seed(six, partitions, seed).texels)
                .filter(|texels| relabelled(texels).1 == partitions)
                .collect();
            assert_eq!(raw.len(), numbered);
            assert_eq!(distinct_patterns(six, partitions).len(), distinct);
        }
    }

    #[test]
    fn masks_and_counts_cover_the_block_once() {
        for footprint in [Footprint::new(4, 4).unwrap(), Footprint::new(12, 12).unwrap()] {
            for pattern in distinct_patterns(footprint, 3) {
                let counts: [usize; 3] = pattern.counts();
                let masks = [0, 1, 2].map(|p| pattern.mask(p));
                for (count, mask) in counts.iter().zip(&masks) {
                    assert!(*count > 0);
                    assert_eq!(*count as u32, mask.iter().map(|w| w.count_ones()).sum::<u32>());
                }
                assert_eq!(counts.iter().sum::<usize>(), footprint.texels());
            }
        }
    }
}
