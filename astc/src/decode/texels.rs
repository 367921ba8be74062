//! Weight infill and interpolation (KDF 1.3 sections 23.18 and 23.19).

use half::f16;

use super::Profile;
use super::block::{Interpolated, endpoint_values};
use super::endpoints::{self, Endpoints};
use crate::Footprint;
use crate::tables::{Infill, PartitionPlanes, is_small_block};

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
pub(crate) fn log16_to_fp16(value: u16) -> f16 {
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
    let infill = Infill::new(footprint, block.grid_width, block.grid_height);
    for (index, &point) in infill.points().iter().enumerate() {
        let (x, y) = (index % footprint.width(), index / footprint.width());
        let partition = planes.partition(x as u32, y as u32);
        let mut weights = [infill.weight(point, &block.weights[0]); 4];
        if let Some(channel) = block.second_plane {
            weights[channel] = infill.weight(point, &block.weights[1]);
        }
        texel(index, interpolate(&endpoints[usize::from(partition)], weights.map(i32::from)));
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
