//! Fused layer normalization: forward keeps mean and rstd of each row; backward gives the gradients of input, weight and bias.
//! A residual is added row by row, while the row is in the nearest cache.

use crate::dense::Dense;
use crate::elementwise::finish;
use crate::lanes::sums;
use crate::launch::{Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::softmax::for_rows;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::norm::{AddLayerNorm, LayerNorm, LayerNormGrad};
use gradus_core::{DType, Meta, Result, Shape};
use smallvec::{SmallVec, smallvec};

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, LayerNorm>| match kind(c.x) {
        Some(DType::F32) => forward::<f32>(c.op.eps as f32, c.x[0], None, &c.x[1..]).map(Some),
        Some(DType::F64) => forward::<f64>(c.op.eps, c.x[0], None, &c.x[1..]).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, AddLayerNorm>| match kind(c.x) {
        Some(DType::F32) => forward::<f32>(c.op.eps as f32, c.x[0], Some(c.x[1]), &c.x[2..]).map(Some),
        Some(DType::F64) => forward::<f64>(c.op.eps, c.x[0], Some(c.x[1]), &c.x[2..]).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, LayerNormGrad>| match kind(c.x) {
        Some(DType::F32) => backward::<f32>(c.x, 1.0 / c.x[1].shape()[1] as f32),
        Some(DType::F64) => backward::<f64>(c.x, 1.0 / c.x[1].shape()[1] as f64),
        _ => Ok(None),
    });
}

/// The dtype, if all operands have it and lie row-major and there is something to do.
pub(crate) fn kind(x: &[View<'_>]) -> Option<DType> {
    let fits = |v: &View<'_>| v.layout.is_dense() && v.dtype == x[0].dtype;
    (x.iter().all(fits) && x[0].elements() > 0).then_some(x[0].dtype)
}

vectorized! {
    pub(crate) fn row_add<T: Float>(x: &[T], more: &[T], sum: &mut [T]) {
        for ((s, &x), &more) in sum.iter_mut().zip(x).zip(more) { *s = x + more; }
    }
    pub(crate) fn row_add_to<T: Float>(more: &[T], sum: &mut [T]) {
        for (s, &more) in sum.iter_mut().zip(more) { *s = *s + more; }
    }
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

fn forward<T: Number>(eps: T, x: View<'_>, residual: Option<View<'_>>, parameters: &[View<'_>]) -> Result<Fused> {
    let (rows, width) = (x.shape()[0], x.shape()[1]);
    let size = size_of::<T>();
    let (ty, tm, tr) =
        (CpuStorage::new(rows * width * size)?, CpuStorage::new(rows * size)?, CpuStorage::new(rows * size)?);
    let ts = CpuStorage::new(if residual.is_some() { rows * width * size } else { 0 })?;
    let inputs: SmallVec<[View<'_>; 4]> =
        [x, residual.unwrap_or(x)].into_iter().chain(parameters.iter().copied()).collect();
    let views = Dense::<T>::all(&inputs)?;
    let reads = inputs.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    let (adds, (y, sum, mean, rstd)) =
        (residual.is_some(), (Out::<T>::of(&ty), Out::<T>::of(&ts), Out::<T>::of(&tm), Out::<T>::of(&tr)));
    launch(&reads, &[&ty, &ts, &tm, &tr], move || {
        let vector = |i: usize| views.get(i).map_or(&[][..], |v| v.part(0, width));
        let (w, b) = (vector(2), vector(3));
        for_rows(rows, width, 800, |r| {
            let mut x = views[0].part(r * width, width);
            if adds {
                let sum = sum.part(r * width, width);
                row_add(x, views[1].part(r * width, width), sum);
                x = sum;
            }
            let m = row_sum(x) * T::reciprocal(width);
            let s = T::ONE / (row_squares(x, m) * T::reciprocal(width) + eps).sqrt();
            row_normalize(x, m, s, w, b, y.part(r * width, width));
            mean.part(r, 1)[0] = m;
            rstd.part(r, 1)[0] = s;
        });
    });
    let stat = Meta::new(x.dtype, Shape::try_new(&[rows])?);
    let mut fused = Fused::one(finish(ty)?);
    if adds {
        fused.outputs.push(finish(ts)?);
    }
    Ok(fused.keep(stat, finish(tm)?).keep(stat, finish(tr)?))
}

fn backward<T: Number>(x: &[View<'_>], inverse: T) -> Result<Option<Fused>> {
    let (rows, width) = (x[1].shape()[0], x[1].shape()[1]);
    let size = size_of::<T>();
    let (tx, tw, tb) =
        (CpuStorage::new(rows * width * size)?, CpuStorage::new(width * size)?, CpuStorage::new(width * size)?);
    let views = Dense::<T>::all(x)?;
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    let (dx, dw, db) = (Out::<T>::of(&tx), Out::<T>::of(&tw), Out::<T>::of(&tb));
    // Weight gradients are summed over fixed groups of rows, whose sums are then added in order.
    let group = 64usize;
    let groups = rows.div_ceil(group);
    launch(&reads, &[&tx, &tw, &tb], move || {
        let row = |i: usize, r: usize| views[i].part(r * width, width);
        let at = |i: usize, r: usize| views[i].part(r, 1)[0];
        let mut partial = vec![T::ZERO; groups * 2 * width];
        let parts = crate::reduce::Shared::of(&mut partial);
        for_chunks(groups, rows * width, |c| {
            let (w, sums) = (row(2, 0), parts.part(c * 2 * width, 2 * width));
            let (sw, sb) = sums.split_at_mut(width);
            for r in c * group..rows.min((c + 1) * group) {
                let (g, x, m, s) = (row(0, r), row(1, r), at(3, r), at(4, r));
                let (m1, m2) = row_moments(g, x, w, m, s);
                let dx = dx.part(r * width, width);
                row_dx(g, x, w, m, s, m1 * inverse, m2 * inverse, dx);
                if views.len() > 5 {
                    row_add_to(row(5, r), dx);
                }
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
