//! Elementwise kernels. Each runs over blocks that stay in the L1 cache; a half is widened to `f32` block by block.
//!
//! | for | see |
//! |---|---|
//! | the loop of each op and type: a new op is a row there | `loops` |
//! | functions of one element | `unary` |
//! | functions and comparisons of two | `binary` |
//! | chains of functions in one pass | `chain` |
//! | choosing, copying, casting, writing | `transfer` |

mod binary;
pub(crate) mod chain;
mod loops;
mod transfer;
mod transposed;
mod unary;

pub(crate) use binary::{binary, compare};
pub(crate) use transfer::{cast, copy, select, write};
pub(crate) use unary::unary;

use crate::launch::{In, Out, launch, storage};
use crate::memory::CpuStorage;
use crate::strided::{BLOCK, Scratch, Source};
use crate::threads::for_ranges;
use gradus_core::backend::View;
use gradus_core::{Buffer, DType, Element, Error, Result};
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

#[inline]
pub(crate) fn finish(s: Arc<CpuStorage>) -> Result<Buffer> {
    Ok(s)
}

/// A view as an operand of elements `T`, and its storage.
#[inline]
pub(crate) fn source_of<'a, T: Copy + Default>(x: View<'a>) -> Result<(Source<T>, &'a CpuStorage)> {
    let from = storage(x.buffer)?;
    Ok((Source::new(In::of(from), x.layout), from))
}

/// A view as an operand of elements `T`.
#[inline]
pub(crate) fn source<T: Copy + Default>(x: View<'_>) -> Result<Source<T>> {
    Ok(source_of(x)?.0)
}

/// One output element for each input element, block by block.
pub(crate) fn map1<A, Y>(x: View<'_>, cost: usize, f: impl Fn(&[A], &mut [Y]) + Send + Sync + 'static) -> Result<Buffer>
where
    A: Copy + Default + Send + Sync + 'static,
    Y: Copy + Send + Sync + 'static,
{
    let n = x.elements();
    let ((src, from), to) = (source_of::<A>(x)?, CpuStorage::new(n * size_of::<Y>())?);
    let out = Out::<Y>::of(&to);
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
#[inline]
pub(crate) fn map2<A, Y>(
    n: usize,
    a: Source<A>,
    b: Source<A>,
    reads: [Option<&CpuStorage>; 2],
    cost: usize,
    f: impl Fn(&[A], &[A], &mut [Y]) + Send + Sync + 'static,
) -> Result<Buffer>
where
    A: Copy + Default + Send + Sync + 'static,
    Y: Copy + Send + Sync + 'static,
{
    let to = CpuStorage::new(n * size_of::<Y>())?;
    let out = Out::<Y>::of(&to);
    let reads = match &reads {
        [Some(a), Some(b)] => &[*a, *b][..],
        [Some(a), None] | [None, Some(a)] => &[*a],
        [None, None] => &[],
    };
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

pub(crate) fn refused(op: &str, dtype: DType) -> Error {
    Error::unsupported(format!("{op} is not defined for {dtype} on cpu"))
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
