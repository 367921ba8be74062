//! Weight infill and interpolation (KDF 1.3 sections 23.18 and 23.19).

use half::f16;

use super::Profile;
use super::block::{Interpolated, PADDED_WEIGHTS, endpoint_values};
use super::endpoints::{self, Endpoints};
use crate::Footprint;
use crate::tables::{PartitionPlanes, is_small_block};

/// One interpolated texel before its conversion to the reader's precision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texel {
    /// 16-bit values, unorm or logarithmic.
    pub(super) channels: [u16; 4],
    hdr_colour: bool,
    hdr_alpha: bool,
}

impl Texel {
    pub(super) fn to_fp16(self) -> [f16; 4] {
        let convert = |hdr: bool| if hdr { log16_to_fp16 } else { unorm16_to_fp16 };
        let [r, g, b, a] = self.channels;
        let [r, g, b] = [r, g, b].map(convert(self.hdr_colour));
        [r, g, b, convert(self.hdr_alpha)(a)]
    }
}

/// value / 65536 rounded towards zero, but 1.0 for 65535.
pub(super) fn unorm16_to_fp16(value: u16) -> f16 {
    let bits = match value {
        0xFFFF => 0x3C00,
        0..4 => value << 8,
        _ => {
            let zeros = value.leading_zeros() as u16;
            let fraction = (value << zeros << 1) >> 6;
            ((14 - zeros) << 10) | fraction
        }
    };
    f16::from_bits(bits)
}

/// 5 bits of exponent and 11 bits of piecewise linear logarithmic mantissa; saturates below
/// infinity.
fn log16_to_fp16(value: u16) -> f16 {
    let (exponent, mantissa) = (value >> 11, value & 0x7FF);
    let linear = match mantissa {
        0..512 => 3 * mantissa,
        512..1536 => 4 * mantissa - 512,
        _ => 5 * mantissa - 2048,
    };
    f16::from_bits(((exponent << 10) + (linear >> 3)).min(0x7BFF))
}

/// Calls `texel(index, value)` for every texel of the footprint in raster order.
pub(super) fn for_each(
    block: &Interpolated,
    footprint: Footprint,
    profile: Profile,
    mut texel: impl FnMut(usize, Texel),
) {
    let endpoints = unpack_endpoints(block, profile);
    let planes = PartitionPlanes::new(block.seed, block.partitions, is_small_block(footprint));
    let infill = Infill::new(block, footprint);
    for y in 0..footprint.height() {
        for x in 0..footprint.width() {
            let partition = planes.partition(x as u32, y as u32);
            let point = infill.point(x, y);
            let mut weights = [point.weight(&block.weights[0]); 4];
            if let Some(channel) = block.second_plane {
                weights[channel] = point.weight(&block.weights[1]);
            }
            let index = y * footprint.width() + x;
            texel(index, interpolate(&endpoints[usize::from(partition)], weights));
        }
    }
}

fn unpack_endpoints(block: &Interpolated, profile: Profile) -> [Endpoints; 4] {
    let mut start = 0;
    let mut unpacked = [endpoints::unpack(0, &[0, 0], profile); 4];
    for (unpacked, &format) in unpacked.iter_mut().zip(&block.formats[..block.partitions]) {
        *unpacked = endpoints::unpack(format, &block.endpoints[start..], profile);
        start += endpoint_values(format);
    }
    unpacked
}

fn interpolate(endpoints: &Endpoints, weights: [i32; 4]) -> Texel {
    let channels = std::array::from_fn(|c| {
        let sum = endpoints.low[c] * (64 - weights[c]) + endpoints.high[c] * weights[c];
        ((sum + 32) >> 6) as u16
    });
    Texel { channels, hdr_colour: endpoints.hdr_colour, hdr_alpha: endpoints.hdr_alpha }
}

/// Maps texels of the footprint to points of the weight grid, in 16ths of its spacing.
struct Infill {
    step: [usize; 2],
    last: [usize; 2],
    grid_width: usize,
}

/// The four grid points around a texel, and their shares of 16.
struct GridPoint {
    first: usize,
    grid_width: usize,
    shares: [i32; 4],
}

impl Infill {
    fn new(block: &Interpolated, footprint: Footprint) -> Self {
        let step = |size: usize| (1024 + size / 2) / (size - 1);
        Self {
            step: [step(footprint.width()), step(footprint.height())],
            last: [block.grid_width - 1, block.grid_height - 1],
            grid_width: block.grid_width,
        }
    }

    fn point(&self, x: usize, y: usize) -> GridPoint {
        let across = (self.step[0] * x * self.last[0] + 32) >> 6;
        let down = (self.step[1] * y * self.last[1] + 32) >> 6;
        let (fx, fy) = ((across & 0xF) as i32, (down & 0xF) as i32);
        let both = (fx * fy + 8) >> 4;
        GridPoint {
            first: (across >> 4) + (down >> 4) * self.grid_width,
            grid_width: self.grid_width,
            shares: [16 - fx - fy + both, fx - both, fy - both, both],
        }
    }
}

impl GridPoint {
    /// Points past the grid's edge have a share of zero.
    fn weight(&self, grid: &[u8; PADDED_WEIGHTS]) -> i32 {
        let points = [0, 1, self.grid_width, self.grid_width + 1];
        let sum: i32 = points
            .iter()
            .zip(self.shares)
            .map(|(&offset, share)| i32::from(grid[self.first + offset]) * share)
            .sum();
        (sum + 8) >> 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unorm16_truncates_like_the_definition() {
        for value in 0..=u16::MAX {
            let exact = f64::from(value) / 65536.0;
            let half = unorm16_to_fp16(value);
            if value == u16::MAX {
                assert_eq!(half, f16::ONE);
                continue;
            }
            let above = f16::from_bits(half.to_bits() + 1);
            assert!(half.to_f64() <= exact && exact < above.to_f64(), "{value}");
        }
    }
}
