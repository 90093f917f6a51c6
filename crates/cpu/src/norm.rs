//! Fused layer normalization: forward keeps mean and rstd of each row; backward gives the gradients of input, weight and bias.

use crate::elementwise::finish;
use crate::lanes::sums;
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::softmax::for_rows;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::norm::{LayerNorm, LayerNormGrad};
use gradus_core::{DType, Meta, Result, Shape};
use smallvec::smallvec;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, LayerNorm>| match kind(c.x) {
        Some(DType::F32) => forward::<f32>(c.op.eps as f32, c.x, c.outputs[0]),
        Some(DType::F64) => forward::<f64>(c.op.eps, c.x, c.outputs[0]),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, LayerNormGrad>| match kind(c.x) {
        Some(DType::F32) => backward::<f32>(c.x, 1.0 / c.x[1].shape()[1] as f32),
        Some(DType::F64) => backward::<f64>(c.x, 1.0 / c.x[1].shape()[1] as f64),
        _ => Ok(None),
    });
}

/// The dtype, if all operands lie row-major and there is something to do.
pub(crate) fn kind(x: &[View<'_>]) -> Option<DType> {
    (x.iter().all(|v| v.layout.is_dense()) && x[0].elements() > 0).then_some(x[0].dtype)
}

vectorized! {
    pub(crate) fn row_sum<T: Float>(x: &[T]) -> T {
        sums([x], |[x]| [x])[0]
    }
    pub(crate) fn row_squares<T: Float>(x: &[T], mean: T) -> T {
        sums([x], |[x]| [(x - mean) * (x - mean)])[0]
    }
    pub(crate) fn row_normalize<T: Float>(x: &[T], mean: T, rstd: T, w: &[T], b: &[T], y: &mut [T]) {
        match (w.is_empty(), b.is_empty()) {
            (true, _) => for (y, &x) in y.iter_mut().zip(x) { *y = (x - mean) * rstd; },
            (_, true) => for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) { *y = (x - mean) * rstd * w; },
            _ => for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(w).zip(b) { *y = (x - mean) * rstd * w + b; },
        }
    }
    /// (Σ g·w, Σ g·w·x̂) of a row.
    pub(crate) fn row_moments<T: Float>(g: &[T], x: &[T], w: &[T], mean: T, rstd: T) -> (T, T) {
        let [s, p] = sums([g, x, w], |[g, x, w]| [g * w, g * w * ((x - mean) * rstd)]);
        (s, p)
    }
    pub(crate) fn row_dx<T: Float>(g: &[T], x: &[T], w: &[T], mean: T, rstd: T, m1: T, m2: T, dx: &mut [T]) {
        for (((d, &g), &x), &w) in dx.iter_mut().zip(g).zip(x).zip(w) {
            *d = (g * w - m1 - (x - mean) * rstd * m2) * rstd;
        }
    }
    pub(crate) fn row_dw<T: Float>(g: &[T], x: &[T], mean: T, rstd: T, dw: &mut [T], db: &mut [T]) {
        for (((dw, db), &g), &x) in dw.iter_mut().zip(db).zip(g).zip(x) {
            *dw = *dw + g * ((x - mean) * rstd);
            *db = *db + g;
        }
    }
}

/// A number of the float type; the widths and eps that kernels need are exact in both.
pub(crate) trait Number: Float {
    fn reciprocal(n: usize) -> Self;
}
impl Number for f32 {
    fn reciprocal(n: usize) -> f32 {
        1.0 / n as f32
    }
}
impl Number for f64 {
    fn reciprocal(n: usize) -> f64 {
        1.0 / n as f64
    }
}

fn forward<T: Number>(eps: T, x: &[View<'_>], out: Meta) -> Result<Option<Fused>> {
    let (rows, width) = (x[0].shape()[0], x[0].shape()[1]);
    let size = size_of::<T>();
    let (ty, tm, tr) =
        (CpuStorage::new(rows * width * size)?, CpuStorage::new(rows * size)?, CpuStorage::new(rows * size)?);
    let views =
        x.iter().map(|v| Ok((In::<T>::of(storage(v.buffer)?), v.layout.offset()))).collect::<Result<Vec<_>>>()?;
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    let (y, mean, rstd) = (Out::<T>::of(&ty), Out::<T>::of(&tm), Out::<T>::of(&tr));
    launch(&reads, &[&ty, &tm, &tr], move || {
        let vector = |i: usize| views.get(i).map_or(&[][..], |(v, at)| &v.slice()[*at..*at + width]);
        let (w, b) = (vector(1), vector(2));
        for_rows(rows, width, 800, |r| {
            let x = &views[0].0.slice()[views[0].1 + r * width..][..width];
            let m = row_sum(x) * T::reciprocal(width);
            let s = T::ONE / (row_squares(x, m) * T::reciprocal(width) + eps).sqrt();
            row_normalize(x, m, s, w, b, y.part(r * width, width));
            mean.part(r, 1)[0] = m;
            rstd.part(r, 1)[0] = s;
        });
    });
    let stat = Meta::new(out.dtype, Shape::try_new(&[rows])?);
    Ok(Some(Fused::one(finish(ty)?).keep(stat, finish(tm)?).keep(stat, finish(tr)?)))
}

fn backward<T: Number>(x: &[View<'_>], inverse: T) -> Result<Option<Fused>> {
    let (rows, width) = (x[1].shape()[0], x[1].shape()[1]);
    let size = size_of::<T>();
    let (tx, tw, tb) =
        (CpuStorage::new(rows * width * size)?, CpuStorage::new(width * size)?, CpuStorage::new(width * size)?);
    let views =
        x.iter().map(|v| Ok((In::<T>::of(storage(v.buffer)?), v.layout.offset()))).collect::<Result<Vec<_>>>()?;
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    let (dx, dw, db) = (Out::<T>::of(&tx), Out::<T>::of(&tw), Out::<T>::of(&tb));
    // Weight gradients are summed over fixed groups of rows, whose sums are then added in order.
    let group = 64usize;
    let groups = rows.div_ceil(group);
    launch(&reads, &[&tx, &tw, &tb], move || {
        let row = |i: usize, r: usize| &views[i].0.slice()[views[i].1 + r * width..][..width];
        let at = |i: usize, r: usize| views[i].0.slice()[views[i].1 + r];
        let mut partial = vec![T::ZERO; groups * 2 * width];
        let parts = crate::reduce::Shared::of(&mut partial);
        for_chunks(groups, rows * width, |c| {
            let (w, sums) = (row(2, 0), parts.part(c * 2 * width, 2 * width));
            let (sw, sb) = sums.split_at_mut(width);
            for r in c * group..rows.min((c + 1) * group) {
                let (g, x, m, s) = (row(0, r), row(1, r), at(3, r), at(4, r));
                let (m1, m2) = row_moments(g, x, w, m, s);
                row_dx(g, x, w, m, s, m1 * inverse, m2 * inverse, dx.part(r * width, width));
                row_dw(g, x, m, s, sw, sb);
            }
        });
        for (out, first) in [(dw.slice(), 0), (db.slice(), width)] {
            out.fill(T::ZERO);
            for c in 0..groups {
                out.iter_mut().zip(&partial[c * 2 * width + first..][..width]).for_each(|(o, &p)| *o = *o + p);
            }
        }
    });
    Ok(Some(Fused { outputs: smallvec![finish(tx)?, finish(tw)?, finish(tb)?], ..Fused::default() }))
}
