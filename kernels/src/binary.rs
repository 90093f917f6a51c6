//! Elementwise functions of two operands: `out[i] = f(a[i], b[i])`. Either may be one number for all elements.
//!
//! Halves compute in `f32`. CPU reference: the formula of each variant. Integer sums and products wrap; a division of an
//! integer by zero gives 0.

use crate::elementary as e;
use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// A function of two floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the function that its name says
pub enum FloatBinary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Atan2,
    Hypot,
    Maximum,
    Minimum,
    LogAddExp,
    Copysign,
    Remainder,
    Fmod,
    FloorDivide,
    Xlogy,
}

/// Which operand, if any, is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalars {
    /// Both are tensors.
    Neither,
    /// The left one.
    Left,
    /// The right one.
    Right,
}

/// `out[pos] = f(a[view_a(pos)], b[view_b(pos)])`, computed in `F`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn binary_kernel<In: Numeric, F: Float, Out: Numeric>(
    a: &Array<In>,
    b: &Array<In>,
    out: &mut Array<Out>,
    shape: Sequence<usize>,
    at_a: Place,
    at_b: Place,
    scalar: InputScalar,
    len: usize,
    #[comptime] op: FloatBinary,
    #[comptime] scalars: Scalars,
    #[define(In, F, Out)] _types: [StorageType; 3],
) {
    if ABSOLUTE_POS < len {
        let x = match comptime!(scalars) {
            Scalars::Left => scalar.get::<F>(),
            _ => F::cast_from(a[usize::cast_from(locate(ABSOLUTE_POS, &shape, &at_a))]),
        };
        let y = match comptime!(scalars) {
            Scalars::Right => scalar.get::<F>(),
            _ => F::cast_from(b[usize::cast_from(locate(ABSOLUTE_POS, &shape, &at_b))]),
        };
        out[ABSOLUTE_POS] = Out::cast_from(float_binary::<F>(x, y, op));
    }
}

/// `f(a, b)`.
#[cube]
pub fn float_binary<F: Float>(a: F, b: F, #[comptime] op: FloatBinary) -> F {
    let zero = F::new(0.0);
    match comptime!(op) {
        FloatBinary::Add => a + b,
        FloatBinary::Sub => a - b,
        FloatBinary::Mul => a * b,
        FloatBinary::Div => a / b,
        FloatBinary::Pow => e::pow::<F>(a, b),
        FloatBinary::Atan2 => e::atan2::<F>(a, b),
        FloatBinary::Hypot => hypot::<F>(a, b),
        FloatBinary::Maximum => select(b > a || !(b == b), b, a),
        FloatBinary::Minimum => select(b < a || !(b == b), b, a),
        FloatBinary::LogAddExp => log_add_exp::<F>(a, b),
        // 1/b tells −0 from 0.
        FloatBinary::Copysign => select(b < zero || (b == zero && F::new(1.0) / b < zero), -a.abs(), a.abs()),
        FloatBinary::Remainder => e::remainder::<F>(a, b),
        FloatBinary::Fmod => e::fmod::<F>(a, b),
        FloatBinary::FloorDivide => floor_divide::<F>(a, b),
        FloatBinary::Xlogy => select(a == zero && b == b, zero, a * e::ln::<F>(b)),
    }
}

/// `√(a² + b²)`, scaled by the larger so that no square overflows.
#[cube]
fn hypot<F: Float>(a: F, b: F) -> F {
    let x = a.abs();
    let y = b.abs();
    let large = select(x > y, x, y);
    let small = select(x > y, y, x);
    let r = small / large;
    let scaled = large * (F::new(1.0) + r * r).sqrt();
    let infinite = large > F::max_value();
    select(large == F::new(0.0) || infinite, large, select(a == a && b == b, scaled, a + b))
}

/// `ln(eᵃ + eᵇ) = max + ln(1 + e^−|a−b|)`.
#[cube]
fn log_add_exp<F: Float>(a: F, b: F) -> F {
    let large = select(a > b, a, b);
    let d = (a - b).abs();
    // Two equal infinities have no difference.
    select(a == b && a.abs() > F::max_value(), a, select(d == d, large, a + b) + e::log1p::<F>((-d).exp()))
}

