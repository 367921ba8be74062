//! Random blocks that reach every field of the format.
#![allow(dead_code, reason = "every binary uses its own part")]

use compress_model_astc::Footprint;
use compress_model_astc::tables::{BlockMode, Quant};
use rand::{Rng, RngExt};

/// What a structured random block holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) mode: BlockMode,
    pub(crate) partitions: usize,
    pub(crate) formats: [u8; 4],
    pub(crate) endpoints: Quant,
}

/// Random blocks of one footprint.
pub(crate) struct Blocks {
    modes: Vec<u16>,
}

impl Blocks {
    pub(crate) fn new(footprint: Footprint) -> Self {
        let fits = |&bits: &u16| BlockMode::decode(bits).is_some_and(|mode| mode.fits(footprint));
        Self { modes: (0..1 << 11).filter(fits).collect() }
    }

    /// Any 128 bits: mostly odd endpoints, often illegal.
    pub(crate) fn noise(rng: &mut impl Rng) -> u128 {
        rng.random()
    }

    /// A void-extent block: any rectangle, an ordered one, or none.
    pub(crate) fn void_extent(rng: &mut impl Rng) -> u128 {
        let mut bits = (rng.random::<u128>() & !0x1FF) | 0x1FC;
        if rng.random_ratio(3, 4) {
            bits |= 0xC00;
        }
        let mut corners: [u16; 4] = std::array::from_fn(|_| rng.random_range(0..1 << 13));
        match rng.random_range(0..4) {
            0 => return bits,
            1 => corners = [0x1FFF; 4],
            2 => {
                corners[..2].sort_unstable();
                corners[2..].sort_unstable();
            }
            _ => corners[1] = corners[0],
        }
        for (corner, position) in corners.into_iter().zip([12, 25, 38, 51]) {
            bits = (bits & !(0x1FFF << position)) | u128::from(corner) << position;
        }
        bits
    }

    /// A legal block with random legal fields; everything else in it is noise.
    pub(crate) fn legal(&self, rng: &mut impl Rng) -> (u128, Fields) {
        loop {
            let mode_bits = self.modes[rng.random_range(0..self.modes.len())];
            let mode = BlockMode::decode(mode_bits).unwrap();
            let partitions = rng.random_range(1..=if mode.dual_plane { 3 } else { 4 });
            let mut bits =
                rng.random::<u128>() << 13 | (partitions as u128 - 1) << 11 | u128::from(mode_bits);
            let mut top = 128 - mode.weight_bits();
            let formats = put_formats(&mut bits, partitions, &mut top, rng);
            top = top.saturating_sub(if mode.dual_plane { 2 } else { 0 });
            let count: usize =
                formats[..partitions].iter().map(|format| 2 * (usize::from(format >> 2) + 1)).sum();
            let start = if partitions == 1 { 17 } else { 29 };
            let room = top.saturating_sub(start);
            let endpoints = Quant::largest_fitting(count, room);
            if let Some(endpoints) = endpoints.filter(|&e| count <= 18 && e >= Quant::COLOUR_MIN) {
                return (bits, Fields { mode, partitions, formats, endpoints });
            }
        }
    }
}

/// A block as a weight encoder writes it: one plane, luminance endpoints, and in half the cases
/// a weight a texel where the footprint has such a grid.
pub(crate) fn luminance(footprint: Footprint, rng: &mut impl Rng) -> u128 {
    let with = |full_only: bool| -> Vec<u16> {
        let wanted = |&bits: &u16| {
            BlockMode::decode(bits).is_some_and(|mode| {
                let grid = (usize::from(mode.grid_width), usize::from(mode.grid_height));
                let full = grid == (footprint.width(), footprint.height());
                !mode.dual_plane && mode.fits(footprint) && (full || !full_only)
            })
        };
        (0..1 << 11).filter(wanted).collect()
    };
    let mut modes = with(rng.random());
    if modes.is_empty() {
        modes = with(false);
    }
    let mode = modes[rng.random_range(0..modes.len())];
    let partitions: u128 = rng.random_range(1..=4);
    let format_bits = if partitions == 1 { 0xF << 13 } else { 0x3F << 23 };
    let noise = rng.random::<u128>() & !format_bits & !0x1FFF;
    noise | (partitions - 1) << 11 | u128::from(mode)
}

/// Writes random endpoint modes into a block.
fn put_formats(bits: &mut u128, partitions: usize, top: &mut usize, rng: &mut impl Rng) -> [u8; 4] {
    let mut put = |value: u32, position: usize, width: u32| {
        let mask = ((1_u128 << width) - 1) << position;
        *bits = (*bits & !mask) | (u128::from(value) << position);
    };
    let base_class = rng.random_range(0..4_u8);
    if partitions == 1 || base_class == 3 || rng.random() {
        let format = base_class << 2 | rng.random_range(0..4);
        if partitions == 1 {
            put(format.into(), 13, 4);
        } else {
            put(u32::from(format) << 2, 23, 6);
        }
        return [format; 4];
    }
    let mut formats = [0; 4];
    let mut encoded = u32::from(base_class) + 1;
    for (partition, format) in formats[..partitions].iter_mut().enumerate() {
        let (step, within) = (rng.random_range(0..2), rng.random_range(0..4));
        *format = (base_class + step) << 2 | within;
        encoded |= u32::from(step) << (2 + partition);
        encoded |= u32::from(within) << (2 + partitions + 2 * partition);
    }
    let high_width = 3 * partitions as u32 - 4;
    put(encoded & 0x3F, 23, 6);
    if *top >= 29 + high_width as usize {
        *top -= high_width as usize;
        put(encoded >> 6, *top, high_width);
    } else {
        *top = 0;
    }
    formats
}
