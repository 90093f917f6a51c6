//! Elementwise functions of one operand: `out[i] = f(x[i])`.
//!
//! Halves compute in `f32`. CPU reference: the formula of each variant, in `f64`. `!(x == x)` stands for "x is NaN",
//! because `x != x` is an ordered comparison on some compilers, false for NaN.

use crate::elementary as e;
use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// A function of a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the function that its name says
pub enum FloatUnary {
    Neg,
    Abs,
    Sign,
    Floor,
    Ceil,
    Round,
    Trunc,
    Frac,
    Square,
    Sqrt,
    Rsqrt,
    Reciprocal,
    Exp,
    Exp2,
    Expm1,
    Log,
    Log2,
    Log10,
    Log1p,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    Erfc,
    Erfinv,
    Sigmoid,
    LogSigmoid,
    Softplus,
    Relu,
    Relu6,
    Gelu,
    GeluTanh,
    Silu,
    Mish,
    Softsign,
    HardSigmoid,
    HardSwish,
    IsNan,
    IsInf,
    IsFinite,
    LogicalNot,
}

/// `out[pos] = f(x[view(pos)])`, computed in `F`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn unary_kernel<In: Numeric, F: Float, Out: Numeric>(
    x: &Array<In>,
    out: &mut Array<Out>,
    shape: Sequence<usize>,
    place: Place,
    len: usize,
    #[comptime] op: FloatUnary,
    #[define(In, F, Out)] _types: [StorageType; 3],
) {
    if ABSOLUTE_POS < len {
        let v = F::cast_from(x[usize::cast_from(locate(ABSOLUTE_POS, &shape, &place))]);
        out[ABSOLUTE_POS] = Out::cast_from(float_unary::<F>(v, op));
    }
}

/// `f(x)`.
#[cube]
pub fn float_unary<F: Float>(x: F, #[comptime] op: FloatUnary) -> F {
    let zero = F::new(0.0);
    let one = F::new(1.0);
    match comptime!(op) {
        FloatUnary::Neg => -x,
        FloatUnary::Abs => x.abs(),
        FloatUnary::Sign => select(x > zero, one, select(x < zero, -one, zero)), // 0 for NaN, too
        FloatUnary::Floor => x.floor(),
        FloatUnary::Ceil => x.ceil(),
        FloatUnary::Round => x.round(),
        FloatUnary::Trunc => x.trunc(),
        FloatUnary::Frac => x - x.trunc(),
        FloatUnary::Square => x * x,
        FloatUnary::Sqrt => x.sqrt(),
        FloatUnary::Rsqrt => one / x.sqrt(),
        FloatUnary::Reciprocal => one / x,
        FloatUnary::Exp => x.exp(),
        FloatUnary::Exp2 => (x * F::new(core::f32::consts::LN_2)).exp(),
        FloatUnary::Expm1 => e::expm1::<F>(x),
        FloatUnary::Log => e::ln::<F>(x),
        FloatUnary::Log2 => e::ln::<F>(x) * F::new(core::f32::consts::LOG2_E),
        FloatUnary::Log10 => e::ln::<F>(x) * F::new(core::f32::consts::LOG10_E),
        FloatUnary::Log1p => e::log1p::<F>(x),
        FloatUnary::Sin => x.sin(),
        FloatUnary::Cos => x.cos(),
        FloatUnary::Tan => x.sin() / x.cos(),
        FloatUnary::Asin => e::asin::<F>(x),
        FloatUnary::Acos => e::acos::<F>(x),
        FloatUnary::Atan => e::atan::<F>(x),
        FloatUnary::Sinh => e::sinh::<F>(x),
        FloatUnary::Cosh => e::cosh::<F>(x),
        FloatUnary::Tanh => e::tanh::<F>(x),
        FloatUnary::Asinh => e::asinh::<F>(x),
        FloatUnary::Acosh => e::acosh::<F>(x),
        FloatUnary::Atanh => e::atanh::<F>(x),
        FloatUnary::Erf => e::erf::<F>(x),
        FloatUnary::Erfc => e::erfc::<F>(x),
        FloatUnary::Erfinv => e::erfinv::<F>(x),
        FloatUnary::Sigmoid => sigmoid::<F>(x),
        // min(x, 0) − ln(1 + e^−|x|): neither term overflows.
        FloatUnary::LogSigmoid => select(x > zero, zero, x) - e::log1p::<F>((-x.abs()).exp()),
        FloatUnary::Softplus => softplus::<F>(x),
        // Written so that NaN stays NaN.
        FloatUnary::Relu => select(x <= zero, zero, x),
        FloatUnary::Relu6 => select(x <= zero, zero, select(x >= F::new(6.0), F::new(6.0), x)),
        FloatUnary::Gelu => F::new(0.5) * x * e::erfc::<F>(-x * F::new(core::f32::consts::FRAC_1_SQRT_2)),
        FloatUnary::GeluTanh => {
            F::new(0.5) * x * (one + e::tanh::<F>(F::new(0.797_884_6) * (x + F::new(0.044_715) * x * x * x)))
        }
        FloatUnary::Silu => x * sigmoid::<F>(x),
        FloatUnary::Mish => x * e::tanh::<F>(softplus::<F>(x)),
        FloatUnary::Softsign => x / (one + x.abs()),
        FloatUnary::HardSigmoid => hard_sigmoid::<F>(x),
        FloatUnary::HardSwish => x * hard_sigmoid::<F>(x),
        FloatUnary::IsNan => F::cast_from(!(x == x)),
        FloatUnary::IsInf => F::cast_from(x.abs() > F::max_value()),
        FloatUnary::IsFinite => F::cast_from(x.abs() <= F::max_value()),
        FloatUnary::LogicalNot => F::cast_from(x == zero),
    }
}