/// `⌊a/b⌋`, from the exact remainder, so that a quotient rounded up to an integer does not count.
#[cube]
fn floor_divide<F: Float>(a: F, b: F) -> F {
    let q = ((a - e::remainder::<F>(a, b)) / b).round();
    select(b == F::new(0.0), a / b, q)
}

/// A function of two integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the function that its name says
pub enum IntBinary {
    Add,
    Sub,
    Mul,
    Pow,
    Maximum,
    Minimum,
    Remainder,
    Fmod,
    FloorDivide,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
}

/// `out[pos] = f(a[view_a(pos)], b[view_b(pos)])` on integers of `width` bits.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn int_binary_kernel<I: Int>(
    a: &Array<I>,
    b: &Array<I>,
    out: &mut Array<I>,
    shape: Sequence<usize>,
    at_a: Place,
    at_b: Place,
    scalar: InputScalar,
    len: usize,
    #[comptime] op: IntBinary,
    #[comptime] scalars: Scalars,
    #[comptime] width: i64,
    #[define(I)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let x = match comptime!(scalars) {
            Scalars::Left => scalar.get::<I>(),
            _ => a[usize::cast_from(locate(ABSOLUTE_POS, &shape, &at_a))],
        };
        let y = match comptime!(scalars) {
            Scalars::Right => scalar.get::<I>(),
            _ => b[usize::cast_from(locate(ABSOLUTE_POS, &shape, &at_b))],
        };
        out[ABSOLUTE_POS] = int_binary::<I>(x, y, op, width);
    }
}

#[cube]
fn int_binary<I: Int>(a: I, b: I, #[comptime] op: IntBinary, #[comptime] width: i64) -> I {
    let zero = I::new(0);
    let in_width = b >= zero && b < I::new(width);
    match comptime!(op) {
        IntBinary::Add => a + b,
        IntBinary::Sub => a - b,
        IntBinary::Mul => a * b,
        IntBinary::Pow => int_pow::<I>(a, b),
        IntBinary::Maximum => select(b > a, b, a),
        IntBinary::Minimum => select(b < a, b, a),
        IntBinary::Remainder => {
            let r = int_fmod::<I>(a, b);
            select((r < zero && b > zero) || (r > zero && b < zero), r + b, r)
        }
        IntBinary::Fmod => int_fmod::<I>(a, b),
        IntBinary::FloorDivide => {
            let safe = select(b == zero, I::new(1), b);
            let q = a / safe;
            let r = a - q * safe;
            let below = (r < zero && b > zero) || (r > zero && b < zero);
            select(b == zero, zero, select(below, q - I::new(1), q))
        }
        IntBinary::BitAnd => a & b,
        IntBinary::BitOr => a | b,
        IntBinary::BitXor => a ^ b,
        IntBinary::ShiftLeft => select(in_width, a << select(in_width, b, zero), zero),
        IntBinary::ShiftRight => {
            let all = select(a < zero, zero - I::new(1), zero);
            select(in_width, a >> select(in_width, b, zero), all)
        }
    }
}

/// `a − b·trunc(a/b)`: written out, because the sign of the built-in `%` differs between compilers.
#[cube]
fn int_fmod<I: Int>(a: I, b: I) -> I {
    let zero = I::new(0);
    let safe = select(b == zero, I::new(1), b);
    select(b == zero, zero, a - (a / safe) * safe)
}

/// `aᵇ` by squaring, wrapping; a negative exponent gives 1 for a = 1, ±1 for a = −1, else 0.
#[cube]
fn int_pow<I: Int>(a: I, b: I) -> I {
    let zero = I::new(0);
    let one = I::new(1);
    let mut result = one;
    let mut square = a;
    let mut left = select(b < zero, zero, b);
    while left > zero {
        if (left & one) == one {
            result *= square;
        }
        square *= square;
        left = left / I::new(2);
    }
    let unit = select(a == zero - one, select((b & one) == one, a, one), zero);
    select(b < zero, select(a == one, one, unit), result)
}
