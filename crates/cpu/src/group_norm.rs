//! Fused group normalization, group by group: forward keeps mean and rstd of each; backward gives the gradients of input, weight and
//! bias.
//!
//! A group's numbers lie one after another. Forward reads them in blocks, whose statistics are put together in f64, so that memory is
//! read once for them and once more to write. Weight and bias belong to channels, so a channel's places go together; where they
//! are few, a group is a row of layer normalization, with weight and bias spread over the places. A residual and a ReLU are part of the
//! pass that writes.

use crate::batch_norm::Number;
use crate::batch_norm::rows::{flowing_moments, moments, normalize, normalize_relu, sum_each};
use crate::dense::{Dense, by_dtype};
use crate::elementwise::finish;
use crate::lanes::LANES;
use crate::launch::{Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::norm::{row_dw, row_dx, row_moments, row_normalize, row_squares, row_sum};
use crate::simd::vectorized;
use crate::softmax::for_rows;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::group_norm::{GroupNorm, GroupNormGrad, GroupNormRelu, GroupNormReluGrad};
use gradus_core::{DType, Meta, Result, Shape};
use smallvec::smallvec;
use std::ops::Range;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, GroupNorm>| {
        by_dtype(c.x, |x, dtype| match dtype {
            DType::F32 => forward::<f32>(c.op, x, false).map(Some),
            _ => forward::<f64>(c.op, x, false).map(Some),
        })
    });
    table.register(|c: FusedCall<'_, GroupNormGrad>| {
        by_dtype(c.x, |x, dtype| match dtype {
            _ if !alike(x) => Ok(None),
            DType::F32 => backward::<f32>(c.op.groups, x, Flow::All).map(Some),
            _ => backward::<f64>(c.op.groups, x, Flow::All).map(Some),
        })
    });
    // Of few places in a row, activation and residual are passes of their own: by definition.
    table.register(|c: FusedCall<'_, GroupNormRelu>| {
        let op = GroupNorm { groups: c.op.groups, eps: c.op.eps };
        by_dtype(c.x, |x, dtype| match dtype {
            _ if Sizes::of(x[0], op.groups, true).is_narrow() => Ok(None),
            DType::F32 => forward::<f32>(&op, x, true).map(Some),
            _ => forward::<f64>(&op, x, true).map(Some),
        })
    });
    table.register(|c: FusedCall<'_, GroupNormReluGrad>| {
        let flow = if c.op.residual { Flow::ToResidual } else { Flow::WhereOutput };
        by_dtype(c.x, |x, dtype| match dtype {
            _ if !alike(x) || Sizes::of(x[1], c.op.groups, true).is_narrow() => Ok(None),
            DType::F32 => backward::<f32>(c.op.groups, x, flow).map(Some),
            _ => backward::<f64>(c.op.groups, x, flow).map(Some),
        })
    });
}

/// Whether all have one dtype: statistics might come from elsewhere.
fn alike(x: &[View<'_>]) -> bool {
    x.iter().all(|v| v.dtype == x[0].dtype)
}

/// Where the gradient of the output flows on.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    All,
    /// Where the output is positive.
    WhereOutput,
    /// The same, and to a residual, too.
    ToResidual,
}

/// How `[images, channels, places]` falls into groups.
#[derive(Clone, Copy)]
struct Sizes {
    images: usize,
    channels: usize,
    places: usize,
    groups: usize,
}

impl Sizes {
    /// Without weight and bias nothing tells the channels of a group apart: they are one.
    fn of(x: View<'_>, groups: usize, affine: bool) -> Sizes {
        let (images, channels, places) = (x.shape()[0], x.shape()[1], x.shape()[2]);
        match affine {
            true => Sizes { images, channels, places, groups },
            false => Sizes { images, channels: groups, places: channels / groups * places, groups },
        }
    }
    /// The groups of all images.
    fn rows(&self) -> usize {
        self.images * self.groups
    }
    /// The numbers of a group.
    fn width(&self) -> usize {
        self.channels / self.groups * self.places
    }
    fn is_narrow(&self) -> bool {
        self.places < LANES
    }
    /// The channels of a row, each with its places in it.
    fn channels_of(self, row: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (per, places) = (self.channels / self.groups, self.places);
        (0..per).map(move |i| (row % self.groups * per + i, i * places..(i + 1) * places))
    }
    /// A channel's number for each place of an image.
    fn spread<T: Number>(&self, numbers: &Dense<T>) -> Vec<T> {
        numbers.part(0, self.channels).iter().flat_map(|&n| std::iter::repeat_n(n, self.places)).collect()
    }
}

