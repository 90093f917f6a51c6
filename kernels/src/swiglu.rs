//! The gate of Llama's feed-forward blocks (Shazeer, "GLU variants improve transformer", 2020), and its gradients.
//!
//! y = silu(x)·u with silu(x) = x·σ(x), the gate x and what it lets through, u. Backward, with s = σ(x): dx = g·u·s·(x·(1 − s) + 1),
//! du = g·x·s. A thread has one element; halves compute in `f32` and round once. CPU reference: the composites' definitions.

use crate::strided::{Place, locate};
use crate::unary::{FloatUnary, float_unary};
use cubecl::prelude::*;

#[cube]
fn number<T: Numeric>(x: &Array<T>, shape: &Sequence<usize>, at: &Place) -> f32 {
    f32::cast_from(x[usize::cast_from(locate(ABSOLUTE_POS, shape, at))])
}

/// y, dense.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn swiglu_kernel<T: Numeric>(
    gate: &Array<T>,
    up: &Array<T>,
    out: &mut Array<T>,
    shape: Sequence<usize>,
    at_gate: Place,
    at_up: Place,
    len: usize,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let x = number::<T>(gate, &shape, &at_gate);
        let y = float_unary::<f32>(x, FloatUnary::Silu) * number::<T>(up, &shape, &at_up);
        out[ABSOLUTE_POS] = T::cast_from(y);
    }
}

/// The gradients of gate and up, dense.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn swiglu_grad_kernel<T: Numeric>(
    g: &Array<T>,
    gate: &Array<T>,
    up: &Array<T>,
    of_gate: &mut Array<T>,
    of_up: &mut Array<T>,
    shape: Sequence<usize>,
    at_g: Place,
    at_gate: Place,
    at_up: Place,
    len: usize,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let (d, x) = (number::<T>(g, &shape, &at_g), number::<T>(gate, &shape, &at_gate));
        let s = float_unary::<f32>(x, FloatUnary::Sigmoid);
        let one = f32::new(1.0);
        of_gate[ABSOLUTE_POS] = T::cast_from(d * number::<T>(up, &shape, &at_up) * (s * (x * (one - s) + one)));
        of_up[ABSOLUTE_POS] = T::cast_from(d * (x * s));
    }
}
