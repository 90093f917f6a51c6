//! Moving elements: choosing between two, copying, casting, and writing into a buffer that exists.

use super::transposed::Transposed;
use super::{CHUNK, Half, finish, map1, source, with_dtype};
use crate::launch::{Out, launch, storage};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::strided::{BLOCK, Scratch, Walk};
use crate::threads::for_ranges;
use gradus_core::backend::{View, WriteMode};
use gradus_core::{Buffer, DType, Element, Layout, Result};
use half::{bf16, f16};

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
    if let Some(transposed) = Transposed::of(x) {
        return match x.dtype.size() {
            1 => transposed.copy::<u8, 64>(x),
            2 => transposed.copy::<u16, 32>(x),
            4 => transposed.copy::<u32, 16>(x),
            _ => transposed.copy::<u64, 8>(x),
        };
    }
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
