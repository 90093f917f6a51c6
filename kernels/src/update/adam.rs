//! Adam and AdamW.

use super::{Part, begin, end, gradient};
use cubecl::prelude::*;

/// The numbers of a step of Adam, as they are at this step.
#[derive(CubeType, CubeLaunch)]
pub struct AdamNumbers {
    /// 1 − β₁.
    pub gain1: f32,
    /// β₂.
    pub beta2: f32,
    /// 1 − β₂.
    pub gain2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// η / (1 − β₁ᵗ).
    pub step: f32,
    /// 1 / √(1 − β₂ᵗ).
    pub rsqrt: f32,
    /// The L2 penalty (Adam).
    pub penalty: f32,
    /// 1 − η·λ (AdamW).
    pub decay: f32,
    /// −1 to climb, else 1.
    pub sign: f32,
}

/// Each p, `exp_avg` m and `exp_avg_sq` v become what the step says.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn adam_kernel<T: Numeric>(
    g: &Sequence<Array<T>>,
    p: &mut Sequence<Array<T>>,
    m: &mut Sequence<Array<T>>,
    v: &mut Sequence<Array<T>>,
    factor: &Sequence<Array<T>>,
    parts: &Sequence<Part>,
    numbers: &Sequence<AdamNumbers>,
    #[define(T)] _type: StorageType,
) {
    let count = comptime!(parts.len());
    #[unroll]
    for t in 0..count {
        let (part, s) = (parts.index(t), numbers.index(t));
        let (p, m, v) = (p.index_mut(t), m.index_mut(t), v.index_mut(t));
        for i in range_stepped(begin(part), end(part), CUBE_DIM as usize) {
            let old = f32::cast_from(p[i]);
            let mut d = gradient(g.index(t), i, part, factor) * s.sign;
            if s.penalty != f32::new(0.0) {
                d += old * s.penalty;
            }
            let before = f32::cast_from(m[i]);
            let first = before + (d - before) * s.gain1;
            let second = f32::cast_from(v[i]) * s.beta2 + (d * s.gain2) * d;
            m[i] = T::cast_from(first);
            v[i] = T::cast_from(second);
            p[i] = T::cast_from(old * s.decay - (first * s.step) / (second.sqrt() * s.rsqrt + s.eps));
        }
    }
}
