//! Reductions, in an order fixed by the shape alone; what goes along one dimension (extremes' places, sorting, scans) is in
//! `along`, and what goes over several tensors at once in `several`.
//!
//! The view is turned so that the reduced dimensions come last. If they (or what is kept) are dense innermost, rows are
//! folded with many lanes at once; a long row is cut into segments of [`SEGMENT`] elements, whose results are folded in order.

mod along;
mod several;

pub(crate) use along::{arg_reduce, argsort, scan};
pub(crate) use several::register;

use crate::elementwise::{finish, refused};
use crate::launch::{In, Out, launch, storage};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::strided::Walk;
use crate::threads::for_chunks;
use gradus_core::backend::{Dims, View};
use gradus_core::ops::ReduceOp;
use gradus_core::shape::MAX_RANK;
use gradus_core::{Buffer, DType, Result};
use half::{bf16, f16};
use smallvec::{SmallVec, smallvec};

/// Elements that are folded in one go.
const SEGMENT: usize = 16 * 1024;
/// Partial results that a fold of a row keeps: enough for the latency of the widest vectors.
const LANES: usize = 32;
/// Columns that are folded side by side ...
const COLUMNS: usize = 16;
/// ... over so many rows at a time.
const ROWS: usize = 8;

/// How elements of `T` fold into an `A`.
trait Fold<T>: Copy + Send + Sync + 'static {
    type A: Copy + Default + Send + Sync + 'static;
    fn start(self) -> Self::A;
    fn step(self, a: Self::A, x: T) -> Self::A;
    fn join(self, a: Self::A, b: Self::A) -> Self::A;
    /// Whether `plain_step` is quicker than `step`.
    const PLAIN: bool = false;
    /// A step with the same result unless an element is [`odd`](Fold::odd).
    #[inline(always)]
    fn plain_step(self, a: Self::A, x: T) -> Self::A {
        self.step(a, x)
    }
    /// Whether `plain_step` must not be used.
    #[inline(always)]
    fn odd(self, _x: T) -> bool {
        false
    }
}

#[derive(Clone, Copy)]
struct Sum;
#[derive(Clone, Copy)]
struct Prod;
#[derive(Clone, Copy)]
struct Max;
#[derive(Clone, Copy)]
struct Min;
#[derive(Clone, Copy)]
struct Any;
#[derive(Clone, Copy)]
struct All;

macro_rules! float_folds {
    ($($t:ty),*) => {$(
        impl Fold<$t> for Sum {
            type A = $t;
            #[inline(always)] fn start(self) -> $t { 0.0 }
            #[inline(always)] fn step(self, a: $t, x: $t) -> $t { a + x }
            #[inline(always)] fn join(self, a: $t, b: $t) -> $t { a + b }
        }
        impl Fold<$t> for Prod {
            type A = $t;
            #[inline(always)] fn start(self) -> $t { 1.0 }
            #[inline(always)] fn step(self, a: $t, x: $t) -> $t { a * x }
            #[inline(always)] fn join(self, a: $t, b: $t) -> $t { a * b }
        }
        impl Fold<$t> for Max {
            type A = $t;
            #[inline(always)] fn start(self) -> $t { <$t>::NEG_INFINITY }
            #[inline(always)] fn step(self, a: $t, x: $t) -> $t { if x > a || x.is_nan() { x } else { a } }
            #[inline(always)] fn join(self, a: $t, b: $t) -> $t { if a.is_nan() { a } else { self.step(a, b) } }
            const PLAIN: bool = true; // one instruction
            #[inline(always)] fn plain_step(self, a: $t, x: $t) -> $t { if x > a { x } else { a } }
            #[inline(always)] fn odd(self, x: $t) -> bool { x.is_nan() }
        }
        impl Fold<$t> for Min {
            type A = $t;
            #[inline(always)] fn start(self) -> $t { <$t>::INFINITY }
            #[inline(always)] fn step(self, a: $t, x: $t) -> $t { if x < a || x.is_nan() { x } else { a } }
            #[inline(always)] fn join(self, a: $t, b: $t) -> $t { if a.is_nan() { a } else { self.step(a, b) } }
            const PLAIN: bool = true; // one instruction
            #[inline(always)] fn plain_step(self, a: $t, x: $t) -> $t { if x < a { x } else { a } }
            #[inline(always)] fn odd(self, x: $t) -> bool { x.is_nan() }
        }
    )*};
}
float_folds!(f32, f64);

