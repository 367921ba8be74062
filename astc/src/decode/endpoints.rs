//! Colour endpoint modes (KDF 1.3 section 23.15): stored values to a pair of RGBA endpoints.

use super::{Profile, hdr};

/// The endpoints of one partition on the 16-bit scale of the interpolation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoints {
    pub(super) low: [i32; 4],
    pub(super) high: [i32; 4],
    /// Whether red, green and blue are HDR: logarithmic instead of unorm16.
    pub(super) hdr_colour: bool,
    /// Whether alpha is HDR.
    pub(super) hdr_alpha: bool,
}

/// Unpacks the values of one partition in `profile`.
///
/// `v` has as many values as `format` takes, or more.
pub(super) fn unpack(format: u8, v: &[u8], profile: Profile) -> Endpoints {
    let hdr_colour = matches!(format, 2 | 3 | 7 | 11 | 14 | 15);
    if !hdr_colour {
        return unorm(ldr(format, v));
    }
    if profile == Profile::Ldr {
        return unorm(([255, 0, 255, 255], [255, 0, 255, 255]));
    }
    let (low, high) = hdr::unpack(format, v);
    // Mode 14 alone has an LDR alpha beside HDR colours.
    let hdr_alpha = format != 14;
    let widen = |c: [i32; 4]| {
        let alpha = if hdr_alpha { c[3] << 4 } else { c[3] * 257 };
        [c[0] << 4, c[1] << 4, c[2] << 4, alpha]
    };
    Endpoints { low: widen(low), high: widen(high), hdr_colour, hdr_alpha }
}

/// 8-bit endpoints repeated into 16 bits.
fn unorm((low, high): ([i32; 4], [i32; 4])) -> Endpoints {
    let widen = |c: [i32; 4]| c.map(|c| c * 257);
    Endpoints { low: widen(low), high: widen(high), hdr_colour: false, hdr_alpha: false }
}

/// The ten LDR modes: endpoints 0..=255.
fn ldr(format: u8, v: &[u8]) -> ([i32; 4], [i32; 4]) {
    let value = |index: usize| i32::from(v[index]);
    let grey = |l: i32, a: i32| [l, l, l, a];
    match format {
        0 => (grey(value(0), 255), grey(value(1), 255)),
        1 => {
            let low = (value(0) >> 2) | (value(1) & 0xC0);
            (grey(low, 255), grey((low + (value(1) & 0x3F)).min(255), 255))
        }
        4 => (grey(value(0), value(2)), grey(value(1), value(3))),
        5 => {
            let ((l, dl), (a, da)) = (base_offset(v[0], v[1]), base_offset(v[2], v[3]));
            (clamp(grey(l, a)), clamp(grey(l + dl, a + da)))
        }
        6 => scaled(v, [255, 255]),
        8 => direct(v, [255, 255]),
        9 => offset(v, (255, 0)),
        10 => scaled(v, [value(4), value(5)]),
        12 => direct(v, [value(6), value(7)]),
        _ => offset(v, base_offset(v[6], v[7])),
    }
}

/// Moves the top bit of the offset to the base: a base of 8 bits and a signed offset of 6
/// (`bit_transfer_signed` of the specification).
fn base_offset(base: u8, offset: u8) -> (i32, i32) {
    let signed = i32::from(offset >> 1 & 0x3F);
    (i32::from(base >> 1 | offset & 0x80), if signed >= 0x20 { signed - 0x40 } else { signed })
}

fn clamp(c: [i32; 4]) -> [i32; 4] {
    c.map(|c| c.clamp(0, 255))
}

fn blue_contract(c: [i32; 4]) -> [i32; 4] {
    [(c[0] + c[2]) >> 1, (c[1] + c[2]) >> 1, c[2], c[3]]
}

/// Modes 6 and 10: one colour and a factor.
fn scaled(v: &[u8], alpha: [i32; 2]) -> ([i32; 4], [i32; 4]) {
    let [r, g, b, factor] = [v[0], v[1], v[2], v[3]].map(i32::from);
    ([(r * factor) >> 8, (g * factor) >> 8, (b * factor) >> 8, alpha[0]], [r, g, b, alpha[1]])
}

/// Modes 8 and 12: two colours; the order of their sums selects blue contraction.
fn direct(v: &[u8], alpha: [i32; 2]) -> ([i32; 4], [i32; 4]) {
    let v: [i32; 6] = std::array::from_fn(|index| i32::from(v[index]));
    let (low, high) = ([v[0], v[2], v[4], alpha[0]], [v[1], v[3], v[5], alpha[1]]);
    if v[1] + v[3] + v[5] >= v[0] + v[2] + v[4] {
        (low, high)
    } else {
        (blue_contract(high), blue_contract(low))
    }
}

/// Modes 9 and 13: a colour and an offset; the sign of the offset selects blue contraction.
fn offset(v: &[u8], (a, da): (i32, i32)) -> ([i32; 4], [i32; 4]) {
    let ((r, dr), (g, dg), (b, db)) =
        (base_offset(v[0], v[1]), base_offset(v[2], v[3]), base_offset(v[4], v[5]));
    let (base, end) = ([r, g, b, a], [r + dr, g + dg, b + db, a + da]);
    if dr + dg + db >= 0 {
        (clamp(base), clamp(end))
    } else {
        (clamp(blue_contract(end)), clamp(blue_contract(base)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luminance_modes_worked_by_hand() {
        assert_eq!(ldr(0, &[10, 200]), ([10, 10, 10, 255], [200, 200, 200, 255]));
        // Mode 1: base 0xC1 >> 2 | 0x80 = 0xB0, offset 0x3F, sum 0xEF.
        assert_eq!(ldr(1, &[0xC1, 0xBF]).0[0], 0xB0);
        assert_eq!(ldr(1, &[0xC1, 0xBF]).1[0], 0xEF);
        assert_eq!(base_offset(0x81, 0xC1), (0x40 | 0x80, -0x20));
        assert_eq!(base_offset(0x81, 0x3E), (0x40, 0x1F));
    }
}
