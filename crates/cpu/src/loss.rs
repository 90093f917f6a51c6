//! Fused softmax cross-entropy: one pass for the loss, keeping ln Σ e^x of each row; one for the gradient.

use crate::elementwise::finish;
use crate::lanes::{LANES, folded, map, put, total, whole};
use crate::launch::{In, Out, fail, failure, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::norm::row_sum;
use crate::simd::vectorized;
use crate::softmax::{for_row_ranges, row_exp, row_max};
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::loss::{CrossEntropy, CrossEntropyGrad, Reduction};
use gradus_core::{DType, Element, Error, Meta, Result, Shape};

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, CrossEntropy>| {
        if c.x.len() > 2 || c.op.smoothing != 0.0 || !dense(c.x) {
            return Ok(None); // class weights and smoothing: by definition
        }
        match c.x[0].dtype {
            DType::F32 => forward::<f32>(*c.op, c.x, c.outputs[0], f32::NEG_INFINITY),
            DType::F64 => forward::<f64>(*c.op, c.x, c.outputs[0], f64::NEG_INFINITY),
            _ => Ok(None),
        }
    });
    table.register(|c: FusedCall<'_, CrossEntropyGrad>| {
        if c.x.len() > 5
            || c.op.0.smoothing != 0.0
            || !dense(&c.x[1..])
            || c.x[0].layout.strides().first().is_some_and(|&s| s < 0)
        {
            return Ok(None);
        }
        match c.x[1].dtype {
            DType::F32 => backward::<f32>(c.op.0, c.x),
            DType::F64 => backward::<f64>(c.op.0, c.x),
            _ => Ok(None),
        }
    });
}

