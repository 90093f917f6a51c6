//! Functions of one element.

use super::loops::{Fn1, unary_f32, unary_f64, unary_i32, unary_i64, unary_u8, unary_u32};
use super::{Half, map1, refused, with_dtype};
use crate::strided::{BLOCK, Scratch};
use gradus_core::backend::View;
use gradus_core::ops::UnaryOp;
use gradus_core::{Buffer, DType, Element, Result};
use half::{bf16, f16};

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

/// Estimated nanoseconds for 1000 elements.
fn cost1(op: UnaryOp) -> usize {
    use UnaryOp::*;
    match op {
        Neg | Abs | Sign | Floor | Ceil | Round | Trunc | Frac | Square | Relu | Relu6 | BitNot | Softsign
        | HardSigmoid | HardSwish => 150,
        Sqrt | Rsqrt | Reciprocal | Exp | Log | Tanh | Sigmoid | Silu | Gelu | GeluTanh | Erf => 800,
        Sin | Cos => 1500,
        _ => 8000,
    }
}
