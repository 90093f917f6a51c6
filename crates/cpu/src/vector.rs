//! Vector registers, as kernels use them that are written by hand (convolutions, small products): one trait, implemented for each instruction set.
//!
//! The kernels are generic over [`Vector`] and always inlined into a function that has the features enabled, so that each
//! operation becomes one instruction.

use crate::math::Float;
use crate::simd::{Level, level};

/// A register of [`LANES`](Vector::LANES) numbers.
///
/// # Safety
/// All methods need the instruction set that the implementation stands for, and pointers to as many numbers as they name.
pub(crate) trait Vector: Copy {
    /// The numbers.
    type T: Float;
    /// How many.
    const LANES: usize;
    /// How many rows of a product a kernel keeps in registers at once (of up to three vectors each).
    const ROWS: usize;
    /// How many rows of a block of two registers' columns fill the register file, beside those two and a number in every lane.
    const HEIGHT: usize;
    /// How many taps the weight's gradient keeps in registers at once (for each of up to four rows).
    const TAPS: usize;
    /// Zeros.
    unsafe fn zero() -> Self;
    /// The numbers from `p` on.
    unsafe fn load(p: *const Self::T) -> Self;
    /// One number in every lane.
    unsafe fn splat(p: *const Self::T) -> Self;
    /// Writes all lanes from `p` on.
    unsafe fn store(self, p: *mut Self::T);
    /// Writes lanes `from` to `to` (not included) to `p` on.
    unsafe fn store_lanes(self, p: *mut Self::T, from: usize, to: usize);
    /// Lanes `from` to `to` (not included), read from `p` on; zeros in the others.
    unsafe fn load_lanes(p: *const Self::T, from: usize, to: usize) -> Self;
    /// The sums lane by lane.
    unsafe fn add(self, other: Self) -> Self;
    /// The differences lane by lane.
    unsafe fn sub(self, other: Self) -> Self;
    /// self + a·b.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    /// Zero in place of each number below it; NaN and −0 stay.
    unsafe fn relu(self) -> Self;
    /// Lane j of register i becomes lane i of register j, for the first [`LANES`](Vector::LANES) registers.
    #[inline(always)]
    unsafe fn transpose(v: &mut [Self; 16]) {
        let mut cells = [[Self::T::ZERO; 16]; 16];
        // SAFETY: a row has room for every vector's lanes; the instruction set by the caller.
        unsafe {
            for (cells, v) in cells.iter_mut().zip(&v[..Self::LANES]) {
                v.store(cells.as_mut_ptr());
            }
            for (j, v) in v[..Self::LANES].iter_mut().enumerate() {
                let column: [Self::T; 16] = std::array::from_fn(|i| cells[i][j]);
                *v = Self::load(column.as_ptr());
            }
        }
    }
    /// The sum of the lanes, in a fixed order.
    unsafe fn sum(self) -> Self::T;
    /// The sum of the lanes of each of the first `count` registers, in a fixed order.
    #[inline(always)]
    unsafe fn sums(v: &[Self; 16], count: usize, out: &mut [Self::T; 16]) {
        for (out, v) in out.iter_mut().zip(v).take(count) {
            // SAFETY: by the caller.
            *out = unsafe { v.sum() };
        }
    }
}

/// A float with a register of each instruction set.
pub(crate) trait Real: Float {
    /// 512 bits.
    type Avx512: Vector<T = Self>;
    /// 256 bits.
    type Avx2: Vector<T = Self>;
    /// What the target guarantees.
    type Baseline: Vector<T = Self>;
}

impl Real for f32 {
    #[cfg(target_arch = "x86_64")]
    type Avx512 = std::arch::x86_64::__m512;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = std::arch::x86_64::__m256;
    #[cfg(not(target_arch = "x86_64"))]
    type Avx512 = Plain<f32, 4>;
    #[cfg(not(target_arch = "x86_64"))]
    type Avx2 = Plain<f32, 4>;
    type Baseline = Plain<f32, 4>;
}
impl Real for f64 {
    #[cfg(target_arch = "x86_64")]
    type Avx512 = std::arch::x86_64::__m512d;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = std::arch::x86_64::__m256d;
    #[cfg(not(target_arch = "x86_64"))]
    type Avx512 = Plain<f64, 2>;
    #[cfg(not(target_arch = "x86_64"))]
    type Avx2 = Plain<f64, 2>;
    type Baseline = Plain<f64, 2>;
}