macro_rules! int_folds {
    ($($t:ty),*) => {$(
        impl Fold<$t> for Sum {
            type A = i64;
            #[inline(always)] fn start(self) -> i64 { 0 }
            #[inline(always)] fn step(self, a: i64, x: $t) -> i64 { a.wrapping_add(x as i64) }
            #[inline(always)] fn join(self, a: i64, b: i64) -> i64 { a.wrapping_add(b) }
        }
        impl Fold<$t> for Prod {
            type A = i64;
            #[inline(always)] fn start(self) -> i64 { 1 }
            #[inline(always)] fn step(self, a: i64, x: $t) -> i64 { a.wrapping_mul(x as i64) }
            #[inline(always)] fn join(self, a: i64, b: i64) -> i64 { a.wrapping_mul(b) }
        }
        impl Fold<$t> for Max {
            type A = $t;
            #[inline(always)] fn start(self) -> $t { <$t>::MIN }
            #[inline(always)] fn step(self, a: $t, x: $t) -> $t { a.max(x) }
            #[inline(always)] fn join(self, a: $t, b: $t) -> $t { a.max(b) }
        }
        impl Fold<$t> for Min {
            type A = $t;
            #[inline(always)] fn start(self) -> $t { <$t>::MAX }
            #[inline(always)] fn step(self, a: $t, x: $t) -> $t { a.min(x) }
            #[inline(always)] fn join(self, a: $t, b: $t) -> $t { a.min(b) }
        }
    )*};
}
int_folds!(u8, u32, i32, i64);

macro_rules! truth_folds {
    ($($t:ty),*) => {$(
        impl Fold<$t> for Any {
            type A = u8;
            #[inline(always)] fn start(self) -> u8 { 0 }
            #[inline(always)] fn step(self, a: u8, x: $t) -> u8 { a | (x != <$t>::default()) as u8 }
            #[inline(always)] fn join(self, a: u8, b: u8) -> u8 { a | b }
        }
        impl Fold<$t> for All {
            type A = u8;
            #[inline(always)] fn start(self) -> u8 { 1 }
            #[inline(always)] fn step(self, a: u8, x: $t) -> u8 { a & (x != <$t>::default()) as u8 }
            #[inline(always)] fn join(self, a: u8, b: u8) -> u8 { a & b }
        }
    )*};
}
truth_folds!(u8, u32, i32, i64, f16, bf16, f32, f64);

/// Halves fold as the `f32` that they widen to.
macro_rules! half_folds {
    ($($f:ident),* ; $t:ty) => {$(
        impl Fold<$t> for $f {
            type A = f32;
            #[inline(always)] fn start(self) -> f32 { <$f as Fold<f32>>::start(self) }
            #[inline(always)] fn step(self, a: f32, x: $t) -> f32 { <$f as Fold<f32>>::step(self, a, x.to_f32()) }
            #[inline(always)] fn join(self, a: f32, b: f32) -> f32 { <$f as Fold<f32>>::join(self, a, b) }
            const PLAIN: bool = <$f as Fold<f32>>::PLAIN;
            #[inline(always)] fn plain_step(self, a: f32, x: $t) -> f32 { <$f as Fold<f32>>::plain_step(self, a, x.to_f32()) }
            #[inline(always)] fn odd(self, x: $t) -> bool { <$f as Fold<f32>>::odd(self, x.to_f32()) }
        }
    )*};
}
half_folds!(Sum, Prod, Max, Min; f16);
half_folds!(Sum, Prod, Max, Min; bf16);

/// The lanes of [`fold_row`] by plain steps; `None` if an element is odd.
#[inline(always)]
fn plain_lanes<T: Copy, F: Fold<T>>(f: F, chunks: std::slice::ChunksExact<'_, T>) -> Option<[F::A; LANES]> {
    let (mut lanes, mut odd) = ([f.start(); LANES], [0u32; LANES]);
    for c in chunks {
        for ((l, odd), &x) in lanes.iter_mut().zip(&mut odd).zip(c) {
            *l = f.plain_step(*l, x);
            *odd |= u32::from(f.odd(x));
        }
    }
    odd.iter().all(|&odd| odd == 0).then_some(lanes)
}

