//! HDR colour endpoint modes 2, 3, 7, 11, 14 and 15 (KDF 1.3 section 23.15): 12-bit endpoints.
//!
//! Modes 7, 11 and the alpha of 15 spend a few stored bits on naming a sub-mode, which says where
//! the other bits belong and how far the sum is shifted. The scatter tables below read like the
//! specification's: each entry gives the sub-modes (as a bit set) that send a stored bit to a
//! place of a field.

const MAX: i32 = 0xFFF;
/// The alpha 1.0 of a mode without alpha.
const OPAQUE: i32 = 0x780;

/// Endpoints on the 12-bit scale; the alpha of mode 14 is 8-bit.
pub(super) fn unpack(format: u8, v: &[u8]) -> ([i32; 4], [i32; 4]) {
    let ((low, high), alpha) = match format {
        2 | 3 => {
            let (low, high) = luminance(format, v[0], v[1]);
            (([low; 3], [high; 3]), (OPAQUE, OPAQUE))
        }
        7 => (scaled(v), (OPAQUE, OPAQUE)),
        11 => (direct(v), (OPAQUE, OPAQUE)),
        14 => (direct(v), (v[6].into(), v[7].into())),
        _ => (direct(v), alpha(v[6], v[7])),
    };
    ([low[0], low[1], low[2], alpha.0], [high[0], high[1], high[2], alpha.1])
}

/// The luminance endpoints of modes 2 (large range) and 3 (small range).
pub(crate) fn luminance(format: u8, v0: u8, v1: u8) -> (i32, i32) {
    let (v0, v1) = (i32::from(v0), i32::from(v1));
    if format == 2 {
        return if v1 >= v0 { (v0 << 4, v1 << 4) } else { ((v1 << 4) + 8, (v0 << 4) - 8) };
    }
    let (low, offset) = if v0 & 0x80 != 0 {
        (((v1 & 0xE0) << 4) | ((v0 & 0x7F) << 2), (v1 & 0x1F) << 2)
    } else {
        (((v1 & 0xF0) << 4) | ((v0 & 0x7F) << 1), (v1 & 0x0F) << 1)
    };
    (low, (low + offset).min(MAX))
}

/// Adds the stored bits to `fields`: entries are (sub-modes, stored bit, field, position).
fn scatter<const N: usize>(
    mode: i32,
    bits: &[i32],
    entries: &[(u8, usize, usize, u32)],
    mut fields: [i32; N],
) -> [i32; N] {
    for &(modes, bit, field, position) in entries {
        if modes >> mode & 1 == 1 {
            fields[field] |= bits[bit] << position;
        }
    }
    fields
}

/// Puts the major component, handled as red so far, in its place.
fn swap_major(mut colour: [i32; 3], major: i32) -> [i32; 3] {
    colour.swap(0, major as usize);
    colour
}

/// Mode 7: one colour and an amount that the other endpoint is darker by.
fn scaled(v: &[u8]) -> ([i32; 3], [i32; 3]) {
    const RED: usize = 0;
    const GREEN: usize = 1;
    const BLUE: usize = 2;
    const SCALE: usize = 3;
    const ENTRIES: [(u8, usize, usize, u32); 17] = [
        (0x30, 0, GREEN, 6),
        (0x3A, 1, GREEN, 5),
        (0x30, 2, BLUE, 6),
        (0x3A, 3, BLUE, 5),
        (0x3D, 6, SCALE, 5),
        (0x2D, 5, SCALE, 6),
        (0x04, 4, SCALE, 7),
        (0x3B, 4, RED, 6),
        (0x04, 3, RED, 6),
        (0x10, 5, RED, 7),
        (0x0F, 2, RED, 7),
        (0x05, 1, RED, 8),
        (0x0A, 0, RED, 8),
        (0x05, 0, RED, 9),
        (0x02, 6, RED, 9),
        (0x01, 3, RED, 10),
        (0x02, 5, RED, 10),
    ];
    const SHIFT: [u32; 6] = [1, 1, 2, 3, 4, 5];

    let [v0, v1, v2, v3] = [v[0], v[1], v[2], v[3]].map(i32::from);
    let selector = (v0 >> 6) | (v1 & 0x80) >> 5 | (v2 & 0x80) >> 4;
    let (major, mode) = match selector {
        0b1111 => (0, 5),
        s if s >> 2 == 0b11 => (s & 3, 4),
        s => (s >> 2, s & 3),
    };
    let bit = |value: i32, position: u32| (value >> position) & 1;
    let bits = [bit(v1, 6), bit(v1, 5), bit(v2, 6), bit(v2, 5), bit(v3, 7), bit(v3, 6), bit(v3, 5)];
    let fields = [v0 & 0x3F, v1 & 0x1F, v2 & 0x1F, v3 & 0x1F];
    let [red, green, blue, scale] =
        scatter(mode, &bits, &ENTRIES, fields).map(|f| f << SHIFT[mode as usize]);
    let colour = if mode == 5 { [red, green, blue] } else { [red, red - green, red - blue] };
    let colour = swap_major(colour, major);
    (colour.map(|c| (c - scale).clamp(0, MAX)), colour.map(|c| c.clamp(0, MAX)))
}

