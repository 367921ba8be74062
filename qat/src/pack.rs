//! Codes to bytes and back: the first code of a byte is in its lowest bits.

use multiversion::multiversion;

/// Bytes that `codes` 2-bit codes take.
#[must_use]
pub fn packed2_len(codes: usize) -> usize {
    codes.div_ceil(4)
}

/// Bytes that `codes` 4-bit codes take.
#[must_use]
pub fn packed4_len(codes: usize) -> usize {
    codes.div_ceil(2)
}

/// Packs 2-bit codes, each 0..=3, four to a byte: code 4k is in bits 0-1 of byte k. Bits past the
/// last code are zero.
///
/// # Panics
/// If `packed` is not [`packed2_len`] bytes long.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub fn pack2(codes: &[u8], packed: &mut [u8]) {
    pack2_inline(codes, packed);
}

/// Unpacks 2-bit codes; the bits past the last code are ignored.
///
/// # Panics
/// If `packed` is not [`packed2_len`] bytes long.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub fn unpack2(packed: &[u8], codes: &mut [u8]) {
    unpack2_inline(packed, codes);
}

/// Packs 4-bit codes, each 0..=15, two to a byte: code 2k is in bits 0-3 of byte k. Bits past the
/// last code are zero.
///
/// # Panics
/// If `packed` is not [`packed4_len`] bytes long.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub fn pack4(codes: &[u8], packed: &mut [u8]) {
    pack4_inline(codes, packed);
}

/// Unpacks 4-bit codes; the bits past the last code are ignored.
///
/// # Panics
/// If `packed` is not [`packed4_len`] bytes long.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub fn unpack4(packed: &[u8], codes: &mut [u8]) {
    unpack4_inline(packed, codes);
}

#[inline(always)]
pub(crate) fn pack2_inline(codes: &[u8], packed: &mut [u8]) {
    assert_eq!(packed.len(), packed2_len(codes.len()), "bytes of the packed codes");
    let (quads, rest) = codes.as_chunks::<4>();
    for (byte, quad) in packed.iter_mut().zip(quads) {
        // The product moves code j from bit 8j to bit 24 + 2j; no two terms overlap below, so
        // nothing is carried into those bits.
        let moved = u32::from_le_bytes(*quad).wrapping_mul(0x0104_1040);
        *byte = (moved >> 24) as u8;
    }
    if !rest.is_empty() {
        packed[quads.len()] = rest.iter().rev().fold(0, |byte, code| byte << 2 | code);
    }
}

#[inline(always)]
pub(crate) fn unpack2_inline(packed: &[u8], codes: &mut [u8]) {
    assert_eq!(packed.len(), packed2_len(codes.len()), "bytes of the packed codes");
    let (quads, rest) = codes.as_chunks_mut::<4>();
    let full = quads.len();
    for (quad, &byte) in quads.iter_mut().zip(packed) {
        *quad = [byte & 3, byte >> 2 & 3, byte >> 4 & 3, byte >> 6];
    }
    for (j, code) in rest.iter_mut().enumerate() {
        *code = packed[full] >> (2 * j) & 3;
    }
}

#[inline(always)]
pub(crate) fn pack4_inline(codes: &[u8], packed: &mut [u8]) {
    assert_eq!(packed.len(), packed4_len(codes.len()), "bytes of the packed codes");
    let (pairs, rest) = codes.as_chunks::<2>();
    for (byte, pair) in packed.iter_mut().zip(pairs) {
        *byte = pair[0] | pair[1] << 4;
    }
    if let [last] = rest {
        packed[pairs.len()] = *last;
    }
}

#[inline(always)]
pub(crate) fn unpack4_inline(packed: &[u8], codes: &mut [u8]) {
    assert_eq!(packed.len(), packed4_len(codes.len()), "bytes of the packed codes");
    let (pairs, rest) = codes.as_chunks_mut::<2>();
    let full = pairs.len();
    for (pair, &byte) in pairs.iter_mut().zip(packed) {
        *pair = [byte & 15, byte >> 4];
    }
    if let [last] = rest {
        *last = packed[full] & 15;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_by_hand() {
        let mut packed = [0xff; 2];
        pack2(&[3, 2, 1, 0, 1, 3], &mut packed);
        assert_eq!(packed, [0b00_01_10_11, 0b00_00_11_01]);
        let mut packed = [0xff; 2];
        pack4(&[0x1, 0xf, 0x7], &mut packed);
        assert_eq!(packed, [0xf1, 0x07]);
    }

    #[test]
    #[should_panic(expected = "bytes of the packed codes")]
    fn a_short_output_is_refused() {
        pack2(&[0; 5], &mut [0; 1]);
    }

    proptest! {
        #[test]
        fn codes_come_back(codes in prop::collection::vec(0_u8..16, 0..300)) {
            let mut packed = vec![0xff; packed4_len(codes.len())];
            pack4(&codes, &mut packed);
            let mut unpacked = vec![0xff; codes.len()];
            unpack4(&packed, &mut unpacked);
            prop_assert_eq!(&unpacked, &codes);

            let codes: Vec<u8> = codes.iter().map(|code| code & 3).collect();
            let mut packed = vec![0xff; packed2_len(codes.len())];
            pack2(&codes, &mut packed);
            unpack2(&packed, &mut unpacked);
            prop_assert_eq!(&unpacked, &codes);
            for (k, code) in codes.iter().enumerate() {
                prop_assert_eq!(packed[k / 4] >> (2 * (k % 4)) & 3, *code);
            }
        }
    }
}
