//! Fixed-width lanes for the encoder's search kernels.
//!
//! A kernel is written once, generic over [`Simd`]; [`Level`] picks the implementation at run
//! time. Integers wrap or saturate as stated and floats round once an operation (nothing is
//! fused) on the same lane counts, so all levels return the same bits; [`Scalar`] is the
//! plain-array twin that the tests compare with.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use scalar::Scalar;

/// 64 lanes of u8, 32 or 16 lanes of u16, or 8 lanes of f32.
pub(crate) trait Simd: Copy {
    /// 64 lanes of u8.
    type Bytes: Copy;
    /// 32 lanes of u16.
    type Wide: Copy;
    /// 16 lanes of u16.
    type Words: Copy;
    /// 8 lanes of f32.
    type Floats: Copy;
    /// Whether six wide sums and their operands fit in registers.
    const ROOMY: bool;

    fn bytes(self, lanes: &[u8; 64]) -> Self::Bytes;
    fn store_bytes(self, lanes: Self::Bytes, out: &mut [u8; 64]);
    fn min_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn max_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// a - b, 0 where negative.
    fn saturating_sub_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Squares of lanes 0..32 and 32..64.
    fn squares(self, a: Self::Bytes) -> [Self::Wide; 2];

    fn wide(self, lanes: &[[u16; 16]; 2]) -> Self::Wide;
    fn splat_wide(self, value: u16) -> Self::Wide;
    fn store_wide(self, lanes: Self::Wide, out: &mut [[u16; 16]; 2]);
    /// a + b modulo 2^16.
    fn add_wide(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// a - b modulo 2^16.
    fn sub_wide(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    fn min_wide(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// (a·b) >> 16.
    fn mul_high_wide(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// a·b / 2^15, rounded to nearest, halves up; lanes below 2^15.
    fn scale_wide(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// Lane by lane, `new` where its key is below `old_key`, else `old`.
    fn select_below(
        self,
        new_key: Self::Wide,
        old_key: Self::Wide,
        new: Self::Wide,
        old: Self::Wide,
    ) -> Self::Wide;
    /// The first lane that equals `value`.
    fn first_equal_wide(self, a: Self::Wide, value: u16) -> Option<usize>;
    /// The smaller of lanes i and i + 16.
    fn fold(self, a: Self::Wide) -> Self::Words;

    fn words(self, lanes: &[u16; 16]) -> Self::Words;
    fn splat_word(self, value: u16) -> Self::Words;
    fn store_words(self, lanes: Self::Words, out: &mut [u16; 16]);
    /// a + b modulo 2^16.
    fn add_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// a - b modulo 2^16.
    fn sub_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn min_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// (a·b) >> 16.
    fn mul_high_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// a·b / 2^15, rounded to nearest, halves up; lanes below 2^15.
    fn scale_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// The smallest lane.
    fn horizontal_min(self, a: Self::Words) -> u16;
    /// The first lane that equals `value`.
    fn first_equal(self, a: Self::Words, value: u16) -> Option<usize>;

    fn floats(self, lanes: &[f32; 8]) -> Self::Floats;
    fn splat_float(self, value: f32) -> Self::Floats;
    fn store_floats(self, lanes: Self::Floats, out: &mut [f32; 8]);
    fn add_floats(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn sub_floats(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn mul_floats(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// Lane by lane, `new` where its key is below `old_key` (false for NaN), else `old`.
    fn select_below_floats(
        self,
        new_key: Self::Floats,
        old_key: Self::Floats,
        new: Self::Floats,
        old: Self::Floats,
    ) -> Self::Floats;
    /// ((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7)).
    fn horizontal_sum(self, a: Self::Floats) -> f32;
}

/// Lanes that start on a cache line: a vector load across two lines takes twice as long.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Aligned<T>(pub(crate) T);

/// Which implementation of [`Simd`] to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Plain arrays.
    Scalar,
    /// 256-bit integer vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 512-bit integer vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Level {
    /// The widest level of this machine.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = Avx512::detect() {
            return Self::Avx512(token);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = Avx2::detect() {
            return Self::Avx2(token);
        }
        Self::Scalar
    }

    /// Every level of this machine.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut levels = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        levels.extend(Avx2::detect().map(Self::Avx2));
        #[cfg(target_arch = "x86_64")]
        levels.extend(Avx512::detect().map(Self::Avx512));
        levels
    }
}

/// Defines a function that runs `$body` (generic over [`Simd`], `#[inline(always)]`) at a level,
/// compiled once for each instruction set.
macro_rules! dispatch {
    ($(#[$meta:meta])* fn $name:ident = $body:ident ( $($arg:ident : $ty:ty),* $(,)? ) $(-> $ret:ty)?) => {
        $(#[$meta])*
        pub(crate) fn $name(level: $crate::simd::Level, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2(token: $crate::simd::Avx2, $($arg: $ty),*) $(-> $ret)? {
                $body(token, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
            fn avx512(token: $crate::simd::Avx512, $($arg: $ty),*) $(-> $ret)? {
                $body(token, $($arg),*)
            }
            match level {
                $crate::simd::Level::Scalar => $body($crate::simd::Scalar, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the token exists only where the processor has AVX2.
                $crate::simd::Level::Avx2(token) => unsafe { avx2(token, $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the token exists only where the processor has these features.
                $crate::simd::Level::Avx512(token) => unsafe { avx512(token, $($arg),*) },
            }
        }
    };
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Words64 = [[u16; 16]; 4];

    fn all<S: Simd>(s: S, a: &[u8; 64], b: &[u8; 64], words: &Words64) -> Vec<u16> {
        let mut out = Vec::new();
        let mut keep8 = |v: S::Bytes| {
            let mut lanes = [0; 64];
            s.store_bytes(v, &mut lanes);
            out.extend(lanes.map(u16::from));
        };
        let (x, y) = (s.bytes(a), s.bytes(b));
        keep8(s.min_bytes(x, y));
        keep8(s.max_bytes(x, y));
        keep8(s.saturating_sub_bytes(x, y));
        let [first, second] = words.as_chunks::<2>().0 else { unreachable!() };
        let (p, q) = (s.wide(first), s.wide(second));
        let half = |words: &[[u16; 16]; 2]| words.map(|vector| vector.map(|lane| lane / 2));
        let [low, high] = s.squares(x);
        for v in [
            low,
            high,
            s.splat_wide(words[0][3]),
            s.add_wide(p, q),
            s.sub_wide(p, q),
            s.min_wide(p, q),
            s.mul_high_wide(p, q),
            s.scale_wide(s.wide(&half(first)), s.wide(&half(second))),
            s.select_below(p, q, low, high),
        ] {
            let mut lanes = [[0; 16]; 2];
            s.store_wide(v, &mut lanes);
            out.extend(lanes.as_flattened());
        }
        let (p, q) = (s.words(&words[0]), s.words(&words[3]));
        for v in [
            s.fold(s.wide(first)),
            s.splat_word(words[0][3]),
            s.add_words(p, q),
            s.sub_words(p, q),
            s.min_words(p, q),
            s.mul_high_words(p, q),
            s.scale_words(s.words(&half(first)[0]), s.words(&half(second)[1])),
        ] {
            let mut lanes = [0; 16];
            s.store_words(v, &mut lanes);
            out.extend(lanes);
        }
        out.push(s.horizontal_min(p));
        let mut found = |lane: Option<usize>| out.push(lane.map_or(u16::MAX, |lane| lane as u16));
        for value in [words[0][9], words[1][2], words[3][0], words[2][7]] {
            found(s.first_equal(p, value));
            found(s.first_equal_wide(s.wide(first), value));
        }
        out
    }

    fn all_floats<S: Simd>(s: S, a: &[f32; 8], b: &[f32; 8]) -> Vec<u32> {
        let (x, y) = (s.floats(a), s.floats(b));
        let product = s.mul_floats(x, y);
        let mut out = vec![s.horizontal_sum(x).to_bits(), s.horizontal_sum(product).to_bits()];
        for v in [
            s.splat_float(a[5]),
            product,
            s.add_floats(product, y),
            s.sub_floats(product, x),
            s.select_below_floats(x, y, product, y),
        ] {
            let mut lanes = [0.0; 8];
            s.store_floats(v, &mut lanes);
            out.extend(lanes.map(f32::to_bits));
        }
        out
    }

    proptest! {
        #[test]
        fn levels_agree_with_the_scalar_twin(
            bytes in prop::array::uniform2(prop::array::uniform32(any::<u8>())),
            more in prop::array::uniform2(prop::array::uniform32(any::<u8>())),
            words in prop::array::uniform4(prop::array::uniform16(any::<u16>())),
            e in prop::array::uniform8(-1e6_f32..1e6),
            f in prop::array::uniform8(-1e6_f32..1e6),
        ) {
            let whole = |halves: &[[u8; 32]; 2]| -> [u8; 64] {
                halves.as_flattened().try_into().unwrap()
            };
            let (a, b) = (whole(&bytes), whole(&more));
            let expected = all(Scalar, &a, &b, &words);
            let expected_floats = all_floats(Scalar, &e, &f);
            for level in Level::all() {
                let (found, floats) = match level {
                    Level::Scalar => continue,
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2(s) => (all(s, &a, &b, &words), all_floats(s, &e, &f)),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512(s) => (all(s, &a, &b, &words), all_floats(s, &e, &f)),
                };
                prop_assert_eq!(&found, &expected);
                prop_assert_eq!(&floats, &expected_floats);
            }
        }
    }
}