/// How many lanes the vectors of this processor have.
pub(crate) fn lanes<T: Real>() -> usize {
    match level() {
        Level::Avx512 => T::Avx512::LANES,
        Level::Avx2 => T::Avx2::LANES,
        Level::Baseline => T::Baseline::LANES,
    }
}

/// Their [`HEIGHT`](Vector::HEIGHT).
pub(crate) fn height<T: Real>() -> usize {
    match level() {
        Level::Avx512 => T::Avx512::HEIGHT,
        Level::Avx2 => T::Avx2::HEIGHT,
        Level::Baseline => T::Baseline::HEIGHT,
    }
}

/// Calls a generic kernel with the vector of this processor's level, compiled for it.
macro_rules! by_level {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident<T>($($arg:ident: $ty:ty),*) => $body:ident) => {
        $(#[$meta])*
        $vis unsafe fn $name<T: Real>($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
                unsafe fn avx512<T: Real>($($arg: $ty),*) {
                    // SAFETY: by the caller.
                    unsafe { $body::<T::Avx512>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
                unsafe fn avx2<T: Real>($($arg: $ty),*) {
                    // SAFETY: by the caller.
                    unsafe { $body::<T::Avx2>($($arg),*) }
                }
                match $crate::simd::level() {
                    // SAFETY: `level` has detected these features; the rest by the caller.
                    $crate::simd::Level::Avx512 => return unsafe { avx512::<T>($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Level::Avx2 => return unsafe { avx2::<T>($($arg),*) },
                    $crate::simd::Level::Baseline => {}
                }
            }
            // SAFETY: by the caller.
            unsafe { $body::<T::Baseline>($($arg),*) }
        }
    };
}
pub(crate) use by_level;

/// An array that the compiler keeps in a register of the target's guaranteed instructions.
#[derive(Clone, Copy)]
pub(crate) struct Plain<T, const N: usize>([T; N]);

impl<T: Float, const N: usize> Vector for Plain<T, N> {
    type T = T;
    const LANES: usize = N;
    const ROWS: usize = 4;
    const HEIGHT: usize = 6;
    const TAPS: usize = 3;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Plain([T::ZERO; N])
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> Self {
        // SAFETY: N numbers, by the caller; an array has its element's alignment.
        Plain(unsafe { p.cast::<[T; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn splat(p: *const T) -> Self {
        // SAFETY: by the caller.
        Plain([unsafe { *p }; N])
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut T) {
        // SAFETY: by the caller.
        unsafe { p.cast::<[T; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_lanes(self, p: *mut T, from: usize, to: usize) {
        for (i, &x) in self.0.iter().enumerate().take(to).skip(from) {
            // SAFETY: by the caller.
            unsafe { *p.add(i - from) = x }
        }
    }
    #[inline(always)]
    unsafe fn load_lanes(p: *const T, from: usize, to: usize) -> Self {
        let mut lanes = [T::ZERO; N];
        for (i, x) in lanes.iter_mut().enumerate().take(to).skip(from) {
            // SAFETY: by the caller.
            *x = unsafe { *p.add(i - from) };
        }
        Plain(lanes)
    }
    #[inline(always)]
    unsafe fn add(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(s, &x)| *s = *s + x);
        self
    }
    #[inline(always)]
    unsafe fn sub(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(s, &x)| *s = *s - x);
        self
    }
    #[inline(always)]
    unsafe fn fma(mut self, a: Self, b: Self) -> Self {
        for ((s, &a), &b) in self.0.iter_mut().zip(&a.0).zip(&b.0) {
            *s = *s + a * b;
        }
        self
    }
    #[inline(always)]
    unsafe fn relu(mut self) -> Self {
        self.0.iter_mut().for_each(|x| *x = if *x < T::ZERO { T::ZERO } else { *x });
        self
    }
    #[inline(always)]
    unsafe fn sum(self) -> T {
        self.0.into_iter().fold(T::ZERO, |s, x| s + x)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;
