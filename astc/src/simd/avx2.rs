//! Lanes in 256-bit AVX2 registers.

// SAFETY (all blocks of this file): an `Avx2` is only made by `detect`, after the processor
// reported AVX2, and every load and store goes through a reference to an array of 32 bytes.

use std::arch::x86_64::*;

use super::Simd;

/// Proof that the processor has AVX2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, where the processor has AVX2.
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl Simd for Avx2 {
    type Bytes = __m256i;
    type Words = __m256i;
    type Floats = __m256;

    #[inline(always)]
    fn bytes(self, lanes: &[u8; 32]) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_bytes(self, lanes: __m256i, out: &mut [u8; 32]) {
        // SAFETY: see the head of the file.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), lanes) }
    }

    #[inline(always)]
    fn min_bytes(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_min_epu8(a, b) }
    }

    #[inline(always)]
    fn max_bytes(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_max_epu8(a, b) }
    }

    #[inline(always)]
    fn saturating_sub_bytes(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_subs_epu8(a, b) }
    }

    #[inline(always)]
    fn squares(self, a: __m256i) -> [__m256i; 2] {
        // SAFETY: see the head of the file.
        unsafe {
            let low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(a));
            let high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(a));
            [_mm256_mullo_epi16(low, low), _mm256_mullo_epi16(high, high)]
        }
    }

    #[inline(always)]
    fn words(self, lanes: &[u16; 16]) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn splat_word(self, value: u16) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_set1_epi16(value.cast_signed()) }
    }

    #[inline(always)]
    fn store_words(self, lanes: __m256i, out: &mut [u16; 16]) {
        // SAFETY: see the head of the file.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), lanes) }
    }

    #[inline(always)]
    fn add_words(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_add_epi16(a, b) }
    }

    #[inline(always)]
    fn sub_words(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_sub_epi16(a, b) }
    }

    #[inline(always)]
    fn min_words(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_min_epu16(a, b) }
    }

    #[inline(always)]
    fn mul_high_words(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_mulhi_epu16(a, b) }
    }

    #[inline(always)]
    fn select_below(
        self,
        new_key: __m256i,
        old_key: __m256i,
        new: __m256i,
        old: __m256i,
    ) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe {
            let keep = _mm256_cmpeq_epi16(_mm256_min_epu16(new_key, old_key), old_key);
            _mm256_blendv_epi8(new, old, keep)
        }
    }

    #[inline(always)]
    fn horizontal_min(self, a: __m256i) -> u16 {
        // SAFETY: see the head of the file; AVX2 includes SSE4.1.
        unsafe {
            let half = _mm_min_epu16(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            _mm_extract_epi16::<0>(_mm_minpos_epu16(half)) as u16
        }
    }

    #[inline(always)]
    fn floats(self, lanes: &[f32; 8]) -> __m256 {
        // SAFETY: see the head of the file.
        unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> __m256 {
        // SAFETY: see the head of the file.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn store_floats(self, lanes: __m256, out: &mut [f32; 8]) {
        // SAFETY: see the head of the file.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), lanes) }
    }

    #[inline(always)]
    fn add_floats(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the head of the file.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub_floats(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the head of the file.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul_floats(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the head of the file.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn select_below_floats(
        self,
        new_key: __m256,
        old_key: __m256,
        new: __m256,
        old: __m256,
    ) -> __m256 {
        // SAFETY: see the head of the file.
        unsafe { _mm256_blendv_ps(old, new, _mm256_cmp_ps::<_CMP_LT_OQ>(new_key, old_key)) }
    }

    #[inline(always)]
    fn horizontal_sum(self, a: __m256) -> f32 {
        // SAFETY: see the head of the file; AVX2 includes SSE3.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    fn first_equal(self, a: __m256i, value: u16) -> Option<usize> {
        // SAFETY: see the head of the file.
        let mask = unsafe {
            _mm256_movemask_epi8(_mm256_cmpeq_epi16(a, _mm256_set1_epi16(value.cast_signed())))
        };
        // Two mask bits a lane.
        (mask != 0).then_some(mask.trailing_zeros() as usize / 2)
    }
}
