//! Lanes in 512-bit AVX-512 registers, and those of AVX2 for what is narrower.

// SAFETY (all blocks of this file): an `Avx512` is only made by `detect`, after the processor
// reported the features used, and every load and store goes through a reference to an array of
// the vector's size.

use std::arch::x86_64::*;

use super::{Avx2, Simd};

/// Proof that the processor has AVX2 and AVX-512 F, BW and VL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512 {
    narrow: Avx2,
}

impl Avx512 {
    /// The proof, where the processor has these features.
    pub(crate) fn detect() -> Option<Self> {
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        Avx2::detect().filter(|_| wide).map(|narrow| Self { narrow })
    }
}

impl Simd for Avx512 {
    type Bytes = __m512i;
    type Wide = __m512i;
    type Words = __m256i;
    type Floats = __m256;
    const ROOMY: bool = true;

    #[inline(always)]
    fn bytes(self, lanes: &[u8; 64]) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_bytes(self, lanes: __m512i, out: &mut [u8; 64]) {
        // SAFETY: see the head of the file.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), lanes) }
    }

    #[inline(always)]
    fn min_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_min_epu8(a, b) }
    }

    #[inline(always)]
    fn max_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_max_epu8(a, b) }
    }

    #[inline(always)]
    fn saturating_sub_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_subs_epu8(a, b) }
    }

    #[inline(always)]
    fn squares(self, a: __m512i) -> [__m512i; 2] {
        // SAFETY: see the head of the file.
        unsafe {
            let low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(a));
            let high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64::<1>(a));
            [_mm512_mullo_epi16(low, low), _mm512_mullo_epi16(high, high)]
        }
    }

    #[inline(always)]
    fn wide(self, lanes: &[[u16; 16]; 2]) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn splat_wide(self, value: u16) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_set1_epi16(value.cast_signed()) }
    }

    #[inline(always)]
    fn store_wide(self, lanes: __m512i, out: &mut [[u16; 16]; 2]) {
        // SAFETY: see the head of the file.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), lanes) }
    }

    #[inline(always)]
    fn add_wide(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_add_epi16(a, b) }
    }

    #[inline(always)]
    fn sub_wide(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_sub_epi16(a, b) }
    }

    #[inline(always)]
    fn min_wide(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_min_epu16(a, b) }
    }

    #[inline(always)]
    fn mul_high_wide(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_mulhi_epu16(a, b) }
    }

    #[inline(always)]
    fn scale_wide(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_mulhrs_epi16(a, b) }
    }

    #[inline(always)]
    fn select_below(
        self,
        new_key: __m512i,
        old_key: __m512i,
        new: __m512i,
        old: __m512i,
    ) -> __m512i {
        // SAFETY: see the head of the file.
        unsafe { _mm512_mask_blend_epi16(_mm512_cmplt_epu16_mask(new_key, old_key), old, new) }
    }

    #[inline(always)]
    fn first_equal_wide(self, a: __m512i, value: u16) -> Option<usize> {
        // SAFETY: see the head of the file.
        let mask = unsafe { _mm512_cmpeq_epi16_mask(a, _mm512_set1_epi16(value.cast_signed())) };
        (mask != 0).then_some(mask.trailing_zeros() as usize)
    }

    #[inline(always)]
    fn fold(self, a: __m512i) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_min_epu16(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64::<1>(a)) }
    }

    #[inline(always)]
    fn words(self, lanes: &[u16; 16]) -> __m256i {
        self.narrow.words(lanes)
    }

    #[inline(always)]
    fn splat_word(self, value: u16) -> __m256i {
        self.narrow.splat_word(value)
    }

    #[inline(always)]
    fn store_words(self, lanes: __m256i, out: &mut [u16; 16]) {
        self.narrow.store_words(lanes, out);
    }

    #[inline(always)]
    fn add_words(self, a: __m256i, b: __m256i) -> __m256i {
        self.narrow.add_words(a, b)
    }

    #[inline(always)]
    fn sub_words(self, a: __m256i, b: __m256i) -> __m256i {
        self.narrow.sub_words(a, b)
    }

    #[inline(always)]
    fn min_words(self, a: __m256i, b: __m256i) -> __m256i {
        self.narrow.min_words(a, b)
    }

    #[inline(always)]
    fn mul_high_words(self, a: __m256i, b: __m256i) -> __m256i {
        self.narrow.mul_high_words(a, b)
    }

    #[inline(always)]
    fn scale_words(self, a: __m256i, b: __m256i) -> __m256i {
        self.narrow.scale_words(a, b)
    }

    #[inline(always)]
    fn horizontal_min(self, a: __m256i) -> u16 {
        self.narrow.horizontal_min(a)
    }

    #[inline(always)]
    fn floats(self, lanes: &[f32; 8]) -> __m256 {
        self.narrow.floats(lanes)
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> __m256 {
        self.narrow.splat_float(value)
    }

    #[inline(always)]
    fn store_floats(self, lanes: __m256, out: &mut [f32; 8]) {
        self.narrow.store_floats(lanes, out);
    }

    #[inline(always)]
    fn add_floats(self, a: __m256, b: __m256) -> __m256 {
        self.narrow.add_floats(a, b)
    }

    #[inline(always)]
    fn sub_floats(self, a: __m256, b: __m256) -> __m256 {
        self.narrow.sub_floats(a, b)
    }

    #[inline(always)]
    fn mul_floats(self, a: __m256, b: __m256) -> __m256 {
        self.narrow.mul_floats(a, b)
    }

    #[inline(always)]
    fn select_below_floats(
        self,
        new_key: __m256,
        old_key: __m256,
        new: __m256,
        old: __m256,
    ) -> __m256 {
        self.narrow.select_below_floats(new_key, old_key, new, old)
    }

    #[inline(always)]
    fn horizontal_sum(self, a: __m256) -> f32 {
        self.narrow.horizontal_sum(a)
    }

    #[inline(always)]
    fn first_equal(self, a: __m256i, value: u16) -> Option<usize> {
        self.narrow.first_equal(a, value)
    }
}
