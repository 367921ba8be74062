//! Tables that let luminance blocks decode by lookup, one set a footprint, made on first use.

use std::sync::OnceLock;

use crate::Footprint;
use crate::tables::{
    BlockMode, Infill, PARTITION_SEEDS, PartitionPlanes, Quant, is_small_block, read_ise,
};

/// Places of a partition's texel values in a palette: weights have at most 32 levels.
pub(crate) const PALETTE_STRIDE: usize = 32;
/// Palette entries of a block with four partitions.
pub(crate) const PALETTE_SIZE: usize = 4 * PALETTE_STRIDE;

/// A block mode with one plane of weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LuminanceMode {
    /// Range of the weights.
    pub(crate) weights: Quant,
    /// Stored weights.
    pub(crate) weight_count: usize,
    /// Bits that the weights take.
    pub(crate) weight_bits: u32,
    /// Range of two luminance endpoints a partition, by partition count less one; `None` where
    /// they do not fit.
    pub(crate) endpoints: [Option<Quant>; 4],
    /// Which [`LuminanceTables::infill`] spreads the weights, `None` for a weight a texel.
    pub(crate) infill: Option<usize>,
}

/// The tables of one footprint.
#[derive(Debug)]
pub(crate) struct LuminanceTables {
    modes: Vec<Option<LuminanceMode>>,
    infills: Vec<Infill>,
    /// Palette offset of every texel, for 1 to 4 partitions and every seed.
    offsets: Vec<u8>,
    texels: usize,
}

impl LuminanceTables {
    /// The shared tables of `footprint`.
    pub(crate) fn of(footprint: Footprint) -> &'static Self {
        static TABLES: [OnceLock<LuminanceTables>; Footprint::ALL.len()] =
            [const { OnceLock::new() }; Footprint::ALL.len()];
        TABLES[footprint.index()].get_or_init(|| Self::new(footprint))
    }

    fn new(footprint: Footprint) -> Self {
        let (mut infills, mut grids) = (Vec::new(), Vec::new());
        let mut infill_index = |mode: &BlockMode| {
            let grid = (mode.grid_width, mode.grid_height);
            grids.iter().position(|&known| known == grid).unwrap_or_else(|| {
                grids.push(grid);
                infills.push(Infill::new(footprint, grid.0, grid.1));
                grids.len() - 1
            })
        };
        let modes = (0..1 << 11)
            .map(|bits| {
                let mode = BlockMode::decode(bits)?;
                let full = usize::from(mode.grid_width) == footprint.width()
                    && usize::from(mode.grid_height) == footprint.height();
                (mode.fits(footprint) && !mode.dual_plane).then(|| {
                    luminance_mode(&mode, if full { None } else { Some(infill_index(&mode)) })
                })
            })
            .collect();
        let texels = footprint.texels();
        let mut offsets = vec![0; texels];
        let small = is_small_block(footprint);
        for partitions in 2..=4 {
            for seed in 0..PARTITION_SEEDS {
                let planes = PartitionPlanes::new(seed, partitions, small);
                offsets.extend((0..texels).map(|texel| {
                    let (x, y) = (texel % footprint.width(), texel / footprint.width());
                    planes.partition(x as u32, y as u32) * PALETTE_STRIDE as u8
                }));
            }
        }
        Self { modes, infills, offsets, texels }
    }

    /// The mode in bits 10..=0 of a block, `None` unless it is legal and has one plane.
    pub(crate) fn mode(&self, bits: u64) -> Option<&LuminanceMode> {
        self.modes[bits as usize & 0x7FF].as_ref()
    }

    /// The map of a mode's weight grid.
    pub(crate) fn infill(&self, index: usize) -> &Infill {
        &self.infills[index]
    }

    /// Palette offset of every texel.
    pub(crate) fn offsets(&self, partitions: usize, seed: usize) -> &[u8] {
        let index = if partitions == 1 {
            0
        } else {
            1 + (partitions - 2) * usize::from(PARTITION_SEEDS) + seed
        };
        &self.offsets[index * self.texels..][..self.texels]
    }
}

fn luminance_mode(mode: &BlockMode, infill: Option<usize>) -> LuminanceMode {
    let weight_bits = mode.weight_bits();
    let endpoints = [1, 2, 3, 4].map(|partitions| {
        let header = if partitions == 1 { 17 } else { 29 };
        Quant::largest_fitting(2 * partitions, 128 - header - weight_bits)
            .filter(|&quant| quant >= Quant::COLOUR_MIN)
    });
    LuminanceMode {
        weights: mode.weights,
        weight_count: mode.weight_count(),
        weight_bits: weight_bits as u32,
        endpoints,
        infill,
    }
}

/// How many stored weights a lookup of `bits` bits yields at once.
#[derive(Debug)]
pub(crate) struct WeightGroups {
    /// Bits of a group, at most 13.
    pub(crate) bits: u32,
    /// Weights of a group, at most 8.
    pub(crate) weights: usize,
    /// The stored integers of each group, first in the lowest byte.
    codes: Vec<u64>,
}

impl WeightGroups {
    /// The groups of a range, `None` where a group is too long for a table (12 and 24 levels).
    pub(crate) fn of(quant: Quant) -> Option<&'static Self> {
        static GROUPS: OnceLock<Vec<Option<WeightGroups>>> = OnceLock::new();
        let make = || (0..Quant::WEIGHT_COUNT).map(|i| Self::new(Quant::from_index(i))).collect();
        GROUPS.get_or_init(make)[quant.index()].as_ref()
    }

    fn new(quant: Quant) -> Option<Self> {
        let weights = match (quant.has_trit(), quant.has_quint()) {
            (true, _) => 5,
            (_, true) => 3,
            _ => 8 / quant.bits() as usize,
        };
        let bits = quant.ise_bits(weights);
        let decode = |group: u128| {
            let mut codes = [0; 8];
            read_ise(group, 0, quant, &mut codes[..weights]);
            u64::from_le_bytes(codes)
        };
        (bits <= 13).then(|| Self {
            bits: bits as u32,
            weights,
            codes: (0..1 << bits).map(decode).collect(),
        })
    }

    /// The stored integers of the group in the low bits of `bits`.
    pub(crate) fn codes(&self, bits: u64) -> u64 {
        self.codes[bits as usize & (self.codes.len() - 1)]
    }
}