fn dense(x: &[View<'_>]) -> bool {
    x.iter().all(|v| v.layout.is_dense()) && x[0].elements() > 0
}

/// The target's class, if the row counts.
#[inline(always)]
fn class(target: i64, ignore: i64, classes: usize) -> Option<usize> {
    usize::try_from(target).ok().filter(|&t| t < classes && target != ignore)
}

/// Notes a target that is no class as a failure: on the launching thread, where failures are noted.
fn check(targets: &[i64], op: CrossEntropy, classes: usize) {
    for (row, &t) in targets.iter().enumerate() {
        if (t < 0 || t as usize >= classes) && t != op.ignore {
            fail(Error::misuse(format!("target {t} of row {row} is not a class: there are {classes}")));
        }
    }
}

vectorized! {
    /// The losses of rows of logits, and ln Σ e^x of each.
    fn row_losses<T: Float>(x: &[T], classes: usize, targets: &[i64], ignore: i64, low: T, losses: &mut [T], lse: &mut [T]) {
        for (r, (sum, most)) in losses.iter_mut().zip(lse.iter_mut()).enumerate() {
            (*most, *sum) = max_and_sum::<T, FMA>(&x[r * classes..], classes, low);
        }
        // All logarithms at once.
        for sum in losses.iter_mut() { *sum = sum.ln(); }
        for (r, (loss, lse)) in losses.iter_mut().zip(lse).enumerate() {
            let (log, max) = (*loss, *lse);
            *lse = max + log;
            *loss = class(targets[r], ignore, classes).map_or(T::ZERO, |t| (max - x[r * classes + t]) + log);
        }
    }
    /// The gradients of rows of logits: (e^(x − lse) − [its class])·g, with a g for each row or, at a `step` of 0, one for all.
    fn row_grads<T: Float>(x: &[T], classes: usize, targets: &[i64], ignore: i64, lse: &[T], g: &[T], step: usize, divisor: T, dx: &mut [T]) {
        for (r, (&target, &lse)) in targets.iter().zip(lse).enumerate() {
            let (x, dx) = (&x[r * classes..], &mut dx[r * classes..]);
            let Some(class) = class(target, ignore, classes) else {
                dx[..classes].fill(T::ZERO);
                continue;
            };
            let g = g[r * step] / divisor;
            if classes <= LANES {
                let (mut spare, mut y) = ([T::ZERO; LANES], [T::ZERO; LANES]);
                let x = whole(x, &mut spare);
                for i in 0..LANES { y[i] = (x[i] - lse).exp_share::<FMA>() * g; }
                put(y, classes, dx);
            } else {
                map(&x[..classes], &mut dx[..classes], |x| (x - lse).exp_share::<FMA>() * g);
            }
            dx[class] = dx[class] - g;
        }
    }
}

/// The largest number of a row of `n`, and Σ e^(x − max). (Of NaN both as [`row_max`] and [`row_exp`] have it.)
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
fn max_and_sum<T: Float, const FMA: bool>(x: &[T], n: usize, low: T) -> (T, T) {
    if n > LANES {
        let (x, mut e, mut sum) = (&x[..n], [T::ZERO; 256], T::ZERO);
        let max = row_max(x, low);
        for part in x.chunks(e.len()) {
            sum = sum + row_exp(part, max, &mut e[..part.len()]);
        }
        return (max, sum);
    }
    let (mut spare, mut most, mut e) = ([T::ZERO; LANES], [low; LANES], [T::ZERO; LANES]);
    let x = whole(x, &mut spare);
    for i in 0..LANES {
        let y = if x[i] > low { x[i] } else { low };
        most[i] = if i < n { y } else { low };
    }
    let max = folded(most, |a, b| if b > a { b } else { a });
    for i in 0..LANES {
        let y = (x[i] - max).exp_share::<FMA>();
        e[i] = if i < n { y } else { T::ZERO };
    }
    (max, total(e))
}

fn forward<T: Float + Element>(op: CrossEntropy, x: &[View<'_>], out: Meta, low: T) -> Result<Option<Fused>> {
    let (rows, classes) = (x[0].shape()[0], x[0].shape()[1]);
    let (sx, st) = (storage(x[0].buffer)?, storage(x[1].buffer)?);
    let (size, whole) = (size_of::<T>(), op.reduction != Reduction::None);
    let (losses, lse, total) = (CpuStorage::new(rows * size)?, CpuStorage::new(rows * size)?, CpuStorage::new(size)?);
    let (logits, targets, y, kept) = (In::<T>::of(sx), In::<i64>::of(st), Out::<T>::of(&losses), Out::<T>::of(&lse));
    let (ox, ot, scalar) = (x[0].layout.offset(), x[1].layout.offset(), Out::<T>::of(&total));
    let divisor = CpuStorage::new(size)?;
    let count = Out::<T>::of(&divisor);
    launch(&[sx, st], &[&losses, &lse, &total, &divisor], move || {
        let targets = &targets.slice()[ot..ot + rows];
        check(targets, op, classes);
        for_row_ranges(rows, classes, 1200, |part| {
            let (x, n) = (&logits.slice()[ox + part.start * classes..], part.len());
            let (losses, lse) = (y.part(part.start, n), kept.part(part.start, n));
            row_losses(x, classes, &targets[part], op.ignore, low, losses, lse);
        });
        let n = targets.iter().filter(|&&t| t != op.ignore).count();
        count.slice()[0] = if op.reduction == Reduction::Mean { T::from_f64(n as f64) } else { T::ONE };
        if whole {
            scalar.slice()[0] = row_sum(y.slice()) / count.slice()[0];
        }
    });
    failure()?;
    let stat = Meta::new(out.dtype, *x[1].shape());
    let fused = Fused::one(finish(if whole { total } else { losses })?);
    Ok(Some(fused.keep(stat, finish(lse)?).keep(Meta::new(out.dtype, Shape::SCALAR), finish(divisor)?)))
}

fn backward<T: Float>(op: CrossEntropy, x: &[View<'_>]) -> Result<Option<Fused>> {
    let (rows, classes) = (x[1].shape()[0], x[1].shape()[1]);
    let (sg, sx, st, sl) = (storage(x[0].buffer)?, storage(x[1].buffer)?, storage(x[2].buffer)?, storage(x[3].buffer)?);
    let to = CpuStorage::new(rows * classes * size_of::<T>())?;
    let (g, logits, targets, lse, out) =
        (In::<T>::of(sg), In::<T>::of(sx), In::<i64>::of(st), In::<T>::of(sl), Out::<T>::of(&to));
    // One gradient for each row, or one for all.
    let (og, gs) = (x[0].layout.offset(), x[0].layout.strides().first().map_or(0, |&s| s as usize));
    let (sd, od) = (storage(x[4].buffer)?, x[4].layout.offset());
    let divisor = In::<T>::of(sd);
    let (ox, ot, ol) = (x[1].layout.offset(), x[2].layout.offset(), x[3].layout.offset());
    launch(&[sg, sx, st, sl, sd], &[&to], move || {
        let targets = &targets.slice()[ot..ot + rows];
        for_row_ranges(rows, classes, 900, |part| {
            let (x, lse) = (&logits.slice()[ox + part.start * classes..], &lse.slice()[ol + part.start..]);
            let (g, dx) = (&g.slice()[og + part.start * gs..], out.part(part.start * classes, part.len() * classes));
            row_grads(x, classes, &targets[part], op.ignore, lse, g, gs, divisor.slice()[od], dx);
        });
    });
    Ok(Some(Fused::one(finish(to)?)))
}