vectorized! {
    /// Folds a dense row: lane by lane, then the lanes in order, then the rest.
    fn fold_row<T: Copy, F: FoldOf<T>>(f: F, x: &[T]) -> F::A {
        let mut lanes = [f.start(); LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        if F::PLAIN && let Some(plain) = plain_lanes(f, chunks.clone()) {
            lanes = plain;
        } else {
            for c in chunks {
                for (l, &x) in lanes.iter_mut().zip(c) {
                    *l = f.step(*l, x);
                }
            }
        }
        for (l, &x) in lanes.iter_mut().zip(rest) {
            *l = f.step(*l, x);
        }
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] = f.join(lanes[i], lanes[i + width]);
            }
            width /= 2;
        }
        lanes[0]
    }
    /// The place of the first of a row's extremes, which are what `f` folds the row to; of the first NaN, if there is one.
    fn first_extreme<T: Copy, F: ExtremeOf<T>>(f: F, x: &[T]) -> usize {
        let best = fold_row(f, x);
        let is = |x: T| f.odd(x) | (f.step(f.start(), x) == best);
        // A block at a time: a search that may end anywhere is not vectorized.
        let (chunks, _) = x.as_chunks::<LANES>();
        let found = chunks.iter().position(|c| c.iter().fold(false, |any, &x| any | is(x)));
        let from = found.unwrap_or(chunks.len()) * LANES;
        from + x[from..].iter().position(|&x| is(x)).unwrap_or(0)
    }
    /// Folds `count` rows of elements, `step` apart from `at` on, into one accumulator for each column. A few rows at a time, so
    /// that accumulators do not go through memory for each.
    fn fold_columns<T: Copy, F: FoldOf<T>>(f: F, acc: &mut [[F::A; COLUMNS]], x: &[T], at: isize, step: isize, count: usize) {
        for first in (0..count).step_by(ROWS) {
            let end = count.min(first + ROWS);
            for (b, acc) in acc.iter_mut().enumerate() {
                let from = |r: usize| &x[(at + r as isize * step) as usize + b * COLUMNS..];
                let (mut r, mut sums) = (first, *acc);
                // What lies beyond the last column is folded, too, into what nobody reads.
                while r < end && let Some(x) = from(r).first_chunk::<COLUMNS>() {
                    for i in 0..COLUMNS { sums[i] = f.step(sums[i], x[i]); }
                    r += 1;
                }
                *acc = sums;
                for r in r..end {
                    for (sum, &x) in acc.iter_mut().zip(from(r)) { *sum = f.step(*sum, x); }
                }
            }
        }
    }
}

/// [`Fold`] under a name that the vectorizing macro can take as a bound.
trait FoldOf<T>: Fold<T> {}
impl<T, F: Fold<T>> FoldOf<T> for F {}

/// A [`Fold`] that gives one of the elements.
trait ExtremeOf<T>: Fold<T, A: PartialEq> {}
impl<T> ExtremeOf<T> for Max where Max: Fold<T, A: PartialEq> {}
impl<T> ExtremeOf<T> for Min where Min: Fold<T, A: PartialEq> {}

/// A reduction's geometry: the kept dimensions as `outer`, then the reduced ones as `rows` of `inner` kept-or-reduced elements.
struct Turned {
    layout: gradus_core::Layout,
    kept: usize,
    reduced: usize,
    /// Elements of the last kept dimensions lie densely side by side, and the reduced ones do not.
    columns: Option<usize>,
}

fn turn(x: View<'_>, dims: Dims) -> Turned {
    let rank = x.shape().rank();
    let order = |first: bool| (0..rank).filter(move |&d| dims.has(d) != first);
    // The reduced dimensions often come last as it is: all of them, above all.
    let layout = if order(true).eq(0..rank - order(false).count()) {
        *x.layout
    } else {
        x.layout.permute(&order(true).chain(order(false)).collect::<SmallVec<[usize; MAX_RANK]>>())
    };
    let reduced: usize = order(false).map(|d| x.shape()[d]).product();
    let kept: usize = order(true).map(|d| x.shape()[d]).product();
    // The kept dimensions that end the original order and are dense there can be folded side by side.
    let mut width = 1usize;
    for d in (0..rank).rev() {
        if x.shape()[d] == 1 {
            continue;
        }
        if dims.has(d) || x.layout.strides()[d] != width as isize {
            break;
        }
        width *= x.shape()[d];
    }
    let columns = (width >= 4 && reduced > 1).then_some(width);
    Turned { layout, kept, reduced, columns }
}