/// Modes 11, 14 and 15: a major component and differences to it.
fn direct(v: &[u8]) -> ([i32; 3], [i32; 3]) {
    const A: usize = 0;
    const B0: usize = 1;
    const B1: usize = 2;
    const C: usize = 3;
    const ENTRIES: [(u8, usize, usize, u32); 13] = [
        (0xA4, 0, A, 9),
        (0x08, 2, A, 9),
        (0x50, 4, A, 9),
        (0x50, 5, A, 10),
        (0xA0, 1, A, 10),
        (0xC0, 2, A, 11),
        (0x04, 1, C, 6),
        (0xE8, 3, C, 6),
        (0x20, 2, C, 7),
        (0x5B, 0, B0, 6),
        (0x5B, 1, B1, 6),
        (0x12, 2, B0, 7),
        (0x12, 3, B1, 7),
    ];
    const DIFFERENCE_BITS: [u32; 8] = [7, 6, 7, 6, 5, 6, 5, 6];

    let v: [i32; 6] = std::array::from_fn(|index| i32::from(v[index]));
    let major = v[4] >> 7 | v[5] >> 7 << 1;
    if major == 3 {
        let colour = |r: i32, g: i32, b: i32| [r << 4, g << 4, (b & 0x7F) << 5];
        return (colour(v[0], v[2], v[4]), colour(v[1], v[3], v[5]));
    }
    let mode = v[1] >> 7 | v[2] >> 7 << 1 | v[3] >> 7 << 2;
    let bit = |value: i32, position: u32| (value >> position) & 1;
    let bits = [bit(v[2], 6), bit(v[3], 6), bit(v[4], 6), bit(v[5], 6), bit(v[4], 5), bit(v[5], 5)];
    let fields = [v[0] | (v[1] & 0x40) << 2, v[2] & 0x3F, v[3] & 0x3F, v[1] & 0x3F];
    let shift = (mode >> 1) ^ 3;
    let [a, b0, b1, c] = scatter(mode, &bits, &ENTRIES, fields).map(|f| f << shift);
    let unused = 32 - DIFFERENCE_BITS[mode as usize];
    let [d0, d1] = [v[4], v[5]].map(|d| ((d << unused) >> unused) << shift);

    let high = swap_major([a, a - b0, a - b1], major);
    let low = swap_major([a - c, a - b0 - c - d0, a - b1 - c - d1], major);
    (low.map(|c| c.clamp(0, MAX)), high.map(|c| c.clamp(0, MAX)))
}

/// The alpha of mode 15.
fn alpha(v6: u8, v7: u8) -> (i32, i32) {
    let mode = i32::from(v6 >> 7 | v7 >> 7 << 1);
    let (v6, v7) = (i32::from(v6 & 0x7F), i32::from(v7 & 0x7F));
    if mode == 3 {
        return (v6 << 5, v7 << 5);
    }
    let base = v6 | ((v7 << (mode + 1)) & 0x780);
    let sign = 0x20 >> mode;
    let offset = ((v7 & (0x3F >> mode)) ^ sign) - sign;
    let low = base << (4 - mode);
    (low, (low + (offset << (4 - mode))).clamp(0, MAX))
}
