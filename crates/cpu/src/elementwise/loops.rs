//! The loop of each op for each type, vectorized for each instruction set.

use crate::activation::Activation;
use crate::math::{Float, erfinv};
use crate::simd::vectorized;
use gradus_core::ops::{BinaryOp, UnaryOp};

/// A loop over one operand.
pub(super) type Fn1<T> = fn(&[T], &mut [T]);
/// A loop over two operands.
pub(super) type Fn2<T> = fn(&[T], &[T], &mut [T]);

/// A loop over one operand, vectorized for each instruction set.
macro_rules! loop1 {
    ($t:ty, |$x:ident| $body:expr) => {{
        vectorized! { fn run(a: &[$t], y: &mut [$t]) { for (y, &$x) in y.iter_mut().zip(a) { *y = $body; } } }
        run as Fn1<$t>
    }};
}
/// A loop over angles: larger ones than the vectorized function is made for (and what is none) go by the standard library's, and their
/// block, whose other numbers have the same bits in either case, one by one.
macro_rules! angles {
    ($t:ty, $f:ident) => {{
        vectorized! {
            fn run(a: &[$t], y: &mut [$t]) {
                for (a, y) in a.chunks(64).zip(y.chunks_mut(64)) {
                    if a.iter().all(|x| Float::abs(*x) <= <$t>::LARGEST_ANGLE) {
                        for (y, &x) in y.iter_mut().zip(a) { *y = Float::$f(x); }
                    } else {
                        for (y, &x) in y.iter_mut().zip(a) {
                            *y = if Float::abs(x) <= <$t>::LARGEST_ANGLE { Float::$f(x) } else { x.through(f64::$f) };
                        }
                    }
                }
            }
        }
        run as Fn1<$t>
    }};
}
macro_rules! loop2 {
    ($t:ty, |$a:ident, $b:ident| $body:expr) => {{
        vectorized! { fn run(a: &[$t], b: &[$t], y: &mut [$t]) { for ((y, &$a), &$b) in y.iter_mut().zip(a).zip(b) { *y = $body; } } }
        run as Fn2<$t>
    }};
}

