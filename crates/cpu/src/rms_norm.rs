//! Fused root-mean-square normalization: forward keeps rstd of each row; backward gives the gradients of input and weight.

use crate::elementwise::finish;
use crate::lanes::sums;
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::norm::{Number, kind};
use crate::simd::vectorized;
use crate::softmax::for_rows;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::rms_norm::{RmsNorm, RmsNormGrad};
use gradus_core::{DType, Meta, Result, Shape};
use smallvec::smallvec;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, RmsNorm>| match kind(c.x) {
        Some(DType::F32) => forward::<f32>(c.op.eps as f32, c.x, c.outputs[0]),
        Some(DType::F64) => forward::<f64>(c.op.eps, c.x, c.outputs[0]),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, RmsNormGrad>| match kind(c.x) {
        Some(DType::F32) => backward::<f32>(c.x),
        Some(DType::F64) => backward::<f64>(c.x),
        _ => Ok(None),
    });
}

vectorized! {
    fn row_dot<T: Float>(x: &[T]) -> T {
        sums([x], |[x]| [x * x])[0]
    }
    fn row_scale<T: Float>(x: &[T], rstd: T, w: &[T], y: &mut [T]) {
        if w.is_empty() {
            for (y, &x) in y.iter_mut().zip(x) { *y = x * rstd; }
        } else {
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) { *y = x * rstd * w; }
        }
    }
    /// Σ g·w·x of a row.
    fn row_along<T: Float>(g: &[T], w: &[T], x: &[T]) -> T {
        sums([g, w, x], |[g, w, x]| [g * w * x])[0]
    }
    /// dx = (g·w − x·along)·rstd, and g·x·rstd added to dw.
    fn row_grad<T: Float>(g: &[T], x: &[T], w: &[T], rstd: T, along: T, dx: &mut [T], dw: &mut [T]) {
        for ((((d, &g), &x), &w), dw) in dx.iter_mut().zip(g).zip(x).zip(w).zip(dw) {
            *d = (g * w - x * along) * rstd;
            *dw = *dw + g * (x * rstd);
        }
    }
}

fn forward<T: Number>(eps: T, x: &[View<'_>], out: Meta) -> Result<Option<Fused>> {
    let (rows, width) = (x[0].shape()[0], x[0].shape()[1]);
    let size = size_of::<T>();
    let (ty, tr) = (CpuStorage::new(rows * width * size)?, CpuStorage::new(rows * size)?);
    let (sx, sw) = (storage(x[0].buffer)?, storage(x.get(1).unwrap_or(&x[0]).buffer)?);
    let (values, weight, weighted) = (In::<T>::of(sx), In::<T>::of(sw), x.len() > 1);
    let (ox, ow) = (x[0].layout.offset(), x.get(1).map_or(0, |w| w.layout.offset()));
    let (y, rstd) = (Out::<T>::of(&ty), Out::<T>::of(&tr));
    launch(&[sx, sw], &[&ty, &tr], move || {
        let w = if weighted { &weight.slice()[ow..ow + width] } else { &[] };
        for_rows(rows, width, 600, |r| {
            let x = &values.slice()[ox + r * width..][..width];
            let s = T::ONE / (row_dot(x) * T::reciprocal(width) + eps).sqrt();
            row_scale(x, s, w, y.part(r * width, width));
            rstd.part(r, 1)[0] = s;
        });
    });
    Ok(Some(Fused::one(finish(ty)?).keep(Meta::new(out.dtype, Shape::try_new(&[rows])?), finish(tr)?)))
}

fn backward<T: Number>(x: &[View<'_>]) -> Result<Option<Fused>> {
    let (rows, width) = (x[1].shape()[0], x[1].shape()[1]);
    let size = size_of::<T>();
    // Weight gradients are summed over fixed groups of rows, whose sums are then added in order.
    let group = 64usize;
    let groups = rows.div_ceil(group);
    let (tx, tw) = (CpuStorage::new(rows * width * size)?, CpuStorage::new(width * size)?);
    let partial = CpuStorage::new(groups * width * size)?;
    let [g, values, weight, kept] = [&x[0], &x[1], &x[2], &x[3]].map(|v| Ok((storage(v.buffer)?, v.layout.offset())));
    let [g, values, weight, kept] = [g?, values?, weight?, kept?];
    let reads = [g.0, values.0, weight.0, kept.0];
    let [g, values, weight, kept] = [g, values, weight, kept].map(|(s, at)| (In::<T>::of(s), at));
    let (dx, dw, sums) = (Out::<T>::of(&tx), Out::<T>::of(&tw), Out::<T>::of(&partial));
    launch(&reads, &[&tx, &tw, &partial], move || {
        for_chunks(groups, rows * width, |c| {
            let (w, sum) = (&weight.0.slice()[weight.1..][..width], sums.part(c * width, width));
            sum.fill(T::ZERO);
            for r in c * group..rows.min((c + 1) * group) {
                let (g, x) =
                    (&g.0.slice()[g.1 + r * width..][..width], &values.0.slice()[values.1 + r * width..][..width]);
                let rstd = kept.0.slice()[kept.1 + r];
                let along = row_along(g, w, x) * T::reciprocal(width) * rstd * rstd;
                row_grad(g, x, w, rstd, along, dx.part(r * width, width), sum);
            }
        });
        let total = dw.slice();
        total.fill(T::ZERO);
        for sum in sums.whole().chunks_exact(width) {
            total.iter_mut().zip(sum).for_each(|(o, &p)| *o = *o + p);
        }
    });
    Ok(Some(Fused { outputs: smallvec![finish(tx)?, finish(tw)?], ..Fused::default() }))
}
