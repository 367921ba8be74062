//! Partition patterns laid out for the search kernels.

use crate::Footprint;
use crate::tables::distinct_patterns;

/// Texel index of a padding lane: the search arrays hold a texel without importance there.
pub(crate) const PADDING_TEXEL: u8 = 64;
/// Lanes of the fitting kernels; every subset is padded to a multiple of it.
pub(crate) const FIT_LANES: usize = 8;

/// Subset of texels of one partition of one pattern.
#[derive(Debug, Clone)]
pub(crate) struct Subset {
    /// Partition number in the block.
    pub(crate) partition: u8,
    /// Texels in raster order.
    pub(crate) texels: Vec<u8>,
    /// `texels` padded with [`PADDING_TEXEL`] to whole groups of [`FIT_LANES`].
    pub(crate) padded: Vec<u8>,
    /// `texels` padded with [`PADDING_TEXEL`] to the most that the subset at this place has in any
    /// pattern: loops of equal length are what a processor predicts.
    pub(crate) level: Vec<u8>,
    /// Entry of each texel group whose range covers exactly these texels.
    pub(crate) entries: Vec<u16>,
    /// Share of the block's texels, times 65535.
    pub(crate) share: u16,
}

/// A partition pattern: its subsets, the largest last.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    pub(crate) seed: u16,
    pub(crate) subsets: Vec<Subset>,
}

/// One subset of a texel group, its range derived from a smaller one: parent and one more texel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) parent: u16,
    pub(crate) texel: u8,
}

/// The distinct patterns of a footprint with one to four partitions, and the texel subsets that
/// their ranges are assembled from.
///
/// The texels are cut into groups of whole rows; patterns share most of their parts inside a
/// group, so the minimum and maximum of each distinct part is taken once.
#[derive(Debug, Clone)]
pub(crate) struct Patterns {
    /// Patterns with 1, 2, 3 and 4 partitions.
    pub(crate) by_count: [Vec<Pattern>; 4],
    /// Entry 0 is the empty subset and has no parent; parents precede their children.
    pub(crate) entries: Vec<Entry>,
}

/// Texels of a group: large enough to need few lookups a pattern, small enough that patterns
/// share parts.
const GROUP_TEXELS: usize = 12;

impl Patterns {
    /// Patterns of the partition counts that `wanted` (index: count - 1) asks for, as far as each
    /// of their subsets has `least_share` of the texels of an even split.
    pub(crate) fn new(footprint: Footprint, wanted: [bool; 4], least_share: f64) -> Self {
        let texels = footprint.texels();
        let group_texels = footprint.width() * (GROUP_TEXELS / footprint.width()).max(1);
        let mut builder =
            EntryBuilder { entries: vec![Entry { parent: 0, texel: 0 }], known: vec![(0, 0)] };
        let by_count = std::array::from_fn(|index| {
            let owners: Vec<(u16, Vec<u8>)> = match index {
                _ if !wanted[index] => Vec::new(),
                0 => vec![(0, vec![0; texels])],
                _ => distinct_patterns(footprint, index + 1)
                    .into_iter()
                    .map(|pattern| (pattern.seed, pattern.texels))
                    .collect(),
            };
            owners
                .into_iter()
                .filter(|(_, owner)| {
                    let even = texels as f64 / (index + 1) as f64;
                    (0..=index as u8).all(|partition| {
                        let count = owner.iter().filter(|&&other| other == partition).count();
                        count as f64 >= least_share * even
                    })
                })
                .map(|(seed, owner)| {
                    let mut subsets: Vec<Subset> = (0..=index as u8)
                        .map(|partition| builder.subset(&owner, partition, group_texels))
                        .collect();
                    subsets.sort_by_key(|subset| (subset.texels.len(), subset.partition));
                    Pattern { seed, subsets }
                })
                .collect()
        });
        let mut by_count: [Vec<Pattern>; 4] = by_count;
        for patterns in &mut by_count {
            level_off(patterns);
        }
        Self { by_count, entries: builder.entries }
    }
}

/// Fills [`Subset::level`].
fn level_off(patterns: &mut [Pattern]) {
    for place in 0..4 {
        let sizes =
            patterns.iter().filter_map(|pattern| Some(pattern.subsets.get(place)?.texels.len()));
        let most = sizes.max().unwrap_or(0);
        for subset in patterns.iter_mut().filter_map(|pattern| pattern.subsets.get_mut(place)) {
            subset.level = subset.texels.clone();
            subset.level.resize(most, PADDING_TEXEL);
        }
    }
}

struct EntryBuilder {
    entries: Vec<Entry>,
    /// Texel mask of every entry with its index, sorted by mask.
    known: Vec<(u64, u16)>,
}

impl EntryBuilder {
    fn subset(&mut self, owner: &[u8], partition: u8, group_texels: usize) -> Subset {
        let texels: Vec<u8> = (0..owner.len() as u8)
            .filter(|&texel| owner[usize::from(texel)] == partition)
            .collect();
        let mut padded = texels.clone();
        padded.resize(texels.len().next_multiple_of(FIT_LANES), PADDING_TEXEL);
        let entries = (0..owner.len().div_ceil(group_texels))
            .map(|group| {
                let mask = texels
                    .iter()
                    .filter(|&&texel| usize::from(texel) / group_texels == group)
                    .fold(0, |mask, &texel| mask | 1 << texel);
                self.entry(mask)
            })
            .collect();
        let share = (texels.len() * 65535 / owner.len()) as u16;
        Subset { partition, texels, padded, level: Vec::new(), entries, share }
    }

    fn entry(&mut self, mask: u64) -> u16 {
        match self.known.binary_search_by_key(&mask, |&(known, _)| known) {
            Ok(position) => self.known[position].1,
            Err(_) => {
                let known = (0..64).filter(|bit| mask >> bit & 1 == 1).find_map(|bit| {
                    let smaller = mask & !(1 << bit);
                    let position = self.known.binary_search_by_key(&smaller, |&(known, _)| known);
                    Some((self.known[position.ok()?].1, bit))
                });
                let (parent, texel) = known.unwrap_or_else(|| {
                    (self.entry(mask & (mask - 1)), mask.trailing_zeros() as u8)
                });
                let index = self.entries.len() as u16;
                self.entries.push(Entry { parent, texel });
                let position = self.known.partition_point(|&(known, _)| known < mask);
                self.known.insert(position, (mask, index));
                index
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_rebuild_every_subset() {
        for footprint in ["6x6", "8x5", "8x8"].map(|text| text.parse::<Footprint>().unwrap()) {
            let patterns = Patterns::new(footprint, [true; 4], 0.0);
            let mut masks = vec![0_u64];
            for entry in &patterns.entries[1..] {
                masks.push(masks[usize::from(entry.parent)] | 1 << entry.texel);
            }
            for pattern in patterns.by_count.iter().flatten() {
                let mut covered = 0_u64;
                for subset in &pattern.subsets {
                    let mask = subset.entries.iter().fold(0, |m, &e| m | masks[usize::from(e)]);
                    assert_eq!(mask, subset.texels.iter().fold(0, |m, &t| m | 1 << t));
                    assert_eq!(covered & mask, 0);
                    covered |= mask;
                }
                assert_eq!(covered.count_ones() as usize, footprint.texels());
            }
        }
    }
}
