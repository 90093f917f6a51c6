//! Functions and comparisons of two elements.

use super::loops::{Fn2, binary_f32, binary_f64, binary_i32, binary_i64, binary_u8, binary_u32};
use super::{Half, map1, map2, refused, source_of, with_dtype};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::strided::{BLOCK, Scratch, Source};
use gradus_core::backend::Operand;
use gradus_core::ops::{BinaryOp, CompareOp};
use gradus_core::{Buffer, DType, Element, Error, Result};
use half::{bf16, f16};

/// An operand as a source of elements `T`, and its storage.
#[inline]
fn operand<'a, T: Element>(x: &Operand<'a>, int: bool) -> Result<(Source<T>, Option<&'a CpuStorage>)> {
    match x {
        Operand::View(v) => source_of(*v).map(|(source, from)| (source, Some(from))),
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
    map2::<T, T>(n, sa, sb, [ra, rb], cost, f)
}

fn halves2<H: Half>(n: usize, a: &Operand<'_>, b: &Operand<'_>, cost: usize, f: Fn2<f32>) -> Result<Buffer> {
    // A number beside halves stays f32: it is not rounded to a half first.
    let number = |x: &Operand<'_>| if let Operand::Scalar(s) = x { Some(s.to_f64() as f32) } else { None };
    let (na, nb) = (number(a), number(b));
    let ((sa, ra), (sb, rb)) = (operand::<H>(a, false)?, operand::<H>(b, false)?);
    map2::<H, H>(n, sa, sb, [ra, rb], cost + 300, move |a, b, y| {
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
        map2::<T, u8>(n, sa, sb, [ra, rb], 300, f)
    })
}
