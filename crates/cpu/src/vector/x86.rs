//! The registers of x86-64: AVX2 with FMA, and AVX-512.

use super::Vector;
use std::arch::x86_64::*;

/// 16 rows of 16: pairs, then pairs of pairs inside quarters, then the quarters.
#[inline(always)]
unsafe fn transpose_16(v: &mut [__m512; 16]) {
    // SAFETY: by the caller.
    unsafe {
        let mut a = *v;
        for i in 0..8 {
            a[2 * i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
            a[2 * i + 1] = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
        }
        let mut b = a; // b[4i + j]: column 4q + j of rows 4i to 4i + 3 in quarter q
        for i in 0..4 {
            let r: [__m512d; 4] = std::array::from_fn(|k| _mm512_castps_pd(a[4 * i + k]));
            b[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(r[0], r[2]));
            b[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(r[0], r[2]));
            b[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(r[1], r[3]));
            b[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(r[1], r[3]));
        }
        for j in 0..4 {
            let low = _mm512_shuffle_f32x4::<0x88>(b[j], b[4 + j]); // quarters 0 and 2 of rows 0 to 7
            let high = _mm512_shuffle_f32x4::<0xdd>(b[j], b[4 + j]); // quarters 1 and 3
            let low2 = _mm512_shuffle_f32x4::<0x88>(b[8 + j], b[12 + j]);
            let high2 = _mm512_shuffle_f32x4::<0xdd>(b[8 + j], b[12 + j]);
            v[j] = _mm512_shuffle_f32x4::<0x88>(low, low2);
            v[4 + j] = _mm512_shuffle_f32x4::<0x88>(high, high2);
            v[8 + j] = _mm512_shuffle_f32x4::<0xdd>(low, low2);
            v[12 + j] = _mm512_shuffle_f32x4::<0xdd>(high, high2);
        }
    }
}

/// Lane i becomes the sum of register i: two registers become one of half sums, four times over.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
unsafe fn sums_16(v: &[__m512; 16]) -> __m512 {
    // SAFETY: by the caller.
    unsafe {
        let mut pairs = [_mm512_setzero_pd(); 8];
        for i in 0..8 {
            let (a, b) = (v[2 * i], v[2 * i + 1]);
            pairs[i] = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
        }
        // Quarter q: numbers 4q to 4q + 3 of each of four registers, added up.
        let mut fours = [_mm512_setzero_ps(); 4];
        for i in 0..4 {
            let (a, b) = (pairs[2 * i], pairs[2 * i + 1]);
            let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
            fours[i] = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
        }
        let mut two = [_mm512_setzero_ps(); 2];
        for i in 0..2 {
            let (a, b) = (fours[2 * i], fours[2 * i + 1]);
            two[i] = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        }
        let (low, high) = (_mm512_shuffle_f32x4::<0x88>(two[0], two[1]), _mm512_shuffle_f32x4::<0xdd>(two[0], two[1]));
        _mm512_add_ps(low, high)
    }
}

/// 8 rows of 8: pairs, then pairs of pairs inside halves, then the halves.
#[inline(always)]
unsafe fn transpose_8(v: &mut [__m256; 16]) {
    // SAFETY: by the caller.
    unsafe {
        let mut a = *v;
        for i in 0..4 {
            a[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
            a[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
        }
        let mut b = a;
        for i in 0..2 {
            let r = &a[4 * i..4 * i + 4];
            b[4 * i] = _mm256_shuffle_ps::<0x44>(r[0], r[2]);
            b[4 * i + 1] = _mm256_shuffle_ps::<0xee>(r[0], r[2]);
            b[4 * i + 2] = _mm256_shuffle_ps::<0x44>(r[1], r[3]);
            b[4 * i + 3] = _mm256_shuffle_ps::<0xee>(r[1], r[3]);
        }
        for j in 0..4 {
            v[j] = _mm256_permute2f128_ps::<0x20>(b[j], b[4 + j]);
            v[4 + j] = _mm256_permute2f128_ps::<0x31>(b[j], b[4 + j]);
        }
    }
}

macro_rules! avx512 {
    ($v:ident, $t:ident, $mask:ident, $lanes:literal, $zero:ident, $load:ident, $splat:ident, $store:ident, $masked:ident, $maskz:ident, $add:ident, $sub:ident, $fma:ident, $max:ident, $sum:ident, {$($transpose:item)*}) => {
        impl Vector for $v {
            type T = $t;
            const LANES: usize = $lanes;
            const ROWS: usize = 8;
            const HEIGHT: usize = 12;
            const TAPS: usize = 6;
            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: by the caller, here and below.
                unsafe { $zero() }
            }
            #[inline(always)]
            unsafe fn load(p: *const $t) -> Self {
                // SAFETY: by the caller.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn splat(p: *const $t) -> Self {
                // SAFETY: by the caller.
                unsafe { $splat(*p) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $t) {
                // SAFETY: by the caller.
                unsafe { $store(p, self) }
            }
            #[inline(always)]
            unsafe fn store_lanes(self, p: *mut $t, from: usize, to: usize) {
                let mask = ((1u32 << to) - (1u32 << from)) as $mask;
                // SAFETY: lanes outside the mask are not touched.
                unsafe { $masked(p.wrapping_sub(from), mask, self) }
            }
            #[inline(always)]
            unsafe fn load_lanes(p: *const $t, from: usize, to: usize) -> Self {
                let mask = ((1u32 << to) - (1u32 << from)) as $mask;
                // SAFETY: lanes outside the mask are not touched.
                unsafe { $maskz(mask, p.wrapping_sub(from)) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: by the caller.
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                // SAFETY: by the caller.
                unsafe { $sub(self, other) }
            }
            #[inline(always)]
            unsafe fn fma(self, a: Self, b: Self) -> Self {
                // SAFETY: by the caller.
                unsafe { $fma(a, b, self) }
            }
            #[inline(always)]
            unsafe fn relu(self) -> Self {
                // SAFETY: by the caller. (Of two zeros, or if one is NaN, the second operand is taken.)
                unsafe { $max(Self::zero(), self) }
            }
            #[inline(always)]
            unsafe fn sum(self) -> $t {
                // SAFETY: by the caller.
                unsafe { $sum(self) }
            }
            $($transpose)*
        }
    };
}
avx512!(
    __m512,
    f32,
    __mmask16,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_storeu_ps,
    _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_fmadd_ps,
    _mm512_max_ps,
    _mm512_reduce_add_ps,
    {
        #[inline(always)]
        unsafe fn transpose(v: &mut [__m512; 16]) {
            // SAFETY: by the caller.
            unsafe { transpose_16(v) }
        }
        #[inline(always)]
        unsafe fn sums(v: &[__m512; 16], _count: usize, out: &mut [f32; 16]) {
            // SAFETY: by the caller; the array holds a whole register.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums_16(v)) }
        }
    }
);
avx512!(
    __m512d,
    f64,
    __mmask8,
    8,
    _mm512_setzero_pd,
    _mm512_loadu_pd,
    _mm512_set1_pd,
    _mm512_storeu_pd,
    _mm512_mask_storeu_pd,
    _mm512_maskz_loadu_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_fmadd_pd,
    _mm512_max_pd,
    _mm512_reduce_add_pd,
    {}
);

macro_rules! avx2 {
    ($v:ident, $t:ident, $lanes:literal, $zero:ident, $load:ident, $splat:ident, $store:ident, $add:ident, $sub:ident, $fma:ident, $max:ident, {$($transpose:item)*}) => {
        impl Vector for $v {
            type T = $t;
            const LANES: usize = $lanes;
            const ROWS: usize = 4;
            const HEIGHT: usize = 6;
            const TAPS: usize = 3;
            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: by the caller, here and below.
                unsafe { $zero() }
            }
            #[inline(always)]
            unsafe fn load(p: *const $t) -> Self {
                // SAFETY: by the caller.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn splat(p: *const $t) -> Self {
                // SAFETY: by the caller.
                unsafe { $splat(*p) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $t) {
                // SAFETY: by the caller.
                unsafe { $store(p, self) }
            }
            #[inline(always)]
            unsafe fn store_lanes(self, p: *mut $t, from: usize, to: usize) {
                let mut lanes = [0.0; $lanes];
                // SAFETY: by the caller; the array holds a whole vector.
                unsafe {
                    $store(lanes.as_mut_ptr(), self);
                    std::ptr::copy_nonoverlapping(lanes.as_ptr().add(from), p, to - from);
                }
            }
            #[inline(always)]
            unsafe fn load_lanes(p: *const $t, from: usize, to: usize) -> Self {
                let mut lanes = [0.0; $lanes];
                // SAFETY: by the caller; the array holds a whole vector.
                unsafe {
                    std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr().add(from), to - from);
                    $load(lanes.as_ptr())
                }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: by the caller.
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                // SAFETY: by the caller.
                unsafe { $sub(self, other) }
            }
            #[inline(always)]
            unsafe fn fma(self, a: Self, b: Self) -> Self {
                // SAFETY: by the caller.
                unsafe { $fma(a, b, self) }
            }
            #[inline(always)]
            unsafe fn relu(self) -> Self {
                // SAFETY: by the caller. (Of two zeros, or if one is NaN, the second operand is taken.)
                unsafe { $max(Self::zero(), self) }
            }
            #[inline(always)]
            unsafe fn sum(self) -> $t {
                let mut lanes = [0.0; $lanes];
                // SAFETY: by the caller; the array holds a whole vector.
                unsafe { $store(lanes.as_mut_ptr(), self) };
                let half = $lanes / 2;
                (0..half).fold(0.0, |s, i| s + (lanes[i] + lanes[i + half]))
            }
            $($transpose)*
        }
    };
}
avx2!(
    __m256,
    f32,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_fmadd_ps,
    _mm256_max_ps,
    {
        #[inline(always)]
        unsafe fn transpose(v: &mut [__m256; 16]) {
            // SAFETY: by the caller.
            unsafe { transpose_8(v) }
        }
    }
);
avx2!(
    __m256d,
    f64,
    4,
    _mm256_setzero_pd,
    _mm256_loadu_pd,
    _mm256_set1_pd,
    _mm256_storeu_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_fmadd_pd,
    _mm256_max_pd,
    {}
);