vectorized! {
    /// dx = (g·w − inner − (x − mean)·slope)·rstd.
    fn channel_dx<T: Float>(g: &[T], x: &[T], numbers: [T; 5], dx: &mut [T]) {
        let [w, inner, mean, slope, rstd] = numbers;
        for ((d, &g), &x) in dx.iter_mut().zip(g).zip(x) { *d = (g * w - inner - (x - mean) * slope) * rstd; }
    }
    /// The same of a g that stands in dx.
    fn channel_dx_of_itself<T: Float>(x: &[T], numbers: [T; 5], dx: &mut [T]) {
        let [w, inner, mean, slope, rstd] = numbers;
        for (d, &x) in dx.iter_mut().zip(x) { *d = (*d * w - inner - (x - mean) * slope) * rstd; }
    }
}

/// So many numbers stay in the nearest cache while they are read twice.
const BLOCK: usize = 4096;

/// (mean, biased variance), by Chan, Golub & LeVeque's formula for the statistics of two parts together (1979).
fn statistics<T: Number>(x: &[T]) -> (f64, f64) {
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for block in x.chunks(BLOCK) {
        let more = block.len() as f64;
        let own = row_sum(block).to_f64() / more;
        let (apart, all) = (own - mean, n + more);
        squares += row_squares(block, T::from_f64(own)).to_f64() + apart * apart * (n * more / all);
        mean += apart * (more / all);
        n = all;
    }
    (mean, squares / n)
}

