//! Fused softmax cross-entropy: one pass for the loss, keeping ln Σ e^x of each row; one for the gradient.

use crate::elementwise::finish;
use crate::lanes::{LANES, map};
use crate::launch::{In, Out, fail, failure, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::norm::row_sum;
use crate::simd::vectorized;
use crate::softmax::{for_rows, row_exp, row_max};
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::loss::{CrossEntropy, CrossEntropyGrad, Reduction};
use gradus_core::{DType, Error, Meta, Result, Shape};

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

/// The target's class, if the row counts; a class that does not exist is noted as a failure.
#[inline(always)]
fn class(target: i64, op: CrossEntropy, row: usize, classes: usize) -> Option<usize> {
    if target == op.ignore {
        return None;
    }
    let class = usize::try_from(target).ok().filter(|&t| t < classes);
    if class.is_none() {
        fail(Error::misuse(format!("target {target} of row {row} is not a class: there are {classes}")));
    }
    class
}

/// Checks every target on the launching thread, where failures are noted.
fn check(targets: &[i64], op: CrossEntropy, classes: usize) {
    for (row, &t) in targets.iter().enumerate() {
        if (t < 0 || t as usize >= classes) && t != op.ignore {
            class(t, op, row, classes);
        }
    }
}

fn forward<T: Float>(op: CrossEntropy, x: &[View<'_>], out: Meta, low: T) -> Result<Option<Fused>> {
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
        for_rows(rows, classes, 1200, |r| {
            let x = &logits.slice()[ox + r * classes..][..classes];
            let max = row_max(x, low);
            let mut sum = T::ZERO;
            // Blocks as long as the row needs, so that short ones clear little.
            if classes <= LANES {
                sum = row_exp(x, max, &mut [T::ZERO; LANES]);
            } else {
                let mut e = [T::ZERO; 256];
                for part in x.chunks(e.len()) {
                    sum = sum + row_exp(part, max, &mut e[..part.len()]);
                }
            }
            let log = sum.ln();
            kept.part(r, 1)[0] = max + log;
            let class = usize::try_from(targets[r]).ok().filter(|&t| t < classes && targets[r] != op.ignore);
            y.part(r, 1)[0] = class.map_or(T::ZERO, |t| (max - x[t]) + log);
        });
        // A sum of ones: exact while the float counts, which is as far as PyTorch's goes.
        let n = targets.iter().filter(|&&t| t != op.ignore).fold(T::ZERO, |n, _| n + T::ONE);
        count.slice()[0] = if op.reduction == Reduction::Mean { n } else { T::ONE };
        if whole {
            scalar.slice()[0] = row_sum(y.slice()) / count.slice()[0];
        }
    });
    failure()?;
    let stat = Meta::new(out.dtype, *x[1].shape());
    let fused = Fused::one(finish(if whole { total } else { losses })?);
    Ok(Some(fused.keep(stat, finish(lse)?).keep(Meta::new(out.dtype, Shape::SCALAR), finish(divisor)?)))
}

vectorized! {
    fn row_grad<T: Float>(x: &[T], lse: T, g: T, dx: &mut [T]) {
        map(x, dx, |x| (x - lse).exp() * g);
    }
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
        for_rows(rows, classes, 900, |r| {
            let dx = out.part(r * classes, classes);
            let class = usize::try_from(targets[r]).ok().filter(|&t| t < classes && targets[r] != op.ignore);
            let Some(class) = class else { return dx.fill(T::ZERO) };
            let g = g.slice()[og + r * gs] / divisor.slice()[od];
            row_grad(&logits.slice()[ox + r * classes..][..classes], lse.slice()[ol + r], g, dx);
            dx[class] = dx[class] - g;
        });
    });
    Ok(Some(Fused::one(finish(to)?)))
}
