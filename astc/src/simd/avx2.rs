//! Lanes in 256-bit AVX2 registers.

// SAFETY (all blocks of this file): an `Avx2` is only made by `detect`, after the processor
// reported AVX2, and every load and store goes through a reference to an array of the vector's size.

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
    type Bytes = [__m256i; 2];
    type Wide = [__m256i; 2];
    type Words = __m256i;
    type Floats = __m256;
    const ROOMY: bool = false;

    #[inline(always)]
    fn bytes(self, lanes: &[u8; 64]) -> [__m256i; 2] {
        let halves: *const __m256i = lanes.as_ptr().cast();
        // SAFETY: see the head of the file.
        unsafe { [_mm256_loadu_si256(halves), _mm256_loadu_si256(halves.add(1))] }
    }

    #[inline(always)]
    fn store_bytes(self, lanes: [__m256i; 2], out: &mut [u8; 64]) {
        let halves: *mut __m256i = out.as_mut_ptr().cast();
        // SAFETY: see the head of the file.
        unsafe {
            _mm256_storeu_si256(halves, lanes[0]);
            _mm256_storeu_si256(halves.add(1), lanes[1]);
        }
    }

    #[inline(always)]
    fn min_bytes(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see the head of the file.
        unsafe { [_mm256_min_epu8(a[0], b[0]), _mm256_min_epu8(a[1], b[1])] }
    }

    #[inline(always)]
    fn max_bytes(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see the head of the file.
        unsafe { [_mm256_max_epu8(a[0], b[0]), _mm256_max_epu8(a[1], b[1])] }
    }

    #[inline(always)]
    fn saturating_sub_bytes(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see the head of the file.
        unsafe { [_mm256_subs_epu8(a[0], b[0]), _mm256_subs_epu8(a[1], b[1])] }
    }

    #[inline(always)]
    fn squares(self, a: [__m256i; 2]) -> [[__m256i; 2]; 2] {
        a.map(
            #[inline(always)]
            |a| {
                // SAFETY: see the head of the file.
                unsafe {
                    let low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(a));
                    let high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(a));
                    [_mm256_mullo_epi16(low, low), _mm256_mullo_epi16(high, high)]
                }
            },
        )
    }

    #[inline(always)]
    fn wide(self, lanes: &[[u16; 16]; 2]) -> [__m256i; 2] {
        [self.words(&lanes[0]), self.words(&lanes[1])]
    }

    #[inline(always)]
    fn splat_wide(self, value: u16) -> [__m256i; 2] {
        [self.splat_word(value); 2]
    }

    #[inline(always)]
    fn store_wide(self, lanes: [__m256i; 2], out: &mut [[u16; 16]; 2]) {
        self.store_words(lanes[0], &mut out[0]);
        self.store_words(lanes[1], &mut out[1]);
    }

    #[inline(always)]
    fn add_wide(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see the head of the file.
        unsafe { [_mm256_add_epi16(a[0], b[0]), _mm256_add_epi16(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub_wide(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see the head of the file.
        unsafe { [_mm256_sub_epi16(a[0], b[0]), _mm256_sub_epi16(a[1], b[1])] }
    }

    #[inline(always)]
    fn min_wide(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see the head of the file.
        unsafe { [_mm256_min_epu16(a[0], b[0]), _mm256_min_epu16(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_high_wide(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see the head of the file.
        unsafe { [_mm256_mulhi_epu16(a[0], b[0]), _mm256_mulhi_epu16(a[1], b[1])] }
    }

    #[inline(always)]
    fn scale_wide(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see the head of the file.
        unsafe { [_mm256_mulhrs_epi16(a[0], b[0]), _mm256_mulhrs_epi16(a[1], b[1])] }
    }

    #[inline(always)]
    fn select_below(
        self,
        new_key: [__m256i; 2],
        old_key: [__m256i; 2],
        new: [__m256i; 2],
        old: [__m256i; 2],
    ) -> [__m256i; 2] {
        std::array::from_fn(
            #[inline(always)]
            |half| {
                // SAFETY: see the head of the file.
                unsafe {
                    let least = _mm256_min_epu16(new_key[half], old_key[half]);
                    let keep = _mm256_cmpeq_epi16(least, old_key[half]);
                    _mm256_blendv_epi8(new[half], old[half], keep)
                }
            },
        )
    }

    #[inline(always)]
    fn first_equal_wide(self, a: [__m256i; 2], value: u16) -> Option<usize> {
        let second = || self.first_equal(a[1], value).map(|lane| lane + 16);
        self.first_equal(a[0], value).or_else(second)
    }

    #[inline(always)]
    fn fold(self, a: [__m256i; 2]) -> __m256i {
        self.min_words(a[0], a[1])
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
    fn scale_words(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see the head of the file.
        unsafe { _mm256_mulhrs_epi16(a, b) }
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
