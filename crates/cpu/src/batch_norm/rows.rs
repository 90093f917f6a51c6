//! The loops of batch normalization over one image's part of a channel, or of several channels side by side (`_each`).

use super::Number;
use crate::lanes::{sums, sums_and_map};
use crate::math::Float;
use crate::simd::vectorized;

vectorized! {
    pub(super) fn sum<T: Float>(x: &[T]) -> T {
        sums([x], |[x]| [x])[0]
    }
    pub(super) fn squares<T: Float>(x: &[T], mean: T) -> T {
        sums([x], |[x]| [(x - mean) * (x - mean)])[0]
    }
    /// (Σ g, Σ g·(x − mean)).
    pub(crate) fn moments<T: Float>(g: &[T], x: &[T], mean: T) -> (T, T) {
        let [s, p] = sums([g, x], |[g, x]| [g, g * (x - mean)]);
        (s, p)
    }
    /// The same as [`moments`] and [`gradient`], of a gradient that flows where (x − mean)·scale + shift is positive.
    pub(super) fn moments_where<T: Float>(g: &[T], x: &[T], mean: T, scale: T, shift: T) -> (T, T) {
        let [s, p] = sums([g, x], |[g, x]| {
            let d = x - mean;
            let g = if d * scale + shift <= T::ZERO { T::ZERO } else { g };
            [g, g * d]
        });
        (s, p)
    }
    pub(super) fn gradient_where<T: Float>(g: &[T], x: &[T], numbers: [T; 4], shift: T, dx: &mut [T]) {
        let [mean, scale, g_mean, slope] = numbers;
        for ((d, &g), &x) in dx.iter_mut().zip(g).zip(x) {
            let c = x - mean;
            let g = if c * scale + shift <= T::ZERO { T::ZERO } else { g };
            *d = (g - g_mean - c * slope) * scale;
        }
    }
    /// The same as [`moments`] of g where y is positive, which is written to `out`.
    pub(crate) fn flowing_moments<T: Float>(g: &[T], y: &[T], x: &[T], mean: T, out: &mut [T]) -> (T, T) {
        let [s, p] = sums_and_map([g, y, x], out, |[g, y, x]| {
            let g = if y <= T::ZERO { T::ZERO } else { g };
            ([g, g * (x - mean)], g)
        });
        (s, p)
    }
    /// y = max((x − mean)·scale + shift + residual, 0); an empty residual is none.
    pub(crate) fn normalize_relu<T: Float>(x: &[T], residual: &[T], numbers: [T; 3], y: &mut [T]) {
        let [mean, scale, shift] = numbers;
        if residual.is_empty() {
            for (y, &x) in y.iter_mut().zip(x) {
                let sum = (x - mean) * scale + shift;
                *y = if sum < T::ZERO { T::ZERO } else { sum };
            }
        }
        for ((y, &x), &r) in y.iter_mut().zip(x).zip(residual) {
            let sum = (x - mean) * scale + shift + r;
            *y = if sum < T::ZERO { T::ZERO } else { sum };
        }
    }
    pub(super) fn follow<T: Float>(old: &[T], new: &[T], keep: T, gain: T, out: &mut [T]) {
        for ((o, &old), &new) in out.iter_mut().zip(old).zip(new) { *o = (old * keep + new * gain).flushed(); }
    }
    pub(crate) fn normalize<T: Float>(x: &[T], mean: T, scale: T, shift: T, y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = (x - mean) * scale + shift; }
    }
    /// The same of many channels side by side, each with numbers of its own.
    pub(super) fn normalize_each<T: Float>(x: &[T], mean: &[T], scale: &[T], shift: &[T], y: &mut [T]) {
        for ((((y, &x), &m), &s), &b) in y.iter_mut().zip(x).zip(mean).zip(scale).zip(shift) { *y = (x - m) * s + b; }
    }
    pub(crate) fn sum_each<T: Number>(x: &[T], sum: &mut [f64]) {
        for (s, &x) in sum.iter_mut().zip(x) { *s += x.to_f64(); }
    }
    pub(super) fn squares_each<T: Number>(x: &[T], mean: &[T], sum: &mut [f64]) {
        for ((s, &x), &m) in sum.iter_mut().zip(x).zip(mean) { let d = (x - m).to_f64(); *s += d * d; }
    }
    pub(super) fn along_each<T: Number>(g: &[T], x: &[T], mean: &[T], sum: &mut [f64]) {
        for (((s, &g), &x), &m) in sum.iter_mut().zip(g).zip(x).zip(mean) { *s += (g * (x - m)).to_f64(); }
    }
    pub(super) fn gradient_each<T: Float>(g: &[T], x: &[T], mean: &[T], scale: &[T], g_mean: &[T], slope: &[T], dx: &mut [T]) {
        for ((((((d, &g), &x), &m), &s), &gm), &k) in dx.iter_mut().zip(g).zip(x).zip(mean).zip(scale).zip(g_mean).zip(slope) {
            *d = (g - gm - (x - m) * k) * s;
        }
    }
    pub(super) fn gradient<T: Float>(g: &[T], x: &[T], mean: T, scale: T, g_mean: T, slope: T, dx: &mut [T]) {
        for ((d, &g), &x) in dx.iter_mut().zip(g).zip(x) { *d = (g - g_mean - (x - mean) * slope) * scale; }
    }
}
