//! Lanes as plain arrays.

use super::Simd;

/// The portable implementation; the compiler may still vectorise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scalar;

#[inline(always)]
fn zip<T: Copy, const N: usize>(a: [T; N], b: [T; N], op: impl Fn(T, T) -> T) -> [T; N] {
    std::array::from_fn(|lane| op(a[lane], b[lane]))
}

impl Simd for Scalar {
    type Bytes = [u8; 64];
    type Wide = [[u16; 16]; 2];
    type Words = [u16; 16];
    type Floats = [f32; 8];
    const ROOMY: bool = false;

    #[inline(always)]
    fn bytes(self, lanes: &[u8; 64]) -> [u8; 64] {
        *lanes
    }

    #[inline(always)]
    fn store_bytes(self, lanes: [u8; 64], out: &mut [u8; 64]) {
        *out = lanes;
    }

    #[inline(always)]
    fn min_bytes(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        zip(a, b, Ord::min)
    }

    #[inline(always)]
    fn max_bytes(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        zip(a, b, Ord::max)
    }

    #[inline(always)]
    fn saturating_sub_bytes(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        zip(a, b, u8::saturating_sub)
    }

    #[inline(always)]
    fn squares(self, a: [u8; 64]) -> [[[u16; 16]; 2]; 2] {
        let square = |value: u8| u16::from(value) * u16::from(value);
        std::array::from_fn(|half| {
            std::array::from_fn(|part| {
                std::array::from_fn(|lane| square(a[32 * half + 16 * part + lane]))
            })
        })
    }

    #[inline(always)]
    fn wide(self, lanes: &[[u16; 16]; 2]) -> [[u16; 16]; 2] {
        *lanes
    }

    #[inline(always)]
    fn splat_wide(self, value: u16) -> [[u16; 16]; 2] {
        [[value; 16]; 2]
    }

    #[inline(always)]
    fn store_wide(self, lanes: [[u16; 16]; 2], out: &mut [[u16; 16]; 2]) {
        *out = lanes;
    }

    #[inline(always)]
    fn add_wide(self, a: [[u16; 16]; 2], b: [[u16; 16]; 2]) -> [[u16; 16]; 2] {
        zip(a, b, |x, y| self.add_words(x, y))
    }

    #[inline(always)]
    fn sub_wide(self, a: [[u16; 16]; 2], b: [[u16; 16]; 2]) -> [[u16; 16]; 2] {
        zip(a, b, |x, y| self.sub_words(x, y))
    }

    #[inline(always)]
    fn min_wide(self, a: [[u16; 16]; 2], b: [[u16; 16]; 2]) -> [[u16; 16]; 2] {
        zip(a, b, |x, y| self.min_words(x, y))
    }

    #[inline(always)]
    fn mul_high_wide(self, a: [[u16; 16]; 2], b: [[u16; 16]; 2]) -> [[u16; 16]; 2] {
        zip(a, b, |x, y| self.mul_high_words(x, y))
    }

    #[inline(always)]
    fn scale_wide(self, a: [[u16; 16]; 2], b: [[u16; 16]; 2]) -> [[u16; 16]; 2] {
        zip(a, b, |x, y| self.scale_words(x, y))
    }

    #[inline(always)]
    fn select_below(
        self,
        new_key: [[u16; 16]; 2],
        old_key: [[u16; 16]; 2],
        new: [[u16; 16]; 2],
        old: [[u16; 16]; 2],
    ) -> [[u16; 16]; 2] {
        std::array::from_fn(|half| {
            std::array::from_fn(|lane| {
                let below = new_key[half][lane] < old_key[half][lane];
                if below { new[half][lane] } else { old[half][lane] }
            })
        })
    }

    #[inline(always)]
    fn first_equal_wide(self, a: [[u16; 16]; 2], value: u16) -> Option<usize> {
        a.as_flattened().iter().position(|&lane| lane == value)
    }

    #[inline(always)]
    fn fold(self, [low, high]: [[u16; 16]; 2]) -> [u16; 16] {
        self.min_words(low, high)
    }

    #[inline(always)]
    fn words(self, lanes: &[u16; 16]) -> [u16; 16] {
        *lanes
    }

    #[inline(always)]
    fn splat_word(self, value: u16) -> [u16; 16] {
        [value; 16]
    }

    #[inline(always)]
    fn store_words(self, lanes: [u16; 16], out: &mut [u16; 16]) {
        *out = lanes;
    }

    #[inline(always)]
    fn add_words(self, a: [u16; 16], b: [u16; 16]) -> [u16; 16] {
        zip(a, b, u16::wrapping_add)
    }

    #[inline(always)]
    fn sub_words(self, a: [u16; 16], b: [u16; 16]) -> [u16; 16] {
        zip(a, b, u16::wrapping_sub)
    }

    #[inline(always)]
    fn min_words(self, a: [u16; 16], b: [u16; 16]) -> [u16; 16] {
        zip(a, b, Ord::min)
    }

    #[inline(always)]
    fn mul_high_words(self, a: [u16; 16], b: [u16; 16]) -> [u16; 16] {
        zip(a, b, |x, y| ((u32::from(x) * u32::from(y)) >> 16) as u16)
    }

    #[inline(always)]
    fn scale_words(self, a: [u16; 16], b: [u16; 16]) -> [u16; 16] {
        zip(a, b, |x, y| ((u32::from(x) * u32::from(y) + 0x4000) >> 15) as u16)
    }

    #[inline(always)]
    fn horizontal_min(self, a: [u16; 16]) -> u16 {
        a.into_iter().fold(u16::MAX, Ord::min)
    }

    #[inline(always)]
    fn floats(self, lanes: &[f32; 8]) -> [f32; 8] {
        *lanes
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> [f32; 8] {
        [value; 8]
    }

    #[inline(always)]
    fn store_floats(self, lanes: [f32; 8], out: &mut [f32; 8]) {
        *out = lanes;
    }

    #[inline(always)]
    fn add_floats(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |x, y| x + y)
    }

    #[inline(always)]
    fn sub_floats(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |x, y| x - y)
    }

    #[inline(always)]
    fn mul_floats(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |x, y| x * y)
    }

    #[inline(always)]
    fn select_below_floats(
        self,
        new_key: [f32; 8],
        old_key: [f32; 8],
        new: [f32; 8],
        old: [f32; 8],
    ) -> [f32; 8] {
        std::array::from_fn(
            |lane| if new_key[lane] < old_key[lane] { new[lane] } else { old[lane] },
        )
    }

    #[inline(always)]
    fn horizontal_sum(self, a: [f32; 8]) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }

    #[inline(always)]
    fn first_equal(self, a: [u16; 16], value: u16) -> Option<usize> {
        a.into_iter().position(|lane| lane == value)
    }
}
