//! Fused root-mean-square normalization: forward keeps rstd of each row; backward gives the gradients of input and weight.
//! A residual is added row by row, as in [`crate::norm`].

use crate::dense::Dense;
use crate::elementwise::finish;
use crate::lanes::sums;
use crate::launch::{Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::norm::{Number, kind, row_add, row_add_to};
use crate::simd::vectorized;
use crate::softmax::for_rows;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::rms_norm::{AddRmsNorm, RmsNorm, RmsNormGrad};
use gradus_core::{DType, Meta, Result, Shape};
use smallvec::smallvec;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, RmsNorm>| match kind(c.x) {
        Some(DType::F32) => forward::<f32>(c.op.eps as f32, c.x[0], None, c.x.get(1)).map(Some),
        Some(DType::F64) => forward::<f64>(c.op.eps, c.x[0], None, c.x.get(1)).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, AddRmsNorm>| match kind(c.x) {
        Some(DType::F32) => forward::<f32>(c.op.eps as f32, c.x[0], Some(c.x[1]), c.x.get(2)).map(Some),
        Some(DType::F64) => forward::<f64>(c.op.eps, c.x[0], Some(c.x[1]), c.x.get(2)).map(Some),
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

fn forward<T: Number>(eps: T, x: View<'_>, residual: Option<View<'_>>, weight: Option<&View<'_>>) -> Result<Fused> {
    let (rows, width) = (x.shape()[0], x.shape()[1]);
    let (size, adds, weighted) = (size_of::<T>(), residual.is_some(), weight.is_some());
    let (ty, tr) = (CpuStorage::new(rows * width * size)?, CpuStorage::new(rows * size)?);
    let ts = CpuStorage::new(if adds { rows * width * size } else { 0 })?;
    let inputs = [x, residual.unwrap_or(x), *weight.unwrap_or(&x)];
    let views = Dense::<T>::all(&inputs)?;
    let reads = [storage(inputs[0].buffer)?, storage(inputs[1].buffer)?, storage(inputs[2].buffer)?];
    let (y, sum, rstd) = (Out::<T>::of(&ty), Out::<T>::of(&ts), Out::<T>::of(&tr));
    launch(&reads, &[&ty, &ts, &tr], move || {
        let w = if weighted { views[2].part(0, width) } else { &[] };
        for_rows(rows, width, 600, |r| {
            let mut x = views[0].part(r * width, width);
            if adds {
                let sum = sum.part(r * width, width);
                row_add(x, views[1].part(r * width, width), sum);
                x = sum;
            }
            let s = T::ONE / (row_dot(x) * T::reciprocal(width) + eps).sqrt();
            row_scale(x, s, w, y.part(r * width, width));
            rstd.part(r, 1)[0] = s;
        });
    });
    let mut fused = Fused::one(finish(ty)?);
    if adds {
        fused.outputs.push(finish(ts)?);
    }
    Ok(fused.keep(Meta::new(x.dtype, Shape::try_new(&[rows])?), finish(tr)?))
}

fn backward<T: Number>(x: &[View<'_>]) -> Result<Option<Fused>> {
    let (rows, width) = (x[1].shape()[0], x[1].shape()[1]);
    let size = size_of::<T>();
    // Weight gradients are summed over fixed groups of rows, whose sums are then added in order.
    let group = 64usize;
    let groups = rows.div_ceil(group);
    let (tx, tw) = (CpuStorage::new(rows * width * size)?, CpuStorage::new(width * size)?);
    let partial = CpuStorage::new(groups * width * size)?;
    let views = Dense::<T>::all(x)?;
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    let (dx, dw, sums) = (Out::<T>::of(&tx), Out::<T>::of(&tw), Out::<T>::of(&partial));
    launch(&reads, &[&tx, &tw, &partial], move || {
        for_chunks(groups, rows * width, |c| {
            let (w, sum) = (views[2].part(0, width), sums.part(c * width, width));
            sum.fill(T::ZERO);
            for r in c * group..rows.min((c + 1) * group) {
                let row = |i: usize| views[i].part(r * width, width);
                let (g, x, dx, rstd) = (row(0), row(1), dx.part(r * width, width), views[3].part(r, 1)[0]);
                let along = row_along(g, w, x) * T::reciprocal(width) * rstd * rstd;
                row_grad(g, x, w, rstd, along, dx, sum);
                if views.len() > 4 {
                    row_add_to(row(4), dx);
                }
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
