//! Fused batch normalization: channel by channel, so that a channel's three passes find it in the cache. Backward gives the
//! gradients of input, weight and bias.
//!
//! Where an image has few places of a channel (none but one, in `[rows, channels]`), many channels go side by side instead.
//! Sums are taken in the tensor's own type over one image's channel, and in f64 over the images: fixed, and exact enough for
//! millions of places.

use crate::elementwise::finish;
use crate::lanes::{LANES, sums};
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::batch_norm::{BatchNorm, BatchNormGrad, ChannelAffine};
use gradus_core::{DType, Element, Meta, Result};
use smallvec::smallvec;
use std::ops::Range;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, BatchNorm>| match kind(c.x) {
        Some(DType::F32) => forward::<f32>(c.op.eps, c.x, c.outputs[1]).map(Some),
        Some(DType::F64) => forward::<f64>(c.op.eps, c.x, c.outputs[1]).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, BatchNormGrad>| match kind(c.x) {
        Some(DType::F32) => backward::<f32>(c.x).map(Some),
        Some(DType::F64) => backward::<f64>(c.x).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, ChannelAffine>| match kind(c.x) {
        Some(DType::F32) => affine::<f32>(c.x).map(Some),
        Some(DType::F64) => affine::<f64>(c.x).map(Some),
        _ => Ok(None),
    });
}

fn kind(x: &[View<'_>]) -> Option<DType> {
    (x.iter().all(|v| v.layout.is_dense()) && x[0].elements() > 0).then_some(x[0].dtype)
}

/// A float that converts to and from f64.
trait Number: Float + Element {}
impl<T: Float + Element> Number for T {}

vectorized! {
    fn sum<T: Float>(x: &[T]) -> T {
        sums([x], |[x]| [x])[0]
    }
    fn squares<T: Float>(x: &[T], mean: T) -> T {
        sums([x], |[x]| [(x - mean) * (x - mean)])[0]
    }
    /// (Σ g, Σ g·(x − mean)).
    fn moments<T: Float>(g: &[T], x: &[T], mean: T) -> (T, T) {
        let [s, p] = sums([g, x], |[g, x]| [g, g * (x - mean)]);
        (s, p)
    }
    fn normalize<T: Float>(x: &[T], mean: T, scale: T, shift: T, y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = (x - mean) * scale + shift; }
    }
    /// The same of many channels side by side, each with numbers of its own.
    fn normalize_each<T: Float>(x: &[T], mean: &[T], scale: &[T], shift: &[T], y: &mut [T]) {
        for ((((y, &x), &m), &s), &b) in y.iter_mut().zip(x).zip(mean).zip(scale).zip(shift) { *y = (x - m) * s + b; }
    }
    fn sum_each<T: Number>(x: &[T], sum: &mut [f64]) {
        for (s, &x) in sum.iter_mut().zip(x) { *s += x.to_f64(); }
    }
    fn squares_each<T: Number>(x: &[T], mean: &[T], sum: &mut [f64]) {
        for ((s, &x), &m) in sum.iter_mut().zip(x).zip(mean) { let d = (x - m).to_f64(); *s += d * d; }
    }
    fn along_each<T: Number>(g: &[T], x: &[T], mean: &[T], sum: &mut [f64]) {
        for (((s, &g), &x), &m) in sum.iter_mut().zip(g).zip(x).zip(mean) { *s += (g * (x - m)).to_f64(); }
    }
    fn gradient_each<T: Float>(g: &[T], x: &[T], mean: &[T], scale: &[T], g_mean: &[T], slope: &[T], dx: &mut [T]) {
        for ((((((d, &g), &x), &m), &s), &gm), &k) in dx.iter_mut().zip(g).zip(x).zip(mean).zip(scale).zip(g_mean).zip(slope) {
            *d = (g - gm - (x - m) * k) * s;
        }
    }
    fn gradient<T: Float>(g: &[T], x: &[T], mean: T, scale: T, g_mean: T, slope: T, dx: &mut [T]) {
        for ((d, &g), &x) in dx.iter_mut().zip(g).zip(x) { *d = (g - g_mean - (x - mean) * slope) * scale; }
    }
}

/// The lengths of `[images, channels, places]`.
#[derive(Clone, Copy)]
struct Sizes {
    images: usize,
    channels: usize,
    places: usize,
}

