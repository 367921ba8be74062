//! Fixed-width lanes for the encoder's search kernels.
//!
//! A kernel is written once, generic over [`Simd`]; [`Level`] picks the implementation at run
//! time. Integers wrap or saturate as stated and floats round once an operation (nothing is
//! fused) on the same lane counts, so all levels return the same bits; [`Scalar`] is the
//! plain-array twin that the tests compare with.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
pub(crate) use scalar::Scalar;

/// 32 lanes of u8, 16 lanes of u16 or 8 lanes of f32.
pub(crate) trait Simd: Copy {
    /// 32 lanes of u8.
    type Bytes: Copy;
    /// 16 lanes of u16.
    type Words: Copy;
    /// 8 lanes of f32.
    type Floats: Copy;

    fn bytes(self, lanes: &[u8; 32]) -> Self::Bytes;
    fn store_bytes(self, lanes: Self::Bytes, out: &mut [u8; 32]);
    fn min_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn max_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// a - b, 0 where negative.
    fn saturating_sub_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Squares of lanes 0..16 and 16..32.
    fn squares(self, a: Self::Bytes) -> [Self::Words; 2];

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
    /// Lane by lane, `new` where its key is below `old_key`, else `old`.
    fn select_below(
        self,
        new_key: Self::Words,
        old_key: Self::Words,
        new: Self::Words,
        old: Self::Words,
    ) -> Self::Words;
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

/// Which implementation of [`Simd`] to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Plain arrays.
    Scalar,
    /// 256-bit integer vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
}

impl Level {
    /// The widest level of this machine.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = Avx2::detect() {
            return Self::Avx2(token);
        }
        Self::Scalar
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
            match level {
                $crate::simd::Level::Scalar => $body($crate::simd::Scalar, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the token exists only where the processor has AVX2.
                $crate::simd::Level::Avx2(token) => unsafe { avx2(token, $($arg),*) },
            }
        }
    };
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all<S: Simd>(s: S, a: &[u8; 32], b: &[u8; 32], c: &[u16; 16], d: &[u16; 16]) -> Vec<u16> {
        let mut out = Vec::new();
        let mut keep8 = |v: S::Bytes| {
            let mut lanes = [0; 32];
            s.store_bytes(v, &mut lanes);
            out.extend(lanes.map(u16::from));
        };
        let (x, y) = (s.bytes(a), s.bytes(b));
        keep8(s.min_bytes(x, y));
        keep8(s.max_bytes(x, y));
        keep8(s.saturating_sub_bytes(x, y));
        let (p, q) = (s.words(c), s.words(d));
        let [low, high] = s.squares(x);
        for v in [
            low,
            high,
            s.splat_word(c[3]),
            s.add_words(p, q),
            s.sub_words(p, q),
            s.min_words(p, q),
            s.mul_high_words(p, q),
            s.select_below(p, q, low, high),
        ] {
            let mut lanes = [0; 16];
            s.store_words(v, &mut lanes);
            out.extend(lanes);
        }
        out.push(s.horizontal_min(p));
        out.push(s.first_equal(p, c[9]).map_or(u16::MAX, |lane| lane as u16));
        out.push(s.first_equal(p, d[0]).map_or(u16::MAX, |lane| lane as u16));
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
            a in prop::array::uniform32(any::<u8>()),
            b in prop::array::uniform32(any::<u8>()),
            c in prop::array::uniform16(any::<u16>()),
            d in prop::array::uniform16(any::<u16>()),
            e in prop::array::uniform8(-1e6_f32..1e6),
            f in prop::array::uniform8(-1e6_f32..1e6),
        ) {
            match Level::detect() {
                Level::Scalar => {}
                #[cfg(target_arch = "x86_64")]
                Level::Avx2(token) => {
                    prop_assert_eq!(all(token, &a, &b, &c, &d), all(Scalar, &a, &b, &c, &d));
                    prop_assert_eq!(all_floats(token, &e, &f), all_floats(Scalar, &e, &f));
                }
            }
        }
    }
}
