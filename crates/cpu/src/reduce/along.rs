//! What goes along one dimension, row by row: the places of extremes, sorting, and scans.

use super::{Max, Min, SEGMENT, first_extreme};
use crate::elementwise::{finish, with_dtype};
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::strided::Walk;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::ops::{ArgReduceOp, ScanOp};
use gradus_core::{Buffer, DType, Result};
use half::{bf16, f16};
use std::sync::Arc;

/// The elements of each row along `dim`, handed to `row(x, y)` densely; rows lie in the order of the other dimensions.
fn along<T, Y>(
    x: View<'_>,
    dim: usize,
    out_len: usize,
    row: impl Fn(&[T], &mut [Y]) + Send + Sync + 'static,
) -> Result<Arc<CpuStorage>>
where
    T: Copy + Default + Send + Sync + 'static,
    Y: Copy + Default + Send + Sync + 'static,
{
    let n = x.shape()[dim];
    let mut order: Vec<usize> = (0..x.shape().rank()).filter(|&d| d != dim).collect();
    order.push(dim);
    let rows: usize = order[..order.len() - 1].iter().map(|&d| x.shape()[d]).product();
    let inner: usize = x.shape()[dim + 1..].iter().product();
    let (from, to) = (storage(x.buffer)?, CpuStorage::new(rows * out_len * size_of::<Y>())?);
    let (src, out, walk) = (In::<T>::of(from), Out::<Y>::of(&to), Walk::new(&x.layout.permute(&order)));
    let per_chunk = (SEGMENT / n.max(1)).max(1);
    launch(&[from], &[&to], move || {
        for_chunks(rows.div_ceil(per_chunk), rows * n * 4, |c| {
            let (mut buf, mut res) = (vec![T::default(); n], vec![Y::default(); out_len]);
            for r in c * per_chunk..rows.min((c + 1) * per_chunk) {
                let data = if walk.dense {
                    &src.slice()[walk.offset() + r * n..walk.offset() + (r + 1) * n]
                } else {
                    walk.gather(src.slice(), r * n, &mut buf);
                    &buf[..]
                };
                if inner == 1 {
                    row(data, out.part(r * out_len, out_len));
                } else {
                    row(data, &mut res);
                    let base = (r / inner) * out_len * inner + r % inner;
                    res.iter().enumerate().for_each(|(i, &v)| out.part(base + i * inner, 1)[0] = v);
                }
            }
        });
    });
    Ok(to)
}

/// A number's place in the total order that sorting and extremes use: NaN is the largest.
trait Ordered: Copy {
    fn less(self, other: Self) -> bool;
}
macro_rules! ordered {
    (float $($t:ty),*) => {$( impl Ordered for $t {
        #[inline(always)] fn less(self, o: Self) -> bool { self < o || (o.is_nan() && !self.is_nan()) }
    } )*};
    (int $($t:ty),*) => {$( impl Ordered for $t {
        #[inline(always)] fn less(self, o: Self) -> bool { self < o }
    } )*};
}
ordered!(float f16, bf16, f32, f64);
ordered!(int u8, u32, i32, i64);

pub(crate) fn arg_reduce(op: ArgReduceOp, x: View<'_>, dim: usize) -> Result<Buffer> {
    with_dtype!(x.dtype, T => {
        finish(match op {
            ArgReduceOp::Max => along::<T, i64>(x, dim, 1, |x, y| y[0] = first_extreme(Max, x) as i64),
            ArgReduceOp::Min => along::<T, i64>(x, dim, 1, |x, y| y[0] = first_extreme(Min, x) as i64),
        }?)
    })
}

pub(crate) fn argsort(x: View<'_>, dim: usize, descending: bool) -> Result<Buffer> {
    with_dtype!(x.dtype, T => {
        finish(along::<T, i64>(x, dim, x.shape()[dim], move |x, y| {
            y.iter_mut().enumerate().for_each(|(i, y)| *y = i as i64);
            y.sort_by(|&a, &b| {
                let (a, b) = if descending { (x[b as usize], x[a as usize]) } else { (x[a as usize], x[b as usize]) };
                if a.less(b) { std::cmp::Ordering::Less } else if b.less(a) { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Equal }
            });
        })?)
    })
}

pub(crate) fn scan(op: ScanOp, x: View<'_>, dim: usize) -> Result<Buffer> {
    let n = x.shape()[dim];
    macro_rules! run {
        ($t:ty, $a:ty, $y:ty, |$v:ident| $wide:expr, |$w:ident| $narrow:expr, $one:expr) => {
            finish(along::<$t, $y>(x, dim, n, move |x, y| {
                let mut acc: $a = if op == ScanOp::Sum { Default::default() } else { $one };
                for (y, &$v) in y.iter_mut().zip(x) {
                    let v: $a = $wide;
                    acc = if op == ScanOp::Sum { add(acc, v) } else { mul(acc, v) };
                    let $w = acc;
                    *y = $narrow;
                }
            })?)
        };
    }
    trait Arithmetic {
        fn add(self, o: Self) -> Self;
        fn mul(self, o: Self) -> Self;
    }
    impl Arithmetic for i64 {
        fn add(self, o: i64) -> i64 {
            self.wrapping_add(o)
        }
        fn mul(self, o: i64) -> i64 {
            self.wrapping_mul(o)
        }
    }
    impl<T: Float> Arithmetic for T {
        fn add(self, o: T) -> T {
            self + o
        }
        fn mul(self, o: T) -> T {
            self * o
        }
    }
    fn add<T: Arithmetic>(a: T, b: T) -> T {
        a.add(b)
    }
    fn mul<T: Arithmetic>(a: T, b: T) -> T {
        a.mul(b)
    }
    match x.dtype {
        // A running sum in f64 keeps its digits however long the row is.
        DType::F32 => run!(f32, f64, f32, |v| v as f64, |w| w as f32, 1.0),
        DType::F64 => run!(f64, f64, f64, |v| v, |w| w, 1.0),
        DType::F16 => run!(f16, f32, f16, |v| v.to_f32(), |w| f16::from_f32(w), 1.0),
        DType::Bf16 => run!(bf16, f32, bf16, |v| v.to_f32(), |w| bf16::from_f32(w), 1.0),
        DType::I64 => run!(i64, i64, i64, |v| v, |w| w, 1),
        DType::I32 => run!(i32, i64, i64, |v| v as i64, |w| w, 1),
        DType::U32 => run!(u32, i64, i64, |v| v as i64, |w| w, 1),
        DType::U8 | DType::Bool => run!(u8, i64, i64, |v| v as i64, |w| w, 1),
    }
}
