//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! Element `i` of a draw is word `i % 4` of the block with counter `[i / 4, step, stream_lo, stream_hi]` under the key
//! `[seed_lo, seed_hi]`. A thread computes one block. From a word `w`:
//!
//! | draw | value |
//! |---|---|
//! | bits | `w` |
//! | uniform | `(w >> 8) · 2⁻²⁴` |
//! | below n | `(w · n) >> 32` |
//! | Bernoulli | `(w >> 8) < threshold`, the threshold being ⌈p · 2²⁴⌉ |
//! | normal | Box–Muller of the words `2j, 2j + 1`: `r = √(−2 ln u₀)`, `u₀ = ((w₀ >> 8) + 1) · 2⁻²⁴`, then `r cos 2πu₁`, `r sin 2πu₁` |
//!
//! All but the normal numbers are integer arithmetic, so they have the CPU's bits. CPU reference: `gradus_core::rng`.

use crate::elementary::ln;
use cubecl::prelude::*;

/// What is made of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Draw {
    /// The words themselves.
    Bits,
    /// Uniform on [0, 1).
    Uniform,
    /// Normal, mean 0 and variance 1.
    Normal,
    /// 1 with the probability given by the threshold.
    Bernoulli,
    /// Integers from `low` on, fewer than `span` of them (0 stands for 2³²).
    Integers,
}

/// The four words of a block.
#[cube]
pub fn philox(block: u32, step: u32, stream_lo: u32, stream_hi: u32, key_lo: u32, key_hi: u32) -> Array<u32> {
    let mut c0 = block;
    let mut c1 = step;
    let mut c2 = stream_lo;
    let mut c3 = stream_hi;
    let mut k0 = key_lo;
    let mut k1 = key_hi;
    #[unroll]
    for _ in 0..10 {
        let hi0 = c0.mul_hi(0xD2511F53u32);
        let lo0 = c0 * 0xD2511F53u32;
        let hi1 = c2.mul_hi(0xCD9E8D57u32);
        let lo1 = c2 * 0xCD9E8D57u32;
        c0 = hi1 ^ c1 ^ k0;
        c1 = lo1;
        c2 = hi0 ^ c3 ^ k1;
        c3 = lo0;
        k0 += 0x9E3779B9u32;
        k1 += 0xBB67AE85u32;
    }
    let mut words = Array::<u32>::new(4usize);
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
    words
}

/// Draws `len` numbers. `span`, `low` and `threshold` belong to the draws that name them.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn random_kernel<Out: Numeric>(
    out: &mut Array<Out>,
    key_lo: u32,
    key_hi: u32,
    step: u32,
    stream_lo: u32,
    stream_hi: u32,
    span: u32,
    low: InputScalar,
    threshold: u32,
    len: usize,
    #[comptime] draw: Draw,
    #[define(Out)] _type: StorageType,
) {
    let at = ABSOLUTE_POS * 4;
    if at < len {
        let words = philox(u32::cast_from(ABSOLUTE_POS), step, stream_lo, stream_hi, key_lo, key_hi);
        #[unroll]
        for i in 0..4usize {
            if at + i < len {
                let w = words[i];
                out[at + i] = match comptime!(draw) {
                    Draw::Bits => Out::cast_from(w),
                    Draw::Uniform => Out::cast_from(f32::cast_from(w >> 8u32) * f32::new(1.0 / 16_777_216.0)),
                    Draw::Bernoulli => Out::cast_from((w >> 8u32) < threshold),
                    Draw::Integers => low.get::<Out>() + Out::cast_from(select(span == 0u32, w, w.mul_hi(span))),
                    Draw::Normal => {
                        let u0 =
                            f32::cast_from((words[comptime!(i - i % 2)] >> 8u32) + 1u32) * f32::new(1.0 / 16_777_216.0);
                        let u1 = f32::cast_from(words[comptime!(i - i % 2 + 1)] >> 8u32) * f32::new(1.0 / 16_777_216.0);
                        let r = (f32::new(-2.0) * ln::<f32>(u0)).sqrt();
                        let angle = quarter_turns(u1, comptime!(i % 2 == 0));
                        Out::cast_from(r * angle)
                    }
                };
            }
        }
    }
}

/// `cos 2πu` or `sin 2πu` for u in [0, 1): the turn is first reduced, exactly, to an eighth, where the series are short.
#[cube]
fn quarter_turns(u: f32, #[comptime] cosine: bool) -> f32 {
    let quarter = (u * f32::new(4.0) + f32::new(0.5)).floor();
    let t = (u - quarter * f32::new(0.25)) * f32::new(core::f32::consts::TAU); // |t| ≤ π/4
    let z = t * t;
    let mut s = f32::new(2.7557319e-6);
    s = s * z - f32::new(1.984127e-4);
    s = s * z + f32::new(8.333334e-3);
    s = s * z - f32::new(0.16666667);
    let sin = t + t * z * s;
    let mut c = f32::new(2.4801587e-5);
    c = c * z - f32::new(1.3888889e-3);
    c = c * z + f32::new(4.1666668e-2);
    c = c * z - f32::new(0.5);
    let cos = f32::new(1.0) + z * c;
    let q = u32::cast_from(quarter) % 4u32;
    if comptime!(cosine) {
        select(q == 0u32, cos, select(q == 1u32, -sin, select(q == 2u32, -cos, sin)))
    } else {
        select(q == 0u32, sin, select(q == 1u32, cos, select(q == 2u32, -sin, -cos)))
    }
}
