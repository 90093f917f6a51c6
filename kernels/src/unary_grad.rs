//! Gradients of elementwise functions in one pass: `out[i] = g[i] · f'(x[i])`, or of the output y where that is shorter.
//!
//! CPU reference: the gradient of the function's row in the table of unary ops.

use crate::elementary as e;
use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// A function whose gradient has a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the function that its name says; of y: Relu, Sigmoid, Tanh, Exp, Sqrt; else of x
pub enum UnaryGrad {
    Relu,
    Sigmoid,
    Tanh,
    Exp,
    Sqrt,
    Log,
    Square,
    Silu,
    Gelu,
    GeluTanh,
    Abs,
    Sin,
    Cos,
    Softplus,
}

/// `out[pos] = g[view(pos)] · f'(v[view(pos)])`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn unary_grad_kernel<T: Numeric>(
    g: &Array<T>,
    v: &Array<T>,
    out: &mut Array<T>,
    shape: Sequence<usize>,
    at_g: Place,
    at_v: Place,
    len: usize,
    #[comptime] op: UnaryGrad,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let dy = f32::cast_from(g[usize::cast_from(locate(ABSOLUTE_POS, &shape, &at_g))]);
        let x = f32::cast_from(v[usize::cast_from(locate(ABSOLUTE_POS, &shape, &at_v))]);
        out[ABSOLUTE_POS] = T::cast_from(gradient(dy, x, op));
    }
}

/// `g · f'(x)`, or of the output in place of x.
#[cube]
pub fn gradient(g: f32, x: f32, #[comptime] op: UnaryGrad) -> f32 {
    let one = f32::new(1.0);
    let zero = f32::new(0.0);
    match comptime!(op) {
        UnaryGrad::Relu => select(x <= zero, zero, g),
        UnaryGrad::Sigmoid => g * (x * (one - x)),
        UnaryGrad::Tanh => g * (one - x * x),
        UnaryGrad::Exp => g * x,
        UnaryGrad::Sqrt => g / (x * f32::new(2.0)),
        UnaryGrad::Log => g / x,
        UnaryGrad::Square => g * x * f32::new(2.0),
        UnaryGrad::Abs => g * select(x > zero, one, select(x < zero, -one, zero)),
        UnaryGrad::Sin => g * x.cos(),
        UnaryGrad::Cos => -(g * x.sin()),
        UnaryGrad::Softplus => g * sigmoid(x),
        UnaryGrad::Silu => {
            let s = sigmoid(x);
            g * (s * (x * (one - s) + one))
        }
        UnaryGrad::Gelu => {
            let cdf = f32::new(0.5) * e::erfc::<f32>(-x * f32::new(core::f32::consts::FRAC_1_SQRT_2));
            g * (cdf + x * (x * x * f32::new(-0.5)).exp() * f32::new(0.398_942_3))
        }
        UnaryGrad::GeluTanh => {
            let x2 = x * x;
            let t = e::tanh::<f32>(x * (x2 * f32::new(0.044_715) + one) * f32::new(0.797_884_6));
            g * ((t + one) * f32::new(0.5)
                + x * (one - t * t) * (x2 * f32::new(0.134_145) + one) * f32::new(0.398_942_3))
        }
    }
}

#[cube]
fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    let one = f32::new(1.0);
    select(x < f32::new(0.0), e, one) / (one + e)
}