/// Reduces `x`, turning each accumulator into an output element by `out`.
fn fold<T, F, Y>(
    x: View<'_>,
    dims: Dims,
    f: F,
    finish_one: impl Fn(F::A) -> Y + Copy + Send + Sync + 'static,
) -> Result<Buffer>
where
    T: Copy + Default + Send + Sync + 'static,
    F: Fold<T>,
    Y: Copy + Send + Sync + 'static,
{
    let n = x.elements();
    if dims.is_all(x.shape().rank()) && x.layout.is_dense() && (1..=SEGMENT).contains(&n) {
        // All of a small tensor, a loss above all: one segment of one row.
        let (from, to, at) = (storage(x.buffer)?, CpuStorage::new(size_of::<Y>())?, x.layout.offset());
        let (src, out) = (In::<T>::of(from), Out::<Y>::of(&to));
        launch(&[from], &[&to], move || {
            out.slice()[0] = finish_one(f.join(f.start(), fold_row(f, &src.slice()[at..at + n])));
        });
        return finish(to);
    }
    let Turned { layout, kept, reduced, columns } = turn(x, dims);
    let (from, to) = (storage(x.buffer)?, CpuStorage::new(kept * size_of::<Y>())?);
    let (src, out, walk) = (In::<T>::of(from), Out::<Y>::of(&to), Walk::new(&layout));
    let work = kept * reduced / 4;
    if reduced == 0 {
        launch(&[from], &[&to], move || out.slice().fill(finish_one(f.start())));
        return finish(to);
    }
    if let Some(width) = columns {
        launch(&[from], &[&to], move || by_columns(src, &walk, out, [kept, reduced, width], f, finish_one));
        return finish(to);
    }
    launch(&[from], &[&to], move || {
        let x = src.slice();
        if kept == 1 && reduced > SEGMENT {
            // One long row: its segments' results, folded in order.
            let segments = reduced.div_ceil(SEGMENT);
            let mut partial = vec![f.start(); segments];
            let parts = Shared::of(&mut partial);
            for_chunks(segments, work, |s| {
                let n = SEGMENT.min(reduced - s * SEGMENT);
                parts.set(s, fold_segment(f, x, &walk, s * SEGMENT, n));
            });
            out.slice()[0] = finish_one(partial.iter().fold(f.start(), |a, &b| f.join(a, b)));
            return;
        }
        let rows = (SEGMENT / reduced).max(1);
        for_chunks(kept.div_ceil(rows), work, |c| {
            for r in c * rows..kept.min((c + 1) * rows) {
                let mut acc = f.start();
                for s in (0..reduced).step_by(SEGMENT) {
                    acc = f.join(acc, fold_segment(f, x, &walk, r * reduced + s, SEGMENT.min(reduced - s)));
                }
                out.part(r, 1)[0] = finish_one(acc);
            }
        });
    });
    finish(to)
}

/// A slice whose disjoint parts several chunks write.
pub(crate) struct Shared<T>(*mut T, usize);
// SAFETY: each chunk writes a part of its own of a slice that outlives the loop.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}
impl<T> Shared<T> {
    pub(crate) fn of(x: &mut [T]) -> Shared<T> {
        Shared(x.as_mut_ptr(), x.len())
    }
    /// Elements `start..start + len`; parts alive at the same time must not overlap.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start + len <= self.1);
        // SAFETY: inside the slice; the caller's chunks take disjoint parts.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
    fn set(&self, i: usize, x: T) {
        self.part(i, 1)[0] = x;
    }
}

#[inline]
fn fold_segment<T: Copy + Default, F: Fold<T>>(f: F, x: &[T], walk: &Walk, start: usize, len: usize) -> F::A {
    if walk.dense {
        let at = walk.offset() + start;
        return fold_row(f, &x[at..at + len]);
    }
    let mut scratch = vec![T::default(); len];
    walk.gather(x, start, &mut scratch);
    fold_row(f, &scratch)
}

