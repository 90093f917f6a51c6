//! Fused softmax and log-softmax along the last dimension, forward and backward: three passes over a row that stays in L1.

use crate::elementwise::finish;
use crate::lanes::{LANES, folded, map, sums};
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::softmax::{LogSoftmax, LogSoftmaxGrad, Softmax, SoftmaxGrad};
use gradus_core::{DType, Result};
use std::ops::Range;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, Softmax>| forward(c.x, c.op.dim, false));
    table.register(|c: FusedCall<'_, LogSoftmax>| forward(c.x, c.op.dim, true));
    table.register(|c: FusedCall<'_, SoftmaxGrad>| backward(c.x, c.op.dim, false));
    table.register(|c: FusedCall<'_, LogSoftmaxGrad>| backward(c.x, c.op.dim, true));
}

/// Dense views of one float type whose last dimension is `dim`.
fn fits(x: &[View<'_>], dim: usize) -> bool {
    let d = x[0].dtype;
    matches!(d, DType::F32 | DType::F64)
        && dim + 1 == x[0].shape().rank()
        && x.iter().all(|v| v.layout.is_dense() && v.elements() > 0)
}

vectorized! {
    /// The largest of a row. NaN is passed over: it comes back in the sum of the row's exponentials.
    pub(crate) fn row_max<T: Float>(x: &[T], low: T) -> T {
        let mut most = [low; LANES];
        let (blocks, rest) = x.as_chunks::<LANES>();
        let mut last = [low; LANES];
        last[..rest.len()].copy_from_slice(rest);
        for block in blocks.iter().chain([&last]) {
            for i in 0..LANES {
                most[i] = if block[i] > most[i] { block[i] } else { most[i] };
            }
        }
        folded(most, |a, b| if b > a { b } else { a })
    }
    /// y = e^(x − max); gives Σ y, lane by lane.
    pub(crate) fn row_exp<T: Float>(x: &[T], max: T, y: &mut [T]) -> T {
        map(x, y, |x| (x - max).exp_share::<FMA>())
    }
    fn row_scale<T: Float>(y: &mut [T], by: T) {
        for y in y { *y = *y * by; }
    }
    /// y = (x − max) − log: in this order, so that large numbers keep the digits of their differences.
    fn row_log<T: Float>(x: &[T], max: T, log: T, y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = (x - max) - log; }
    }
    fn row_dot<T: Float>(a: &[T], b: &[T]) -> T {
        sums([a, b], |[a, b]| [a * b])[0]
    }
    fn row_softmax_grad<T: Float>(g: &[T], y: &[T], inner: T, dx: &mut [T]) {
        for ((d, &g), &y) in dx.iter_mut().zip(g).zip(y) { *d = y * (g - inner); }
    }
    fn row_log_grad<T: Float>(g: &[T], y: &[T], total: T, dx: &mut [T]) {
        for ((d, &g), &y) in dx.iter_mut().zip(g).zip(y) { *d = g - y.exp_share::<FMA>() * total; }
    }
}

/// Calls `row(r)` for every row, several rows to a chunk.
pub(crate) fn for_rows(rows: usize, width: usize, cost: usize, row: impl Fn(usize) + Send + Sync) {
    for_row_ranges(rows, width, cost, |rows| rows.for_each(&row));
}

/// Calls `some(rows)` for each chunk of rows.
pub(crate) fn for_row_ranges(rows: usize, width: usize, cost: usize, some: impl Fn(Range<usize>) + Send + Sync) {
    let per = (8192 / width.max(1)).max(1);
    for_chunks(rows.div_ceil(per), rows * width / 1000 * cost + 1, |c| some(c * per..rows.min((c + 1) * per)));
}

fn forward(x: &[View<'_>], dim: usize, log: bool) -> Result<Option<Fused>> {
    if !fits(x, dim) {
        return Ok(None);
    }
    match x[0].dtype {
        DType::F32 => forward_as::<f32>(x[0], log, f32::NEG_INFINITY),
        _ => forward_as::<f64>(x[0], log, f64::NEG_INFINITY),
    }
}

fn forward_as<T: Float>(x: View<'_>, log: bool, low: T) -> Result<Option<Fused>> {
    let (n, width) = (x.elements(), x.shape()[x.shape().rank() - 1]);
    let (from, to) = (storage(x.buffer)?, CpuStorage::new(n * size_of::<T>())?);
    let (src, out, offset) = (In::<T>::of(from), Out::<T>::of(&to), x.layout.offset());
    launch(&[from], &[&to], move || {
        for_rows(n / width, width, 1500, |r| {
            let x = &src.slice()[offset + r * width..][..width];
            let y = out.part(r * width, width);
            let max = row_max(x, low);
            let sum = row_exp(x, max, y);
            if log { row_log(x, max, sum.ln(), y) } else { row_scale(y, T::ONE / sum) }
        });
    });
    Ok(Some(Fused::one(finish(to)?)))
}

fn backward(x: &[View<'_>], dim: usize, log: bool) -> Result<Option<Fused>> {
    if !fits(x, dim) {
        return Ok(None);
    }
    match x[0].dtype {
        DType::F32 => backward_as::<f32>(x, log),
        _ => backward_as::<f64>(x, log),
    }
}

fn backward_as<T: Float>(x: &[View<'_>], log: bool) -> Result<Option<Fused>> {
    let (n, width) = (x[0].elements(), x[0].shape()[x[0].shape().rank() - 1]);
    let (sg, sy, to) = (storage(x[0].buffer)?, storage(x[1].buffer)?, CpuStorage::new(n * size_of::<T>())?);
    let (g, y, out) = (In::<T>::of(sg), In::<T>::of(sy), Out::<T>::of(&to));
    let (og, oy) = (x[0].layout.offset(), x[1].layout.offset());
    launch(&[sg, sy], &[&to], move || {
        let ones = vec![T::ONE; width];
        for_rows(n / width, width, 800, |r| {
            let (g, y) = (&g.slice()[og + r * width..][..width], &y.slice()[oy + r * width..][..width]);
            let dx = out.part(r * width, width);
            if log { row_log_grad(g, y, row_dot(g, &ones), dx) } else { row_softmax_grad(g, y, row_dot(g, y), dx) }
        });
    });
    Ok(Some(Fused::one(finish(to)?)))
}
