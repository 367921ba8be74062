//! Texel values of HDR luminance endpoints, and the stored values that come near wanted ones.
//!
//! Endpoints have 12 bits, interpolation 16: 5 bits of exponent and 11 of a mantissa that is
//! piecewise linear, 3/8, 4/8 and 5/8 fp16 steps a unit in the first, middle and last part of a
//! binade (KDF 1.3 sections 23.15 and 23.19). So levels between two endpoints of one binade are
//! almost evenly spaced, and those of far endpoints grow like a geometric series.

use crate::decode::hdr::luminance;
use crate::decode::texels::log16_to_fp16;
use crate::encode::config::Config;

/// Most weight levels.
pub(super) const MAX_LEVELS: usize = 32;

/// The texel of an interpolated 16-bit value.
#[inline(always)]
pub(super) fn texel(value: u32) -> f32 {
    let bits = u32::from(log16_to_fp16(value as u16).to_bits());
    if bits < 1 << 10 {
        // A subnormal: 2^-24 a step.
        bits as f32 * (1.0 / (1 << 24) as f32)
    } else {
        f32::from_bits((bits << 13) + ((127 - 15) << 23))
    }
}

/// The 16-bit value between 12-bit endpoints at an interpolation weight 0..=64.
#[inline(always)]
pub(super) fn interpolated((low, high): (i32, i32), step: u8) -> u32 {
    let step = i32::from(step);
    (((low << 4) * (64 - step) + (high << 4) * step + 32) >> 6) as u32
}

/// Place of a texel value on the 12-bit scale of the endpoints, in fractions of a step.
pub(super) fn logarithmic(value: f32) -> f32 {
    let smallest_normal = 1.0 / (1 << 14) as f32;
    let value = value.clamp(0.0, 65504.0);
    let (exponent, eighths) = if value < smallest_normal {
        (0.0, value / smallest_normal * 8192.0)
    } else {
        let bits = value.to_bits();
        let fraction = (bits & 0x7F_FFFF) as f32 / (1 << 10) as f32;
        (((bits >> 23) - (127 - 15)) as f32, fraction)
    };
    let mantissa = if eighths < 1536.0 {
        eighths / 3.0
    } else if eighths < 5632.0 {
        (eighths + 512.0) / 4.0
    } else {
        (eighths + 2048.0) / 5.0
    };
    exponent * 128.0 + mantissa / 16.0
}

/// How two stored values name a pair of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Mode 2, endpoints 16·base and 16·top.
    Direct,
    /// Mode 2 with its values in falling order: 16·base + 8 and 16·top - 8.
    Inset,
    /// Mode 3, endpoints 4·base and 4·(base + top), top at most 31.
    Wide,
    /// Mode 3, endpoints 2·base and 2·(base + top), top at most 15.
    Fine,
}

/// A pair of endpoints within a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) family: Family,
    pub(super) base: i32,
    pub(super) top: i32,
}

impl Family {
    /// The colour endpoint mode.
    pub(super) const fn format(self) -> u8 {
        match self {
            Self::Direct | Self::Inset => 2,
            Self::Wide | Self::Fine => 3,
        }
    }

    /// The code nearest to endpoints on the 12-bit scale, `None` where the family's range ends.
    pub(super) fn nearest(self, low: f32, high: f32) -> Option<Code> {
        let (base, top) = match self {
            Self::Direct => (low / 16.0, high / 16.0),
            Self::Inset => ((low - 8.0) / 16.0, (high + 8.0) / 16.0),
            Self::Wide => (low / 4.0, (high - low) / 4.0),
            Self::Fine => (low / 2.0, (high - low) / 2.0),
        };
        let code = Code { family: self, base: round(base), top: round(top) };
        code.values().map(|_| code)
    }
}

fn round(value: f32) -> i32 {
    (value + 0.5).floor() as i32
}

impl Code {
    /// The two values 0..=255, `None` where there are none.
    fn values(self) -> Option<(u8, u8)> {
        let Self { family, base, top } = self;
        let byte = |value: i32| u8::try_from(value).ok();
        match family {
            Family::Direct if top < base => None,
            Family::Direct => Some((byte(base)?, byte(top)?)),
            Family::Inset if top <= base => None,
            Family::Inset => Some((byte(top)?, byte(base)?)),
            Family::Wide if !(0..32).contains(&top) => None,
            Family::Wide => {
                Some((byte(base & 0x7F)? | 0x80, byte(base.checked_shr(7)? << 5 | top)?))
            }
            Family::Fine if !(0..16).contains(&top) => None,
            Family::Fine => Some((byte(base & 0x7F)?, byte(base.checked_shr(7)? << 4 | top)?)),
        }
    }
}