impl Sizes {
    fn of(x: View<'_>) -> Sizes {
        let s = x.shape();
        Sizes { images: s[0], channels: s[1], places: s[2] }
    }
    fn elements(&self) -> usize {
        self.images * self.channels * self.places
    }
    /// Where each image's part of channel `c` begins.
    fn starts(self, c: usize) -> impl Iterator<Item = usize> {
        (0..self.images).map(move |n| (n * self.channels + c) * self.places)
    }
    /// Calls `f` for blocks of channels, on several threads; `cost` in nanoseconds for 1000 elements.
    fn for_blocks(&self, cost: usize, f: impl Fn(Range<usize>) + Send + Sync) {
        let per = if self.is_narrow() { (256 / self.places).max(1) } else { 1 };
        for_chunks(self.channels.div_ceil(per), self.elements() / 1000 * cost, |i| {
            f(i * per..self.channels.min((i + 1) * per));
        });
    }
    fn is_narrow(&self) -> bool {
        self.places < LANES
    }
    /// For each channel of a block, the sum of its places' sums.
    fn gathered(&self, sums: &[f64]) -> Vec<f64> {
        sums.chunks_exact(self.places).map(|s| s.iter().sum()).collect()
    }
    /// For each place of a block, its channel's number.
    fn expanded<T: Element>(&self, numbers: impl Iterator<Item = f64>) -> Vec<T> {
        numbers.flat_map(|n| std::iter::repeat_n(T::from_f64(n), self.places)).collect()
    }
}

/// What forward works out of a channel.
struct Statistics {
    mean: f64,
    var: f64,
    rstd: f64,
}

/// A dense input, to be read in a kernel.
#[derive(Clone, Copy)]
struct Dense<T>(In<T>, usize);

