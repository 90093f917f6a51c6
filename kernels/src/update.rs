//! Optimizer steps in one pass over parameter, gradient and state: SGD with momentum, Adam and AdamW.
//!
//! The formulas, line by line, are those of `gradus_core::functional::update`, which is the CPU reference; halves compute in
//! `f32` and round once.

use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// The numbers of a step of SGD, as they are at this step.
#[derive(CubeType, CubeLaunch)]
pub struct SgdNumbers {
    /// What the step is multiplied with.
    pub rate: f32,
    /// How much of the buffer stays.
    pub momentum: f32,
    /// How much of the gradient the buffer takes.
    pub gain: f32,
    /// The L2 penalty.
    pub penalty: f32,
    /// −1 to climb, else 1.
    pub sign: f32,
}

/// p and, if `momentum`, its buffer b become what the step says. `b` is p's stand-in, untouched, without momentum.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn sgd_kernel<T: Numeric>(
    g: &Array<T>,
    p: &mut Array<T>,
    b: &mut Array<T>,
    shape: Sequence<usize>,
    at_g: Place,
    s: SgdNumbers,
    len: usize,
    #[comptime] momentum: bool,
    #[comptime] nesterov: bool,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let i = ABSOLUTE_POS;
        let old = f32::cast_from(p[i]);
        let mut d = f32::cast_from(g[usize::cast_from(locate(i, &shape, &at_g))]) * s.sign;
        if s.penalty != f32::new(0.0) {
            d += old * s.penalty;
        }
        if comptime!(momentum) {
            let buffer = f32::cast_from(b[i]) * s.momentum + d * s.gain;
            b[i] = T::cast_from(buffer);
            if comptime!(nesterov) {
                d += buffer * s.momentum;
            } else {
                d = buffer;
            }
        }
        p[i] = T::cast_from(old - d * s.rate);
    }
}

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

/// p, `exp_avg` m and `exp_avg_sq` v become what the step says.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn adam_kernel<T: Numeric>(
    g: &Array<T>,
    p: &mut Array<T>,
    m: &mut Array<T>,
    v: &mut Array<T>,
    shape: Sequence<usize>,
    at_g: Place,
    s: AdamNumbers,
    len: usize,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let i = ABSOLUTE_POS;
        let old = f32::cast_from(p[i]);
        let mut d = f32::cast_from(g[usize::cast_from(locate(i, &shape, &at_g))]) * s.sign;
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