/// The endpoint range of a block configuration, with its nearest members.
#[derive(Debug, Clone)]
pub(super) struct EndGrid {
    /// Rank of the member nearest to each byte, by what has to stay: nothing, the top bit, the
    /// top three bits, the top four.
    nearest: [Vec<Option<u8>>; 4],
    /// Distance of neighbouring members, rounded up.
    pub(super) stride: i32,
}

impl EndGrid {
    pub(super) fn new(config: &Config) -> Self {
        let members = &config.endpoints;
        let nearest = [0, 1, 3, 4].map(|kept| {
            let same = |a: u8, b: u8| u32::from(a ^ b) << kept >> 8 == 0;
            (0..=u8::MAX)
                .map(|byte| {
                    (0..=u8::MAX)
                        .zip(members)
                        .filter(|&(_, &member)| same(member, byte))
                        .min_by_key(|&(_, &member)| member.abs_diff(byte))
                        .map(|(rank, _)| rank)
                })
                .collect()
        });
        Self { nearest, stride: 256_usize.div_ceil(members.len()) as i32 }
    }

    /// Ranks of the stored values nearest to a code.
    pub(super) fn ranks(&self, code: Code) -> Option<(u8, u8)> {
        let (first, second) = code.values()?;
        let (keep_first, keep_second) = match code.family {
            Family::Direct | Family::Inset => (0, 0),
            Family::Wide => (1, 2),
            Family::Fine => (1, 3),
        };
        Some((
            self.nearest[keep_first][usize::from(first)]?,
            self.nearest[keep_second][usize::from(second)]?,
        ))
    }
}

/// Texel values of the weight levels between two stored values, ascending.
#[inline(always)]
pub(super) fn levels(config: &Config, format: u8, ranks: (u8, u8)) -> [f32; MAX_LEVELS] {
    let value = |rank: u8| config.endpoints[usize::from(rank)];
    let ends = luminance(format, value(ranks.0), value(ranks.1));
    let mut levels = [0.0; MAX_LEVELS];
    for (level, &step) in levels.iter_mut().zip(&config.steps) {
        *level = texel(interpolated(ends, step));
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Footprint;

    #[test]
    fn texels_are_the_decoders() {
        for value in 0..=u16::MAX {
            assert_eq!(texel(value.into()), log16_to_fp16(value).to_f32(), "{value}");
        }
        // Exponent 15, mantissa 1024: (4·1024 - 512) / 8 = 448 of 1024.
        assert_eq!(texel(15 << 11 | 1024), 1.0 + 448.0 / 1024.0);
    }

    #[test]
    fn logarithmic_inverts_the_endpoints() {
        for end in 0..0xF7F {
            assert!((logarithmic(texel(end << 4)) - end as f32).abs() < 0.2, "{end}");
        }
    }

    #[test]
    fn every_code_unpacks_to_its_endpoints() {
        let config = Config::new(Footprint::new(6, 6).unwrap(), 1, 6).unwrap();
        let grid = EndGrid::new(&config);
        let unpacked = |family: Family, base, top| {
            let ranks = grid.ranks(Code { family, base, top })?;
            Some(luminance(family.format(), ranks.0, ranks.1))
        };
        assert_eq!(unpacked(Family::Direct, 3, 200), Some((48, 3200)));
        assert_eq!(unpacked(Family::Inset, 3, 200), Some((56, 3192)));
        assert_eq!(unpacked(Family::Wide, 700, 31), Some((2800, 2924)));
        assert_eq!(unpacked(Family::Fine, 1500, 15), Some((3000, 3030)));
        assert_eq!(unpacked(Family::Wide, 700, 32), None);
        assert_eq!(unpacked(Family::Wide, 1024, 0), None);
        assert_eq!(unpacked(Family::Fine, -1, 0), None);
        assert_eq!(unpacked(Family::Inset, 5, 5), None);
    }

    #[test]
    fn coarse_grids_keep_the_bits_that_carry_the_exponent() {
        let config = Config::new(Footprint::new(6, 6).unwrap(), 2, 5).unwrap();
        let grid = EndGrid::new(&config);
        // Exponent 11 is 2 in the top bits of the second value and 3 in bits 5 and 6 of the first.
        let ranks = grid.ranks(Code { family: Family::Wide, base: 11 * 32 + 9, top: 25 }).unwrap();
        let values =
            (config.endpoints[usize::from(ranks.0)], config.endpoints[usize::from(ranks.1)]);
        assert_eq!(values, (232, 92));
        assert_eq!(luminance(3, values.0, values.1), (11 * 128 + 8 * 4, 11 * 128 + 8 * 4 + 28 * 4));
    }
}