macro_rules! float_tables {
    ($($t:ty, $unary:ident, $binary:ident;)*) => {$(
        /// The loop of a unary op.
        pub(super) fn $unary(op: UnaryOp) -> Option<Fn1<$t>> {
            type T = $t;
            Some(match op {
                UnaryOp::Neg => loop1!(T, |x| -x),
                UnaryOp::Abs => loop1!(T, |x| Float::abs(x)),
                UnaryOp::Sign => loop1!(T, |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { 0.0 }), // 0 for NaN, too
                UnaryOp::Floor => loop1!(T, |x| Float::floor(x)),
                UnaryOp::Ceil => loop1!(T, |x| Float::ceil(x)),
                UnaryOp::Round => loop1!(T, |x| Float::round_even(x)),
                UnaryOp::Trunc => loop1!(T, |x| Float::trunc(x)),
                UnaryOp::Frac => loop1!(T, |x| x - Float::trunc(x)),
                UnaryOp::Square => loop1!(T, |x| x * x),
                UnaryOp::Sqrt => loop1!(T, |x| Float::sqrt(x)),
                UnaryOp::Rsqrt => loop1!(T, |x| 1.0 / Float::sqrt(x)),
                UnaryOp::Reciprocal => loop1!(T, |x| 1.0 / x),
                UnaryOp::Exp => loop1!(T, |x| Float::exp::<FMA>(x)),
                UnaryOp::Exp2 => loop1!(T, |x| x.through(f64::exp2)),
                UnaryOp::Expm1 => loop1!(T, |x| x.through(f64::exp_m1)),
                UnaryOp::Log => loop1!(T, |x| Float::ln(x)),
                UnaryOp::Log2 => loop1!(T, |x| x.through(f64::log2)),
                UnaryOp::Log10 => loop1!(T, |x| x.through(f64::log10)),
                UnaryOp::Log1p => loop1!(T, |x| x.through(f64::ln_1p)),
                UnaryOp::Sin => angles!(T, sin),
                UnaryOp::Cos => angles!(T, cos),
                UnaryOp::Tan => loop1!(T, |x| x.through(f64::tan)),
                UnaryOp::Asin => loop1!(T, |x| x.through(f64::asin)),
                UnaryOp::Acos => loop1!(T, |x| x.through(f64::acos)),
                UnaryOp::Atan => loop1!(T, |x| x.through(f64::atan)),
                UnaryOp::Sinh => loop1!(T, |x| x.through(f64::sinh)),
                UnaryOp::Cosh => loop1!(T, |x| x.through(f64::cosh)),
                UnaryOp::Tanh => loop1!(T, |x| Float::tanh::<FMA>(x)),
                UnaryOp::Asinh => loop1!(T, |x| x.through(libm::asinh)),
                UnaryOp::Acosh => loop1!(T, |x| x.through(libm::acosh)),
                UnaryOp::Atanh => loop1!(T, |x| x.through(libm::atanh)),
                UnaryOp::Erf => loop1!(T, |x| Float::erf(x)),
                UnaryOp::Erfc => loop1!(T, |x| x.through(libm::erfc)),
                UnaryOp::Erfinv => loop1!(T, |x| x.through(erfinv)),
                UnaryOp::Sigmoid => loop1!(T, |x| Float::sigmoid::<FMA>(x)),
                UnaryOp::LogSigmoid => loop1!(T, |x| x.through(|x| x.min(0.0) - (-x.abs()).exp().ln_1p())),
                UnaryOp::Softplus => loop1!(T, |x| x.through(|x| x.max(0.0) + (-x.abs()).exp().ln_1p() + if x.is_nan() { x } else { 0.0 })),
                UnaryOp::Relu => loop1!(T, |x| if x < 0.0 { 0.0 } else { x }), // NaN stays
                UnaryOp::Relu6 => loop1!(T, |x| { let y = if x < 0.0 { 0.0 } else { x }; if y > 6.0 { 6.0 } else { y } }),
                UnaryOp::Gelu => loop1!(T, |x| x.gelu::<FMA>().0),
                UnaryOp::GeluTanh => loop1!(T, |x| x.gelu_tanh::<FMA>().0),
                UnaryOp::Silu => loop1!(T, |x| x.silu::<FMA>().0),
                UnaryOp::Mish => loop1!(T, |x| x.through(|x| x * (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh())),
                UnaryOp::Softsign => loop1!(T, |x| x / (1.0 + Float::abs(x))),
                UnaryOp::HardSigmoid => loop1!(T, |x| { let y = x / 6.0 + 0.5; let y = if y < 0.0 { 0.0 } else { y }; if y > 1.0 { 1.0 } else { y } }),
                UnaryOp::HardSwish => loop1!(T, |x| { let y = x + 3.0; let y = if y < 0.0 { 0.0 } else { y }; let y = if y > 6.0 { 6.0 } else { y }; x * y / 6.0 }),
                UnaryOp::IsNan | UnaryOp::IsInf | UnaryOp::IsFinite | UnaryOp::LogicalNot | UnaryOp::BitNot => return None,
            })
        }

        /// The loop of a binary op.
        pub(super) fn $binary(op: BinaryOp) -> Option<Fn2<$t>> {
            type T = $t;
            Some(match op {
                BinaryOp::Add => loop2!(T, |a, b| a + b),
                BinaryOp::Sub => loop2!(T, |a, b| a - b),
                BinaryOp::Mul => loop2!(T, |a, b| a * b),
                BinaryOp::Div => loop2!(T, |a, b| a / b),
                BinaryOp::Pow => loop2!(T, |a, b| if b == 2.0 { a * a } else if b == 0.5 && a > 0.0 { Float::sqrt(a) } else { a.powf(b) }),
                BinaryOp::Atan2 => loop2!(T, |a, b| a.atan2(b)),
                BinaryOp::Hypot => loop2!(T, |a, b| a.hypot(b)),
                BinaryOp::Maximum => loop2!(T, |a, b| if a > b || a != a { a } else { b }),
                BinaryOp::Minimum => loop2!(T, |a, b| if a < b || a != a { a } else { b }),
                BinaryOp::LogAddExp => loop2!(T, |a, b| {
                    let (hi, lo) = if a > b { (a, b) } else { (b, a) };
                    // Two equal infinities must not be subtracted.
                    if hi == lo { hi + std::f64::consts::LN_2 as T } else { hi + (lo - hi).exp().ln_1p() }
                }),
                BinaryOp::Copysign => loop2!(T, |a, b| Float::copysign(a, b)),
                BinaryOp::Remainder => loop2!(T, |a, b| { let r = a % b; if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r } }),
                BinaryOp::Fmod => loop2!(T, |a, b| a % b),
                BinaryOp::FloorDivide => loop2!(T, |a, b| {
                    // ⌊a/b⌋ from the exact remainder, as Python does, so that rounding never crosses an integer.
                    if b == 0.0 { a / b } else {
                        let r = a % b;
                        let q = (a - r) / b;
                        let q = if r != 0.0 && (r < 0.0) != (b < 0.0) { q - 1.0 } else { q };
                        let f = Float::floor(q);
                        let f = if q - f > 0.5 { f + 1.0 } else { f };
                        if q == 0.0 { Float::copysign(0.0, a / b) } else { f }
                    }
                }),
                BinaryOp::Xlogy => loop2!(T, |a, b| if a == 0.0 && b == b { 0.0 } else { a * b.ln() }),
                BinaryOp::BitAnd | BinaryOp::BitOr | BinaryOp::BitXor | BinaryOp::ShiftLeft | BinaryOp::ShiftRight => return None,
            })
        }
    )*};
}
float_tables! { f32, unary_f32, binary_f32; f64, unary_f64, binary_f64; }