/// Of x and, perhaps, w and b; with a ReLU, perhaps a residual too.
fn forward<T: Number>(op: &GroupNorm, x: &[View<'_>], relu: bool) -> Result<Fused> {
    let affine = x.len() > 1;
    let (s, eps) = (Sizes::of(x[0], op.groups, affine), op.eps);
    let (rows, width, size) = (s.rows(), s.width(), size_of::<T>());
    let (ty, tm, tr) =
        (CpuStorage::new(rows * width * size)?, CpuStorage::new(rows * size)?, CpuStorage::new(rows * size)?);
    let (inputs, reads) = (Dense::<T>::all(x)?, x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?);
    let (y, means, rstds) = (Out::<T>::of(&ty), Out::<T>::of(&tm), Out::<T>::of(&tr));
    launch(&reads, &[&ty, &tm, &tr], move || {
        let spread: Vec<Vec<T>> =
            if s.is_narrow() { inputs[1..].iter().map(|v| s.spread(v)).collect() } else { Vec::new() };
        let number = |i: usize, c: usize, without: T| inputs.get(i).map_or(without, |v| v.part(c, 1)[0]);
        for_rows(rows, width, 600, |r| {
            let (x, y) = (inputs[0].part(r * width, width), y.part(r * width, width));
            let (mean, var) = statistics(x);
            let (mean, rstd) = (T::from_f64(mean), T::from_f64(1.0 / (var + eps).sqrt()));
            if s.is_narrow() {
                let of = |i: usize| spread.get(i).map_or(&[][..], |v| &v[r % s.groups * width..][..width]);
                row_normalize(x, mean, rstd, of(0), of(1), y);
            } else {
                for (c, at) in s.channels_of(r) {
                    let (scale, shift) = (rstd * number(1, c, T::ONE), number(2, c, T::ZERO));
                    let (x, y) = (&x[at.clone()], &mut y[at.clone()]);
                    let residual = inputs.get(3).map_or(&[][..], |v| v.part(r * width + at.start, at.len()));
                    match relu {
                        true => normalize_relu(x, residual, [mean, scale, shift], y),
                        false => normalize(x, mean, scale, shift, y),
                    }
                }
            }
            means.part(r, 1)[0] = mean;
            rstds.part(r, 1)[0] = rstd;
        });
    });
    let stat = Meta::new(x[0].dtype, Shape::try_new(&[rows])?);
    Ok(Fused::one(finish(ty)?).keep(stat, finish(tm)?).keep(stat, finish(tr)?))
}

/// Of g, x, mean, rstd and, perhaps, w; where a ReLU followed, of the output, too.
fn backward<T: Number>(groups: usize, x: &[View<'_>], flow: Flow) -> Result<Fused> {
    let affine = x.len() > 4;
    let s = Sizes::of(x[1], groups, affine);
    let size = size_of::<T>();
    let vector = if affine { s.channels } else { 0 };
    let tx = CpuStorage::new(s.rows() * s.width() * size)?;
    let (tw, tb) = (CpuStorage::new(vector * size)?, CpuStorage::new(vector * size)?);
    let parts = Parts::of(&s);
    let tp = CpuStorage::new(if affine { parts.count * parts.len() * size } else { 0 })?;
    let to_residual = flow == Flow::ToResidual;
    let tr = CpuStorage::new(if to_residual { s.rows() * s.width() * size } else { 0 })?;
    let (inputs, reads) = (Dense::<T>::all(x)?, x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?);
    let [dx, dw, db, sums, dr] = [&tx, &tw, &tb, &tp, &tr].map(|s| Out::<T>::of(s));
    launch(&reads, &[&tx, &tw, &tb, &tp, &tr], move || {
        let call = Back { s, parts, inputs: &inputs, flow, dx: &dx, dr: &dr, sums: affine.then_some(&sums) };
        if s.is_narrow() {
            call.by_rows()
        } else {
            call.by_channels()
        }
        if affine {
            parts.added(sums.whole(), s.channels, dw.slice(), db.slice());
        }
    });
    let mut outputs = smallvec![finish(tx)?];
    if affine {
        outputs.extend([finish(tw)?, finish(tb)?]);
    }
    if to_residual {
        outputs.push(finish(tr)?);
    }
    Ok(Fused { outputs, ..Fused::default() })
}

/// The sums of the gradients of w and b over a few images each, so that several threads can sum; then they are added in order.
#[derive(Clone, Copy)]
struct Parts {
    /// The images of a part.
    images: usize,
    count: usize,
    /// The sums of a part: of each channel or, where places are few, of each place of each channel.
    columns: usize,
}

impl Parts {
    fn of(s: &Sizes) -> Parts {
        let (images, columns) = if s.is_narrow() { (16, s.channels * s.places) } else { (1, s.channels) };
        Parts { images, count: s.images.div_ceil(images), columns }
    }
    /// The sums of w's gradient and of b's.
    fn len(&self) -> usize {
        2 * self.columns
    }
    fn added<T: Number>(&self, parts: &[T], channels: usize, dw: &mut [T], db: &mut [T]) {
        let mut sums = vec![0.0; self.len()];
        parts.chunks_exact(self.len()).for_each(|part| sum_each(part, &mut sums));
        let by_channel = sums.chunks_exact(self.columns / channels);
        for (out, sums) in dw.iter_mut().chain(db).zip(by_channel) {
            *out = T::from_f64(sums.iter().sum());
        }
    }
}

/// A call of backward; `sums` is there if the gradients of w and b are wanted.
struct Back<'a, T> {
    s: Sizes,
    parts: Parts,
    inputs: &'a [Dense<T>],
    flow: Flow,
    dx: &'a Out<T>,
    dr: &'a Out<T>,
    sums: Option<&'a Out<T>>,
}

impl<T: Number> Back<'_, T> {
    /// g, x and dx of a row, its mean and rstd.
    fn row(&self, r: usize) -> (&[T], &[T], &mut [T], T, T) {
        let (at, width) = (r * self.s.width(), self.s.width());
        let [g, x] = [0, 1].map(|i| self.inputs[i].part(at, width));
        let [mean, rstd] = [2, 3].map(|i| self.inputs[i].part(r, 1)[0]);
        (g, x, self.dx.part(at, width), mean, rstd)
    }

    /// (Σ g, Σ g·(x − mean)) of a channel of row `r` and the gradient that flows, which is written to the residual's or, where there
    /// is none, to dx.
    fn moments(&self, r: usize, at: Range<usize>, mean: T, dx: &mut [T]) -> (T, T) {
        let (start, len) = (r * self.s.width() + at.start, at.len());
        let part = |i: usize| self.inputs[i].part(start, len);
        match self.flow {
            Flow::All => moments(part(0), part(1), mean),
            Flow::WhereOutput => flowing_moments(part(0), part(5), part(1), mean, &mut dx[at]),
            Flow::ToResidual => flowing_moments(part(0), part(5), part(1), mean, self.dr.part(start, len)),
        }
    }

    /// Channels of many places: their sums tell those of the group, which is still in a cache when dx is written.
    fn by_channels(&self) {
        let (s, inverse) = (self.s, 1.0 / self.s.width() as f64);
        for_rows(s.rows(), s.width(), 1000, |r| {
            let (g, x, dx, mean, rstd) = self.row(r);
            let weight = |c: usize| self.inputs.get(4).map_or(T::ONE, |w| w.part(c, 1)[0]);
            let (mut inner, mut along) = (0.0, 0.0);
            for (c, at) in s.channels_of(r) {
                let (db, dw) = self.moments(r, at, mean, dx);
                let (dw, w) = (dw * rstd, weight(c).to_f64());
                inner += w * db.to_f64();
                along += w * dw.to_f64();
                if let Some(sums) = self.sums {
                    let first = r / s.groups * self.parts.len() + c;
                    sums.part(first, 1)[0] = dw;
                    sums.part(first + self.parts.columns, 1)[0] = db;
                }
            }
            let (inner, slope) = (T::from_f64(inner * inverse), T::from_f64(along * inverse) * rstd);
            for (c, at) in s.channels_of(r) {
                let (numbers, x, dx) = ([weight(c), inner, mean, slope, rstd], &x[at.clone()], &mut dx[at.clone()]);
                match self.flow {
                    Flow::All => channel_dx(&g[at], x, numbers, dx),
                    Flow::WhereOutput => channel_dx_of_itself(x, numbers, dx),
                    Flow::ToResidual => channel_dx(self.dr.part(r * s.width() + at.start, at.len()), x, numbers, dx),
                }
            }
        });
    }

    /// Channels of few places: as layer normalization of the groups.
    fn by_rows(&self) {
        let (s, parts, width) = (self.s, self.parts, self.s.width());
        let inverse = T::from_f64(1.0 / width as f64);
        let weight = self.inputs.get(4).map_or_else(|| vec![T::ONE; s.channels * s.places], |w| s.spread(w));
        for_chunks(parts.count, s.rows() * width, |p| {
            let mut sums = self.sums.map(|sums| sums.part(p * parts.len(), parts.len()).split_at_mut(parts.columns));
            if let Some((dw, db)) = &mut sums {
                dw.fill(T::ZERO);
                db.fill(T::ZERO);
            }
            for r in p * parts.images * s.groups..s.rows().min((p + 1) * parts.images * s.groups) {
                let (g, x, dx, mean, rstd) = self.row(r);
                let at = r % s.groups * width..(r % s.groups + 1) * width;
                let w = &weight[at.clone()];
                let (inner, along) = row_moments(g, x, w, mean, rstd);
                row_dx(g, x, w, mean, rstd, inner * inverse, along * inverse, dx);
                if let Some((dw, db)) = &mut sums {
                    row_dw(g, x, mean, rstd, &mut dw[at.clone()], &mut db[at]);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers far from zero, whose spread grows from block to block.
    #[test]
    fn the_statistics_of_blocks_are_those_of_all_numbers() {
        for n in [1, 7, BLOCK, BLOCK + 1, 5 * BLOCK + 300] {
            let x: Vec<f64> = (0..n).map(|i| 1000.0 + (i * 37 % 101) as f64 * (1 + i / BLOCK) as f64 / 16.0).collect();
            let mean = x.iter().sum::<f64>() / n as f64;
            let var = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
            let narrow: Vec<f32> = x.iter().map(|&v| v as f32).collect();
            for ((m, v), room) in [(statistics(&x), 1e-12), (statistics(&narrow), 1e-5)] {
                assert!((m - mean).abs() <= room * mean, "the mean of {n}: {m}, not {mean}");
                assert!((v - var).abs() <= room * var, "the variance of {n}: {v}, not {var}");
            }
        }
    }
}