/// Kept elements that lie side by side: whole rows of them are folded into rows of accumulators.
fn by_columns<T, F, Y>(
    src: In<T>,
    walk: &Walk,
    out: Out<Y>,
    [kept, reduced, width]: [usize; 3],
    f: F,
    finish_one: impl Fn(F::A) -> Y + Copy + Send + Sync,
) where
    T: Copy + Default + Send + Sync + 'static,
    F: Fold<T>,
    Y: Copy + Send + Sync + 'static,
{
    let x = src.slice();
    // The walk's order is kept × reduced; the place of (k, r) is that of (k's group, 0, r) plus the column.
    let groups = kept / width;
    let strip = width.min(2048); // accumulators that stay in L1
    let strips = width.div_ceil(strip);
    // A tall reduction is cut into segments too, so that its length, not its threads, fixes the order.
    let tall = (SEGMENT / strip).max(64);
    let segments = reduced.div_ceil(tall);
    let mut partial: SmallVec<[F::A; 64]> = smallvec![f.start(); groups * width * segments];
    let parts = Shared::of(&mut partial);
    for_chunks(groups * strips * segments, kept * reduced / 4, |c| {
        let (g, rest) = (c / (strips * segments), c % (strips * segments));
        let (s, seg) = (rest / segments, rest % segments);
        let (c0, n) = (s * strip, strip.min(width - s * strip));
        let mut acc: SmallVec<[[F::A; COLUMNS]; 8]> = smallvec![[f.start(); COLUMNS]; n.div_ceil(COLUMNS)];
        let (r0, rn) = (seg * tall, tall.min(reduced - seg * tall));
        // The offsets of the reduced elements of the group's first column.
        walk.rows(g * width * reduced + r0, rn, |_, at, len, step| {
            fold_columns(f, &mut acc, x, at + c0 as isize, step, len);
        });
        parts.part((g * segments + seg) * width + c0, n).copy_from_slice(&acc.as_flattened()[..n]);
    });
    let y = out.slice();
    for (y, of_group) in y.chunks_exact_mut(width).zip(partial.chunks_exact_mut(segments * width)) {
        let (first, rest) = of_group.split_at_mut(width);
        first.iter_mut().for_each(|a| *a = f.join(f.start(), *a));
        for segment in rest.chunks_exact(width) {
            first.iter_mut().zip(segment).for_each(|(a, &b)| *a = f.join(*a, b));
        }
        y.iter_mut().zip(first).for_each(|(y, a)| *y = finish_one(*a));
    }
}

pub(crate) fn reduce(op: ReduceOp, x: View<'_>, dims: Dims) -> Result<Buffer> {
    let n = dims.count(x.shape());
    macro_rules! floats {
        ($t:ty, $w:ty, |$a:ident| $narrow:expr) => {
            match op {
                ReduceOp::Sum => fold::<$t, _, _>(x, dims, Sum, |$a| $narrow),
                ReduceOp::Mean => fold::<$t, _, _>(x, dims, Sum, move |a| {
                    let $a = a / n as $w;
                    $narrow
                }),
                ReduceOp::Prod => fold::<$t, _, _>(x, dims, Prod, |$a| $narrow),
                ReduceOp::Max => fold::<$t, _, _>(x, dims, Max, |$a| $narrow),
                ReduceOp::Min => fold::<$t, _, _>(x, dims, Min, |$a| $narrow),
                ReduceOp::Any => fold::<$t, _, _>(x, dims, Any, |a| a),
                ReduceOp::All => fold::<$t, _, _>(x, dims, All, |a| a),
            }
        };
    }
    macro_rules! ints {
        ($t:ty) => {
            match op {
                ReduceOp::Sum => fold::<$t, _, _>(x, dims, Sum, |a| a),
                ReduceOp::Prod => fold::<$t, _, _>(x, dims, Prod, |a| a),
                ReduceOp::Max => fold::<$t, _, _>(x, dims, Max, |a| a),
                ReduceOp::Min => fold::<$t, _, _>(x, dims, Min, |a| a),
                ReduceOp::Any => fold::<$t, _, _>(x, dims, Any, |a| a),
                ReduceOp::All => fold::<$t, _, _>(x, dims, All, |a| a),
                ReduceOp::Mean => Err(refused(op.name(), x.dtype)),
            }
        };
    }
    match x.dtype {
        DType::F32 => floats!(f32, f32, |a| a),
        DType::F64 => floats!(f64, f64, |a| a),
        DType::F16 => floats!(f16, f32, |a| f16::from_f32(a)),
        DType::Bf16 => floats!(bf16, f32, |a| bf16::from_f32(a)),
        DType::I64 => ints!(i64),
        DType::I32 => ints!(i32),
        DType::U32 => ints!(u32),
        DType::U8 | DType::Bool => ints!(u8),
    }
}