/// `1 / (1 + e^−x)`, with the exponential of a negative number, which cannot overflow.
#[cube]
fn sigmoid<F: Float>(x: F) -> F {
    let e = (-x.abs()).exp();
    let one = F::new(1.0);
    select(x < F::new(0.0), e, one) / (one + e)
}

/// `ln(1 + eˣ) = max(x, 0) + ln(1 + e^−|x|)`.
#[cube]
fn softplus<F: Float>(x: F) -> F {
    select(x < F::new(0.0), F::new(0.0), x) + e::log1p::<F>((-x.abs()).exp())
}

/// `min(max(x/6 + ½, 0), 1)`.
#[cube]
fn hard_sigmoid<F: Float>(x: F) -> F {
    let three = F::new(3.0);
    let line = x / F::new(6.0) + F::new(0.5);
    select(x <= -three, F::new(0.0), select(x >= three, F::new(1.0), line))
}

/// A function of an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the function that its name says
pub enum IntUnary {
    Neg,
    Abs,
    Sign,
    Square,
    Relu,
    Relu6,
    BitNot,
    LogicalNot,
    /// The integer itself: rounding functions, which leave integers alone.
    Same,
    /// 0, whatever the integer: it is never NaN, never infinite.
    Zero,
    /// 1, whatever the integer: it is always finite.
    One,
}

/// `out[pos] = f(x[view(pos)])` on integers; products wrap.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn int_unary_kernel<I: Int, Out: Numeric>(
    x: &Array<I>,
    out: &mut Array<Out>,
    shape: Sequence<usize>,
    place: Place,
    len: usize,
    #[comptime] op: IntUnary,
    #[define(I, Out)] _types: [StorageType; 2],
) {
    if ABSOLUTE_POS < len {
        let v = x[usize::cast_from(locate(ABSOLUTE_POS, &shape, &place))];
        let zero = I::new(0);
        let one = I::new(1);
        out[ABSOLUTE_POS] = match comptime!(op) {
            // 0 − x wraps for unsigned types, as Rust's `wrapping_neg` does.
            IntUnary::Neg => Out::cast_from(zero - v),
            IntUnary::Abs => Out::cast_from(select(v < zero, zero - v, v)),
            IntUnary::Sign => Out::cast_from(select(v > zero, one, select(v < zero, zero - one, zero))),
            IntUnary::Square => Out::cast_from(v * v),
            IntUnary::Relu => Out::cast_from(select(v < zero, zero, v)),
            IntUnary::Relu6 => Out::cast_from(select(v < zero, zero, select(v > I::new(6), I::new(6), v))),
            IntUnary::BitNot => Out::cast_from(!v),
            IntUnary::LogicalNot => Out::cast_from(v == zero),
            IntUnary::Same => Out::cast_from(v),
            IntUnary::Zero => Out::from_int(0),
            IntUnary::One => Out::from_int(1),
        };
    }
}
