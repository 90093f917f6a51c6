//! Elementwise kernels: unary, binary, comparisons, selection, casts and copies.
//!
//! Each runs over blocks that stay in the L1 cache. A half is widened to `f32` block by block. Adding an op is a row in
//! [`float_unary`] or [`float_binary`] (and their integer companions).

use crate::launch::{In, Out, launch, storage};
use crate::math::{Float, erfinv};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::strided::{BLOCK, Scratch, Source, Walk};
use crate::threads::for_ranges;
use gradus_core::backend::{Operand, View, WriteMode};
use gradus_core::ops::{BinaryOp, CompareOp, UnaryOp};
use gradus_core::{Buffer, DType, Element, Error, Layout, Result};
use half::{bf16, f16};
use std::sync::Arc;

/// Elements that one thread takes at a time.
pub(crate) const CHUNK: usize = 16 * BLOCK;

/// Calls a macro with the Rust type of a dtype.
macro_rules! with_dtype {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            DType::Bool => {
                type $t = u8;
                $body
            }
            DType::U8 => {
                type $t = u8;
                $body
            }
            DType::U32 => {
                type $t = u32;
                $body
            }
            DType::I32 => {
                type $t = i32;
                $body
            }
            DType::I64 => {
                type $t = i64;
                $body
            }
            DType::F16 => {
                type $t = half::f16;
                $body
            }
            DType::Bf16 => {
                type $t = half::bf16;
                $body
            }
            DType::F32 => {
                type $t = f32;
                $body
            }
            DType::F64 => {
                type $t = f64;
                $body
            }
        }
    };
}
pub(crate) use with_dtype;

pub(crate) fn finish(s: CpuStorage) -> Result<Buffer> {
    Ok(Arc::new(s))
}

/// A view as an operand of elements `T`.
pub(crate) fn source<T: Copy + Default>(x: View<'_>) -> Result<Source<T>> {
    Ok(Source::new(In::of(storage(x.buffer)?), x.layout))
}

/// One output element for each input element, block by block.
pub(crate) fn map1<A, Y>(x: View<'_>, cost: usize, f: impl Fn(&[A], &mut [Y]) + Send + Sync + 'static) -> Result<Buffer>
where
    A: Copy + Default + Send + Sync + 'static,
    Y: Copy + Send + Sync + 'static,
{
    let n = x.elements();
    let (from, to) = (storage(x.buffer)?, CpuStorage::new(n * size_of::<Y>())?);
    let (src, out) = (source::<A>(x)?, Out::<Y>::of(&to));
    launch(&[from], &[&to], move || {
        for_ranges(n, CHUNK, cost, |start, len| {
            if let Source::Dense(x, offset) = &src {
                let at = offset + start;
                return f(&x.slice()[at..at + len], out.part(start, len));
            }
            let mut scratch = Scratch::new();
            for at in (start..start + len).step_by(BLOCK) {
                let b = BLOCK.min(start + len - at);
                f(src.block(at, b, &mut scratch), out.part(at, b));
            }
        });
    });
    finish(to)
}

/// One output element for each pair of input elements, block by block.
fn map2<A, Y>(
    n: usize,
    a: Source<A>,
    b: Source<A>,
    reads: &[&CpuStorage],
    cost: usize,
    f: impl Fn(&[A], &[A], &mut [Y]) + Send + Sync + 'static,
) -> Result<Buffer>
where
    A: Copy + Default + Send + Sync + 'static,
    Y: Copy + Send + Sync + 'static,
{
    let to = CpuStorage::new(n * size_of::<Y>())?;
    let out = Out::<Y>::of(&to);
    launch(reads, &[&to], move || {
        for_ranges(n, CHUNK, cost, |start, len| {
            if let (Source::Dense(x, ox), Source::Dense(y, oy)) = (&a, &b) {
                let (i, j) = (ox + start, oy + start);
                return f(&x.slice()[i..i + len], &y.slice()[j..j + len], out.part(start, len));
            }
            let (mut sa, mut sb) = (Scratch::new(), Scratch::new());
            for at in (start..start + len).step_by(BLOCK) {
                let k = BLOCK.min(start + len - at);
                f(a.block(at, k, &mut sa), b.block(at, k, &mut sb), out.part(at, k));
            }
        });
    });
    finish(to)
}

