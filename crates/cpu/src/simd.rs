//! Run-time choice of instruction sets.
//!
//! A kernel's loop is written once, in plain Rust that the compiler vectorizes, and compiled for each level; the level is
//! detected once (`GRADUS_SIMD=avx2` or `baseline` lowers it, for tests and to compare machines). No fused multiply-add is
//! used there but inside the exponential and its kin, which are told by `FMA` whether the level has one: but for these, every level
//! gives the same bits. (Products and convolutions do use it.)

use std::sync::atomic::{AtomicU8, Ordering};

/// What the processor offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// What the target guarantees (SSE2 on x86-64, NEON on aarch64).
    Baseline = 1,
    /// x86-64-v3: AVX2 and FMA.
    Avx2 = 2,
    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    Avx512 = 3,
}

static LEVEL: AtomicU8 = AtomicU8::new(0);

/// The best level here, or what `GRADUS_SIMD` (`avx2`, `baseline`) lowers it to.
#[inline(always)]
pub fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        3 => Level::Avx512,
        2 => Level::Avx2,
        1 => Level::Baseline,
        _ => detect(),
    }
}

#[cold]
fn detect() -> Level {
    let mut level = Level::Baseline;
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx2") && has!("fma") && has!("bmi2") && has!("f16c") {
            level = Level::Avx2;
            if has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl") {
                level = Level::Avx512;
            }
        }
    }
    let asked = match std::env::var("GRADUS_SIMD").as_deref() {
        Ok("baseline") => Level::Baseline,
        Ok("avx2") => Level::Avx2,
        _ => Level::Avx512,
    };
    level = level.min(asked);
    LEVEL.store(level as u8, Ordering::Relaxed);
    level
}

/// Asks for these numbers to be brought near, without waiting for them.
#[inline(always)]
pub(crate) fn prefetch<T>(x: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in x.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that a program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = x;
}

/// Asks for the number at `p`, and those beside it, to be brought to the second cache. There may be none.
#[inline(always)]
pub(crate) fn prefetch_at<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that a program could see, and asks for no memory that is not there.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Asks for part `i` of `parts` of these numbers to be brought to the second cache: they are wanted in a while, to be read or written.
#[inline(always)]
pub(crate) fn prefetch_part<T>(x: *const [T], i: usize, parts: usize) {
    for at in (x.len() * i / parts..x.len() * (i + 1) / parts).step_by(64 / size_of::<T>()) {
        prefetch_at(x.cast::<T>().wrapping_add(at));
    }
}

/// Stands in a loop over blocks of lanes, so that the lanes of a block become registers. Without it the compiler may take the first lane of many
/// blocks together, then the second, with gathers and scatters, which is up to eight times slower. It is no instruction, but a loop with it
/// is not made into one of several turns at once.
#[inline(always)]
pub(crate) fn block_by_block() {
    #[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: it is empty.
    unsafe {
        std::arch::asm!("", options(nomem, nostack, preserves_flags))
    }
}

/// Compiles a function's body for each level, and calls the best. The body must be safe code; what it calls must be
/// `#[inline(always)]`, or it runs at the baseline. Within it, `FMA` says whether the level has a fused multiply-add.
macro_rules! vectorized {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($g:ident $(: $b:path)?),+>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        #[inline]
        $vis fn $name $(<$($g $(: $b)?),+>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<$($($g $(: $b)?,)+)? const FMA: bool>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
                fn avx512 $(<$($g $(: $b)?),+>)? ($($arg: $ty),*) $(-> $ret)? { body::<$($($g,)+)? true>($($arg),*) }
                #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
                fn avx2 $(<$($g $(: $b)?),+>)? ($($arg: $ty),*) $(-> $ret)? { body::<$($($g,)+)? true>($($arg),*) }
                match $crate::simd::level() {
                    // SAFETY: `level` has detected these features.
                    $crate::simd::Level::Avx512 => return unsafe { avx512 $(::<$($g),+>)? ($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Level::Avx2 => return unsafe { avx2 $(::<$($g),+>)? ($($arg),*) },
                    $crate::simd::Level::Baseline => {}
                }
            }
            // The target's own: NEON has the instruction, SSE2 has not.
            body::<$($($g,)+)? { cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    )*};
}
pub(crate) use vectorized;