macro_rules! int_tables {
    ($($t:ty, $unary:ident, $binary:ident;)*) => {$(
        pub(super) fn $unary(op: UnaryOp) -> Option<Fn1<$t>> {
            type T = $t;
            Some(match op {
                UnaryOp::Neg => loop1!(T, |x| x.wrapping_neg()),
                UnaryOp::Abs => loop1!(T, |x| int_abs(x as i128) as T),
                UnaryOp::Sign => loop1!(T, |x| (x as i128).signum() as T),
                UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round | UnaryOp::Trunc => loop1!(T, |x| x),
                UnaryOp::Square => loop1!(T, |x| x.wrapping_mul(x)),
                UnaryOp::Relu => loop1!(T, |x| if (x as i128) < 0 { 0 } else { x }),
                UnaryOp::Relu6 => loop1!(T, |x| if (x as i128) < 0 { 0 } else if x > 6 { 6 } else { x }),
                UnaryOp::BitNot => loop1!(T, |x| !x),
                _ => return None,
            })
        }
        pub(super) fn $binary(op: BinaryOp) -> Option<Fn2<$t>> {
            type T = $t;
            Some(match op {
                BinaryOp::Add => loop2!(T, |a, b| a.wrapping_add(b)),
                BinaryOp::Sub => loop2!(T, |a, b| a.wrapping_sub(b)),
                BinaryOp::Mul => loop2!(T, |a, b| a.wrapping_mul(b)),
                BinaryOp::Pow => loop2!(T, |a, b| int_pow(a as i64, b as i64) as T),
                BinaryOp::Maximum => loop2!(T, |a, b| if a > b { a } else { b }),
                BinaryOp::Minimum => loop2!(T, |a, b| if a < b { a } else { b }),
                // Division by zero gives 0: there is no value to give, and no error to raise from inside a kernel.
                BinaryOp::Remainder => loop2!(T, |a, b| { let r = a.checked_rem(b).unwrap_or(0); if r != 0 && ((r as i128) < 0) != ((b as i128) < 0) { r.wrapping_add(b) } else { r } }),
                BinaryOp::Fmod => loop2!(T, |a, b| a.checked_rem(b).unwrap_or(0)),
                BinaryOp::FloorDivide => loop2!(T, |a, b| {
                    let (q, r) = (a.checked_div(b).unwrap_or(0), a.checked_rem(b).unwrap_or(0));
                    if r != 0 && ((r as i128) < 0) != ((b as i128) < 0) { q.wrapping_sub(1) } else { q }
                }),
                BinaryOp::BitAnd => loop2!(T, |a, b| a & b),
                BinaryOp::BitOr => loop2!(T, |a, b| a | b),
                BinaryOp::BitXor => loop2!(T, |a, b| a ^ b),
                BinaryOp::ShiftLeft => loop2!(T, |a, b| u32::try_from(b).ok().and_then(|b| a.checked_shl(b)).unwrap_or(0)),
                BinaryOp::ShiftRight => loop2!(T, |a, b| u32::try_from(b).ok().and_then(|b| a.checked_shr(b)).unwrap_or(if (a as i128) < 0 { (0 as T).wrapping_sub(1) } else { 0 })),
                _ => return None,
            })
        }
    )*};
}
int_tables! { u8, unary_u8, binary_u8; u32, unary_u32, binary_u32; i32, unary_i32, binary_i32; i64, unary_i64, binary_i64; }

#[inline(always)]
fn int_abs(x: i128) -> i128 {
    x.abs()
}

/// a^b for integers; a negative exponent gives 0, but for ±1, as PyTorch has it.
fn int_pow(a: i64, b: i64) -> i64 {
    match (u32::try_from(b), a) {
        (Ok(b), _) => a.wrapping_pow(b),
        (_, 1) => 1,
        (_, -1) => {
            if b % 2 == 0 {
                1
            } else {
                -1
            }
        }
        _ => 0,
    }
}