impl<T> Dense<T> {
    fn all(x: &[View<'_>]) -> Result<Vec<Dense<T>>> {
        x.iter().map(|v| Ok(Dense(In::of(storage(v.buffer)?), v.layout.offset()))).collect()
    }
    fn part(&self, start: usize, len: usize) -> &[T] {
        &self.0.slice()[self.1 + start..][..len]
    }
}

fn forward<T: Number>(eps: f64, x: &[View<'_>], stat: Meta) -> Result<Fused> {
    let s = Sizes::of(x[0]);
    let size = size_of::<T>();
    let (ty, tm, tv, tr) = (
        CpuStorage::new(s.elements() * size)?,
        CpuStorage::new(s.channels * size)?,
        CpuStorage::new(s.channels * size)?,
        CpuStorage::new(s.channels * size)?,
    );
    let (inputs, reads) = (Dense::<T>::all(x)?, x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?);
    let (y, means, vars, rstds) = (Out::<T>::of(&ty), Out::<T>::of(&tm), Out::<T>::of(&tv), Out::<T>::of(&tr));
    let inverse = 1.0 / (s.images * s.places) as f64;
    launch(&reads, &[&ty, &tm, &tv, &tr], move || {
        let one = |i: usize, c: usize, without: f64| inputs.get(i).map_or(without, |v| v.part(c, 1)[0].to_f64());
        let of = |mean: f64, var: f64| Statistics { mean, var, rstd: 1.0 / (var + eps).sqrt() };
        s.for_blocks(600, |block| {
            let (c, width) = (block.start, block.len() * s.places);
            let x = |at| inputs[0].part(at, width);
            let stats: Vec<Statistics> = if s.is_narrow() {
                let mut sums = vec![0.0; width];
                s.starts(c).for_each(|at| sum_each(x(at), &mut sums));
                let means: Vec<T> = s.expanded(s.gathered(&sums).into_iter().map(|m| m * inverse));
                sums.fill(0.0);
                s.starts(c).for_each(|at| squares_each(x(at), &means, &mut sums));
                let vars = s.gathered(&sums).into_iter();
                let stats: Vec<_> =
                    vars.zip(means.chunks(s.places)).map(|(v, m)| of(m[0].to_f64(), v * inverse)).collect();
                let scale: Vec<T> = s.expanded(block.clone().zip(&stats).map(|(c, t)| t.rstd * one(1, c, 1.0)));
                let shift: Vec<T> = s.expanded(block.clone().map(|c| one(2, c, 0.0)));
                s.starts(c).for_each(|at| normalize_each(x(at), &means, &scale, &shift, y.part(at, width)));
                stats
            } else {
                let mean = T::from_f64(s.starts(c).map(|at| sum(x(at)).to_f64()).sum::<f64>() * inverse);
                let t = of(mean.to_f64(), s.starts(c).map(|at| squares(x(at), mean).to_f64()).sum::<f64>() * inverse);
                let (scale, shift) = (T::from_f64(t.rstd * one(1, c, 1.0)), T::from_f64(one(2, c, 0.0)));
                s.starts(c).for_each(|at| normalize(x(at), mean, scale, shift, y.part(at, width)));
                vec![t]
            };
            for (c, t) in block.zip(stats) {
                means.part(c, 1)[0] = T::from_f64(t.mean);
                vars.part(c, 1)[0] = T::from_f64(t.var);
                rstds.part(c, 1)[0] = T::from_f64(t.rstd);
            }
        });
    });
    let mean = finish(tm)?;
    let fused = Fused { outputs: smallvec![finish(ty)?, mean.clone(), finish(tv)?], ..Fused::default() };
    Ok(fused.keep(stat, mean).keep(stat, finish(tr)?))
}

fn backward<T: Number>(x: &[View<'_>]) -> Result<Fused> {
    let s = Sizes::of(x[1]);
    let size = size_of::<T>();
    let (tx, tw, tb) = (
        CpuStorage::new(s.elements() * size)?,
        CpuStorage::new(s.channels * size)?,
        CpuStorage::new(s.channels * size)?,
    );
    let (inputs, reads) = (Dense::<T>::all(x)?, x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?);
    let (dx, dw, db) = (Out::<T>::of(&tx), Out::<T>::of(&tw), Out::<T>::of(&tb));
    let inverse = 1.0 / (s.images * s.places) as f64;
    launch(&reads, &[&tx, &tw, &tb], move || {
        s.for_blocks(700, |block| {
            let (c, width) = (block.start, block.len() * s.places);
            let (g, x) = (|at| inputs[0].part(at, width), |at| inputs[1].part(at, width));
            let number = |i: usize, c: usize| inputs[i].part(c, 1)[0].to_f64();
            // dx = w·rstd·(g − mean(g) − x̂·mean(g·x̂)), with x̂ = (x − mean)·rstd
            let scale = |c: usize| number(2, c) * number(4, c);
            let slope = |c: usize, along: f64| along * inverse * number(4, c) * number(4, c);
            let (sums, along) = if s.is_narrow() {
                let mean: Vec<T> = s.expanded(block.clone().map(|c| number(3, c)));
                let (mut sums, mut along) = (vec![0.0; width], vec![0.0; width]);
                s.starts(c).for_each(|at| sum_each(g(at), &mut sums));
                s.starts(c).for_each(|at| along_each(g(at), x(at), &mean, &mut along));
                let (sums, along) = (s.gathered(&sums), s.gathered(&along));
                let scales: Vec<T> = s.expanded(block.clone().map(scale));
                let g_mean: Vec<T> = s.expanded(sums.iter().map(|s| s * inverse));
                let slopes: Vec<T> = s.expanded(block.clone().zip(&along).map(|(c, &a)| slope(c, a)));
                s.starts(c)
                    .for_each(|at| gradient_each(g(at), x(at), &mean, &scales, &g_mean, &slopes, dx.part(at, width)));
                (sums, along)
            } else {
                let mean = T::from_f64(number(3, c));
                let add = |(s, p): (f64, f64), (a, b): (T, T)| (s + a.to_f64(), p + b.to_f64());
                let (sum, along) = s.starts(c).map(|at| moments(g(at), x(at), mean)).fold((0.0, 0.0), add);
                let [scale, g_mean, slope] = [scale(c), sum * inverse, slope(c, along)].map(T::from_f64);
                s.starts(c).for_each(|at| gradient(g(at), x(at), mean, scale, g_mean, slope, dx.part(at, width)));
                (vec![sum], vec![along])
            };
            for ((c, sum), along) in block.zip(sums).zip(along) {
                dw.part(c, 1)[0] = T::from_f64(along * number(4, c));
                db.part(c, 1)[0] = T::from_f64(sum);
            }
        });
    });
    Ok(Fused { outputs: smallvec![finish(tx)?, finish(tw)?, finish(tb)?], ..Fused::default() })
}

fn affine<T: Number>(x: &[View<'_>]) -> Result<Fused> {
    let s = Sizes::of(x[0]);
    let to = CpuStorage::new(s.elements() * size_of::<T>())?;
    let (inputs, reads) = (Dense::<T>::all(x)?, x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?);
    let y = Out::<T>::of(&to);
    launch(&reads, &[&to], move || {
        s.for_blocks(300, |block| {
            let (c, width) = (block.start, block.len() * s.places);
            let (x, y) = (|at| inputs[0].part(at, width), |at| y.part(at, width));
            if s.is_narrow() {
                let vector = |i: usize| s.expanded(block.clone().map(|c| inputs[i].part(c, 1)[0].to_f64()));
                let (scale, shift, zeros) = (vector(1), vector(2), vec![T::ZERO; width]);
                s.starts(c).for_each(|at| normalize_each(x(at), &zeros, &scale, &shift, y(at)));
            } else {
                let (scale, shift) = (inputs[1].part(c, 1)[0], inputs[2].part(c, 1)[0]);
                s.starts(c).for_each(|at| normalize(x(at), T::ZERO, scale, shift, y(at)));
            }
        });
    });
    Ok(Fused::one(finish(to)?))
}