// ---- one function a type, by op -------------------------------------------------------------------------------------------

type Fn1<T> = fn(&[T], &mut [T]);
type Fn2<T> = fn(&[T], &[T], &mut [T]);

/// A loop over one operand, vectorized for each instruction set.
macro_rules! loop1 {
    ($t:ty, |$x:ident| $body:expr) => {{
        vectorized! { fn run(a: &[$t], y: &mut [$t]) { for (y, &$x) in y.iter_mut().zip(a) { *y = $body; } } }
        run as Fn1<$t>
    }};
}
macro_rules! loop2 {
    ($t:ty, |$a:ident, $b:ident| $body:expr) => {{
        vectorized! { fn run(a: &[$t], b: &[$t], y: &mut [$t]) { for ((y, &$a), &$b) in y.iter_mut().zip(a).zip(b) { *y = $body; } } }
        run as Fn2<$t>
    }};
}

const FRAC_1_SQRT_2: f64 = std::f64::consts::FRAC_1_SQRT_2;

macro_rules! float_tables {
    ($($t:ty, $unary:ident, $binary:ident;)*) => {$(
        /// The loop of a unary op.
        fn $unary(op: UnaryOp) -> Option<Fn1<$t>> {
            type T = $t;
            Some(match op {
                UnaryOp::Neg => loop1!(T, |x| -x),
                UnaryOp::Abs => loop1!(T, |x| Float::abs(x)),
                UnaryOp::Sign => loop1!(T, |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x }),
                UnaryOp::Floor => loop1!(T, |x| Float::floor(x)),
                UnaryOp::Ceil => loop1!(T, |x| Float::ceil(x)),
                UnaryOp::Round => loop1!(T, |x| Float::round_even(x)),
                UnaryOp::Trunc => loop1!(T, |x| Float::trunc(x)),
                UnaryOp::Frac => loop1!(T, |x| x - Float::trunc(x)),
                UnaryOp::Square => loop1!(T, |x| x * x),
                UnaryOp::Sqrt => loop1!(T, |x| Float::sqrt(x)),
                UnaryOp::Rsqrt => loop1!(T, |x| 1.0 / Float::sqrt(x)),
                UnaryOp::Reciprocal => loop1!(T, |x| 1.0 / x),
                UnaryOp::Exp => loop1!(T, |x| Float::exp(x)),
                UnaryOp::Exp2 => loop1!(T, |x| x.through(f64::exp2)),
                UnaryOp::Expm1 => loop1!(T, |x| x.through(f64::exp_m1)),
                UnaryOp::Log => loop1!(T, |x| Float::ln(x)),
                UnaryOp::Log2 => loop1!(T, |x| x.through(f64::log2)),
                UnaryOp::Log10 => loop1!(T, |x| x.through(f64::log10)),
                UnaryOp::Log1p => loop1!(T, |x| x.through(f64::ln_1p)),
                UnaryOp::Sin => loop1!(T, |x| x.through(f64::sin)),
                UnaryOp::Cos => loop1!(T, |x| x.through(f64::cos)),
                UnaryOp::Tan => loop1!(T, |x| x.through(f64::tan)),
                UnaryOp::Asin => loop1!(T, |x| x.through(f64::asin)),
                UnaryOp::Acos => loop1!(T, |x| x.through(f64::acos)),
                UnaryOp::Atan => loop1!(T, |x| x.through(f64::atan)),
                UnaryOp::Sinh => loop1!(T, |x| x.through(f64::sinh)),
                UnaryOp::Cosh => loop1!(T, |x| x.through(f64::cosh)),
                UnaryOp::Tanh => loop1!(T, |x| Float::tanh(x)),
                UnaryOp::Asinh => loop1!(T, |x| x.through(libm::asinh)),
                UnaryOp::Acosh => loop1!(T, |x| x.through(libm::acosh)),
                UnaryOp::Atanh => loop1!(T, |x| x.through(libm::atanh)),
                UnaryOp::Erf => loop1!(T, |x| Float::erf(x)),
                UnaryOp::Erfc => loop1!(T, |x| x.through(libm::erfc)),
                UnaryOp::Erfinv => loop1!(T, |x| x.through(erfinv)),
                UnaryOp::Sigmoid => loop1!(T, |x| Float::sigmoid(x)),
                UnaryOp::LogSigmoid => loop1!(T, |x| x.through(|x| x.min(0.0) - (-x.abs()).exp().ln_1p())),
                UnaryOp::Softplus => loop1!(T, |x| x.through(|x| x.max(0.0) + (-x.abs()).exp().ln_1p() + if x.is_nan() { x } else { 0.0 })),
                UnaryOp::Relu => loop1!(T, |x| if x < 0.0 { 0.0 } else { x }), // NaN stays
                UnaryOp::Relu6 => loop1!(T, |x| { let y = if x < 0.0 { 0.0 } else { x }; if y > 6.0 { 6.0 } else { y } }),
                UnaryOp::Gelu => loop1!(T, |x| x * 0.5 * (1.0 + Float::erf(x * FRAC_1_SQRT_2 as T))),
                UnaryOp::GeluTanh => loop1!(T, |x| x * 0.5 * (1.0 + Float::tanh(0.797_884_560_802_865_4 * x * (1.0 + 0.044_715 * x * x)))),
                UnaryOp::Silu => loop1!(T, |x| if x == T::NEG_INFINITY { -0.0 } else { x * Float::sigmoid(x) }),
                UnaryOp::Mish => loop1!(T, |x| x.through(|x| x * (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh())),
                UnaryOp::Softsign => loop1!(T, |x| x / (1.0 + Float::abs(x))),
                UnaryOp::HardSigmoid => loop1!(T, |x| { let y = x / 6.0 + 0.5; let y = if y < 0.0 { 0.0 } else { y }; if y > 1.0 { 1.0 } else { y } }),
                UnaryOp::HardSwish => loop1!(T, |x| { let y = x + 3.0; let y = if y < 0.0 { 0.0 } else { y }; let y = if y > 6.0 { 6.0 } else { y }; x * y / 6.0 }),
                UnaryOp::IsNan | UnaryOp::IsInf | UnaryOp::IsFinite | UnaryOp::LogicalNot | UnaryOp::BitNot => return None,
            })
        }

        /// The loop of a binary op.
        fn $binary(op: BinaryOp) -> Option<Fn2<$t>> {
            type T = $t;
            Some(match op {
                BinaryOp::Add => loop2!(T, |a, b| a + b),
                BinaryOp::Sub => loop2!(T, |a, b| a - b),
                BinaryOp::Mul => loop2!(T, |a, b| a * b),
                BinaryOp::Div => loop2!(T, |a, b| a / b),
                BinaryOp::Pow => loop2!(T, |a, b| if b == 2.0 { a * a } else if b == 0.5 { Float::sqrt(a) } else { a.powf(b) }),
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
        fn $unary(op: UnaryOp) -> Option<Fn1<$t>> {
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
        fn $binary(op: BinaryOp) -> Option<Fn2<$t>> {
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

/// A half-precision loop: widened to `f32` block by block.
fn halves1<H: Half>(x: View<'_>, cost: usize, f: Fn1<f32>) -> Result<Buffer> {
    map1::<H, H>(x, cost, move |x, y| {
        let (mut a, mut b) = (Scratch::new(), Scratch::new());
        for (x, y) in x.chunks(BLOCK).zip(y.chunks_mut(BLOCK)) {
            let (a, b) = (a.first(x.len()), b.first(x.len()));
            H::widen(x, a);
            f(a, b);
            H::narrow(b, y);
        }
    })
}

/// A 16-bit float that computes in `f32`.
pub(crate) trait Half: Element {
    fn widen(x: &[Self], y: &mut [f32]);
    fn narrow(x: &[f32], y: &mut [Self]);
}
macro_rules! half {
    ($($t:ty),*) => {$(
        impl Half for $t {
            fn widen(x: &[Self], y: &mut [f32]) { half::slice::HalfFloatSliceExt::convert_to_f32_slice(x, y) }
            fn narrow(x: &[f32], y: &mut [Self]) { half::slice::HalfFloatSliceExt::convert_from_f32_slice(y, x) }
        }
    )*};
}
half!(f16, bf16);

/// Estimated nanoseconds for 1000 elements.
fn cost1(op: UnaryOp) -> usize {
    use UnaryOp::*;
    match op {
        Neg | Abs | Sign | Floor | Ceil | Round | Trunc | Frac | Square | Relu | Relu6 | BitNot | Softsign
        | HardSigmoid | HardSwish => 150,
        Sqrt | Rsqrt | Reciprocal | Exp | Log | Tanh | Sigmoid | Silu | GeluTanh => 800,
        _ => 8000,
    }
}

pub(crate) fn refused(op: &str, dtype: DType) -> Error {
    Error::unsupported(format!("{op} is not defined for {dtype} on cpu"))
}

pub(crate) fn unary(op: UnaryOp, x: View<'_>) -> Result<Buffer> {
    let no = || refused(op.name(), x.dtype);
    macro_rules! run {
        ($t:ty, $table:ident) => {{
            let f = $table(op).ok_or_else(no)?;
            map1::<$t, $t>(x, cost1(op), f)
        }};
    }
    match (op, x.dtype) {
        (UnaryOp::IsNan | UnaryOp::IsInf | UnaryOp::IsFinite | UnaryOp::LogicalNot, _) => test(op, x),
        (UnaryOp::BitNot, DType::Bool) => {
            map1::<u8, u8>(x, 150, |x, y| y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x == 0) as u8))
        }
        (_, DType::F32) => run!(f32, unary_f32),
        (_, DType::F64) => run!(f64, unary_f64),
        (_, DType::F16) => halves1::<f16>(x, cost1(op) + 200, unary_f32(op).ok_or_else(no)?),
        (_, DType::Bf16) => halves1::<bf16>(x, cost1(op) + 200, unary_f32(op).ok_or_else(no)?),
        (_, DType::I64) => run!(i64, unary_i64),
        (_, DType::I32) => run!(i32, unary_i32),
        (_, DType::U32) => run!(u32, unary_u32),
        (_, DType::U8) => run!(u8, unary_u8),
        (_, DType::Bool) => Err(no()),
    }
}

/// The tests, which give `bool`.
fn test(op: UnaryOp, x: View<'_>) -> Result<Buffer> {
    with_dtype!(x.dtype, T => {
        let f: fn(f64) -> bool = match op {
            UnaryOp::IsNan => f64::is_nan,
            UnaryOp::IsInf => f64::is_infinite,
            UnaryOp::IsFinite => f64::is_finite,
            _ => |x| x == 0.0,
        };
        map1::<T, u8>(x, 500, move |x, y| y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(Element::to_f64(x)) as u8))
    })
}

/// An operand as a source of elements `T`, and its storage.
fn operand<'a, T: Element>(x: &Operand<'a>, int: bool) -> Result<(Source<T>, Option<&'a CpuStorage>)> {
    match x {
        Operand::View(v) => Ok((source(*v)?, Some(storage(v.buffer)?))),
        Operand::Scalar(s) => {
            Ok((Source::Value(if int { T::from_i64(s.to_i64()) } else { T::from_f64(s.to_f64()) }), None))
        }
    }
}

/// The dtype and number of elements of a pair of operands, one of which is a view.
fn common(a: &Operand<'_>, b: &Operand<'_>) -> Result<(DType, usize)> {
    match (a, b) {
        (Operand::View(v), _) | (_, Operand::View(v)) => Ok((v.dtype, v.elements())),
        _ => Err(Error::misuse("a function of two numbers needs no device")),
    }
}

pub(crate) fn binary(op: BinaryOp, a: Operand<'_>, b: Operand<'_>) -> Result<Buffer> {
    let (dtype, n) = common(&a, &b)?;
    let no = || refused(op.name(), dtype);
    let cost = if matches!(
        op,
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Maximum | BinaryOp::Minimum
    ) {
        200
    } else {
        5000
    };
    macro_rules! run {
        ($t:ty, $table:ident) => {{
            let f = $table(op).ok_or_else(no)?;
            pair::<$t>(n, &a, &b, cost, f)
        }};
    }
    match dtype {
        DType::F32 => run!(f32, binary_f32),
        DType::F64 => run!(f64, binary_f64),
        DType::F16 => halves2::<f16>(n, &a, &b, cost, binary_f32(op).ok_or_else(no)?),
        DType::Bf16 => halves2::<bf16>(n, &a, &b, cost, binary_f32(op).ok_or_else(no)?),
        DType::I64 => run!(i64, binary_i64),
        DType::I32 => run!(i32, binary_i32),
        DType::U32 => run!(u32, binary_u32),
        DType::U8 => run!(u8, binary_u8),
        DType::Bool if matches!(op, BinaryOp::BitAnd | BinaryOp::BitOr | BinaryOp::BitXor) => run!(u8, binary_u8),
        DType::Bool => Err(no()),
    }
}

fn pair<T: Element>(n: usize, a: &Operand<'_>, b: &Operand<'_>, cost: usize, f: Fn2<T>) -> Result<Buffer> {
    let int = !T::DTYPE.is_float();
    // A slot is read when the kernel runs, so that a replay sees its new value.
    if let (Operand::View(v), Operand::Scalar(gradus_core::Scalar::Slot(slot)))
    | (Operand::Scalar(gradus_core::Scalar::Slot(slot)), Operand::View(v)) = (a, b)
    {
        let (slot, left) = (slot.clone(), matches!(a, Operand::Scalar(_)));
        return map1::<T, T>(*v, cost, move |x, y| {
            let s = [T::from_f64(slot.get()); BLOCK];
            for (x, y) in x.chunks(BLOCK).zip(y.chunks_mut(BLOCK)) {
                if left { f(&s[..x.len()], x, y) } else { f(x, &s[..x.len()], y) }
            }
        });
    }
    let ((sa, ra), (sb, rb)) = (operand::<T>(a, int)?, operand::<T>(b, int)?);
    let reads: smallvec::SmallVec<[&CpuStorage; 2]> = [ra, rb].into_iter().flatten().collect();
    map2::<T, T>(n, sa, sb, &reads, cost, f)
}

fn halves2<H: Half>(n: usize, a: &Operand<'_>, b: &Operand<'_>, cost: usize, f: Fn2<f32>) -> Result<Buffer> {
    // A number beside halves stays f32: it is not rounded to a half first.
    let number = |x: &Operand<'_>| if let Operand::Scalar(s) = x { Some(s.to_f64() as f32) } else { None };
    let (na, nb) = (number(a), number(b));
    let ((sa, ra), (sb, rb)) = (operand::<H>(a, false)?, operand::<H>(b, false)?);
    let reads: smallvec::SmallVec<[&CpuStorage; 2]> = [ra, rb].into_iter().flatten().collect();
    map2::<H, H>(n, sa, sb, &reads, cost + 300, move |a, b, y| {
        let (mut wa, mut wb, mut wy) = (Scratch::new(), Scratch::new(), Scratch::new());
        for ((a, b), y) in a.chunks(BLOCK).zip(b.chunks(BLOCK)).zip(y.chunks_mut(BLOCK)) {
            let (wa, wb, wy) = (wa.first(y.len()), wb.first(y.len()), wy.first(y.len()));
            match na {
                Some(v) => wa.fill(v),
                None => H::widen(a, wa),
            }
            match nb {
                Some(v) => wb.fill(v),
                None => H::widen(b, wb),
            }
            f(wa, wb, wy);
            H::narrow(wy, y);
        }
    })
}

pub(crate) fn compare(op: CompareOp, a: Operand<'_>, b: Operand<'_>) -> Result<Buffer> {
    let (dtype, n) = common(&a, &b)?;
    with_dtype!(dtype, T => {
        macro_rules! cmp {
            (|$a:ident, $b:ident| $body:expr) => {{
                vectorized! { fn run(a: &[T], b: &[T], y: &mut [u8]) { for ((y, &$a), &$b) in y.iter_mut().zip(a).zip(b) { *y = ($body) as u8; } } }
                run as fn(&[T], &[T], &mut [u8])
            }};
        }
        let zero = <T as Default>::default();
        let _ = zero;
        let f = match op {
            CompareOp::Eq => cmp!(|a, b| a == b),
            CompareOp::Ne => cmp!(|a, b| a != b),
            CompareOp::Lt => cmp!(|a, b| a < b),
            CompareOp::Le => cmp!(|a, b| a <= b),
            CompareOp::Gt => cmp!(|a, b| a > b),
            CompareOp::Ge => cmp!(|a, b| a >= b),
            CompareOp::LogicalAnd => cmp!(|a, b| (a != T::default()) & (b != T::default())),
            CompareOp::LogicalOr => cmp!(|a, b| (a != T::default()) | (b != T::default())),
            CompareOp::LogicalXor => cmp!(|a, b| (a != T::default()) ^ (b != T::default())),
        };
        let int = !dtype.is_float();
        let ((sa, ra), (sb, rb)) = (operand::<T>(&a, int)?, operand::<T>(&b, int)?);
        let reads: smallvec::SmallVec<[&CpuStorage; 2]> = [ra, rb].into_iter().flatten().collect();
        map2::<T, u8>(n, sa, sb, &reads, 300, f)
    })
}

pub(crate) fn select(c: View<'_>, a: View<'_>, b: View<'_>) -> Result<Buffer> {
    let n = c.elements();
    with_dtype!(a.dtype, T => {
        let to = CpuStorage::new(n * size_of::<T>())?;
        let (sc, sa, sb, out) = (source::<u8>(c)?, source::<T>(a)?, source::<T>(b)?, Out::<T>::of(&to));
        launch(&[storage(c.buffer)?, storage(a.buffer)?, storage(b.buffer)?], &[&to], move || {
            for_ranges(n, CHUNK, 400, |start, len| {
                let (mut kc, mut ka, mut kb) = (Scratch::new(), Scratch::new(), Scratch::new());
                for at in (start..start + len).step_by(BLOCK) {
                    let k = BLOCK.min(start + len - at);
                    choose(sc.block(at, k, &mut kc), sa.block(at, k, &mut ka), sb.block(at, k, &mut kb), out.part(at, k));
                }
            });
        });
        finish(to)
    })
}

vectorized! {
    fn choose<T: Copy>(c: &[u8], a: &[T], b: &[T], y: &mut [T]) {
        for (((y, &c), &a), &b) in y.iter_mut().zip(c).zip(a).zip(b) {
            *y = if c != 0 { a } else { b };
        }
    }
}

/// The view's elements made dense.
pub(crate) fn copy(x: View<'_>) -> Result<Buffer> {
    match x.dtype.size() {
        1 => map1::<u8, u8>(x, 100, |x, y| y.copy_from_slice(x)),
        2 => map1::<u16, u16>(x, 100, |x, y| y.copy_from_slice(x)),
        4 => map1::<u32, u32>(x, 150, |x, y| y.copy_from_slice(x)),
        _ => map1::<u64, u64>(x, 300, |x, y| y.copy_from_slice(x)),
    }
}

pub(crate) fn cast(x: View<'_>, to: DType) -> Result<Buffer> {
    if x.dtype == to || (x.dtype == DType::Bool && to == DType::U8) {
        return copy(x);
    }
    match (x.dtype, to) {
        (DType::F16, DType::F32) => return map1::<f16, f32>(x, 300, f16::widen),
        (DType::Bf16, DType::F32) => return map1::<bf16, f32>(x, 300, bf16::widen),
        (DType::F32, DType::F16) => return map1::<f32, f16>(x, 300, f16::narrow),
        (DType::F32, DType::Bf16) => return map1::<f32, bf16>(x, 300, bf16::narrow),
        (DType::F32, DType::F64) => {
            return map1::<f32, f64>(x, 300, |x, y| y.iter_mut().zip(x).for_each(|(y, &x)| *y = x as f64));
        }
        (DType::F64, DType::F32) => {
            return map1::<f64, f32>(x, 300, |x, y| y.iter_mut().zip(x).for_each(|(y, &x)| *y = x as f32));
        }
        _ => {}
    }
    with_dtype!(x.dtype, A => {
        if to == DType::Bool {
            return map1::<A, u8>(x, 500, |x, y| y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x != <A as Default>::default()) as u8));
        }
        with_dtype!(to, Y => {
            if x.dtype.is_float() {
                map1::<A, Y>(x, 1000, |x, y| y.iter_mut().zip(x).for_each(|(y, &x)| *y = float_to::<Y>(Element::to_f64(x))))
            } else {
                map1::<A, Y>(x, 1000, |x, y| y.iter_mut().zip(x).for_each(|(y, &x)| *y = <Y as Element>::from_i64(Element::to_i64(x))))
            }
        })
    })
}

/// A float in another type. Narrow integers wrap, as they do in PyTorch on this hardware.
#[inline(always)]
fn float_to<Y: Element>(x: f64) -> Y {
    if Y::DTYPE.is_float() { Y::from_f64(x) } else { Y::from_i64(x as i64) }
}

/// Writes `src` into the places `at` of `dst`, which the caller holds alone.
pub(crate) fn write(dst: &mut Buffer, at: &Layout, src: View<'_>, mode: WriteMode) -> Result<()> {
    let (to, from, n) = (storage(dst)?, storage(src.buffer)?, src.elements());
    let at = *at;
    with_dtype!(src.dtype, T => {
        let (s, out, walk) = (source::<T>(src)?, Out::<T>::of(to), Walk::new(&at));
        launch(&[from], &[to], move || {
            for_ranges(n, CHUNK, 400, |start, len| {
                let mut scratch = Scratch::new();
                for i in (start..start + len).step_by(BLOCK) {
                    let k = BLOCK.min(start + len - i);
                    let values = s.block(i, k, &mut scratch);
                    match (mode, walk.dense) {
                        (WriteMode::Store, true) => out.part(walk.offset() + i, k).copy_from_slice(values),
                        (WriteMode::Store, false) => walk.scatter(out.ptr(), i, values, |_, new| new),
                        (WriteMode::Add, true) => add_into(out.part(walk.offset() + i, k), values),
                        (WriteMode::Add, false) => walk.scatter(out.ptr(), i, values, sum),
                    }
                }
            });
        });
        Ok(())
    })
}

#[inline(always)]
fn sum<T: Element>(a: T, b: T) -> T {
    if T::DTYPE.is_float() {
        T::from_f64(a.to_f64() + b.to_f64())
    } else {
        T::from_i64(a.to_i64().wrapping_add(b.to_i64()))
    }
}

vectorized! {
    fn add_into<T: Element>(to: &mut [T], x: &[T]) {
        for (t, &x) in to.iter_mut().zip(x) {
            *t = sum(*t, x);
        }
    }
}
