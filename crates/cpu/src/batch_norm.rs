//! Fused batch normalization: channel by channel, so that a channel's three passes find it in the cache. Backward gives the
//! gradients of input, weight and bias.
//!
//! Where an image has few places of a channel (none but one, in `[rows, channels]`), many channels go side by side instead.
//! Sums are taken in the tensor's own type over one image's channel, and in f64 over the images: fixed, and exact enough for
//! millions of places.

pub(crate) mod rows;

use crate::dense::Dense;
use crate::elementwise::finish;
use crate::lanes::LANES;
use crate::launch::{Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::simd::prefetch;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::batch_norm::{BatchNorm, BatchNormGrad, BatchNormRelu, BatchNormReluGrad, ChannelAffine};
use gradus_core::functional::running_average::RunningAverage;
use gradus_core::{DType, Element, Meta, Result};
use rows::*;
use smallvec::smallvec;
use std::ops::Range;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, BatchNorm>| match kind(c.x) {
        Some(DType::F32) => forward::<f32>(c.op.eps, c.x, c.outputs[1], false).map(Some),
        Some(DType::F64) => forward::<f64>(c.op.eps, c.x, c.outputs[1], false).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, BatchNormGrad>| match kind(c.x) {
        Some(DType::F32) => backward::<f32>(c.x, Flow::All).map(Some),
        Some(DType::F64) => backward::<f64>(c.x, Flow::All).map(Some),
        _ => Ok(None),
    });
    // Of few places in a row, activation and residual are passes of their own: by definition.
    table.register(|c: FusedCall<'_, BatchNormRelu>| match kind(c.x) {
        Some(DType::F32) if !Sizes::of(c.x[0]).is_narrow() => {
            forward::<f32>(c.op.eps, c.x, c.outputs[1], true).map(Some)
        }
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, BatchNormReluGrad>| {
        let flow = if c.op.residual { Flow::WhereOutput } else { Flow::WherePositive };
        match kind(c.x) {
            Some(DType::F32) if !Sizes::of(c.x[0]).is_narrow() => backward::<f32>(c.x, flow).map(Some),
            _ => Ok(None),
        }
    });
    table.register(|c: FusedCall<'_, RunningAverage>| match kind(c.x) {
        Some(DType::F32) => average::<f32>(c.op.momentum, c.x).map(Some),
        Some(DType::F64) => average::<f64>(c.op.momentum, c.x).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, ChannelAffine>| match kind(c.x) {
        Some(DType::F32) => affine::<f32>(c.x).map(Some),
        Some(DType::F64) => affine::<f64>(c.x).map(Some),
        _ => Ok(None),
    });
}

/// Where the gradient of the output flows on.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    All,
    /// Where the normalized number is positive.
    WherePositive,
    /// Where the output is positive; it flows to a residual, too.
    WhereOutput,
}

fn kind(x: &[View<'_>]) -> Option<DType> {
    (x.iter().all(|v| v.layout.is_dense()) && x[0].elements() > 0).then_some(x[0].dtype)
}

/// A float that converts to and from f64.
pub(crate) trait Number: Float + Element {}
impl<T: Float + Element> Number for T {}

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
    /// Has the part of the image after the one at `at` fetched: images are pages apart, where the processor does not look ahead.
    fn fetch_next<T>(&self, x: &Dense<T>, at: usize) {
        let next = at + self.channels * self.places;
        if next < self.elements() {
            prefetch(x.part(next, self.places.min(self.elements() - next)));
        }
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

fn forward<T: Number>(eps: f64, x: &[View<'_>], stat: Meta, relu: bool) -> Result<Fused> {
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
        // Rounded as it is kept: backward then tells the sign of an output as forward does.
        let rstd = |var: f64| T::from_f64(1.0 / (var + eps).sqrt()).to_f64();
        let of = |mean: f64, var: f64| Statistics { mean, var, rstd: rstd(var) };
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
                let mean = channel_mean(&s, c, &inputs[0]);
                let t = of(mean.to_f64(), s.starts(c).map(|at| squares(x(at), mean).to_f64()).sum::<f64>() * inverse);
                let (scale, shift) = (T::from_f64(t.rstd * one(1, c, 1.0)), T::from_f64(one(2, c, 0.0)));
                s.starts(c).for_each(|at| {
                    let y = y.part(at, width);
                    match relu {
                        true => normalize_relu(x(at), residual_part(&s, inputs.get(3), at), [mean, scale, shift], y),
                        false => normalize(x(at), mean, scale, shift, y),
                    }
                });
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

/// A channel's mean, rounded to its type.
fn channel_mean<T: Number>(s: &Sizes, c: usize, x: &Dense<T>) -> T {
    let of_image = |at| {
        s.fetch_next(x, at);
        sum(x.part(at, s.places)).to_f64()
    };
    T::from_f64(s.starts(c).map(of_image).sum::<f64>() * (1.0 / (s.images * s.places) as f64))
}

/// The residual of one image's channel; nothing if there is none.
fn residual_part<'a, T>(s: &Sizes, residual: Option<&'a Dense<T>>, at: usize) -> &'a [T] {
    let Some(residual) = residual else { return &[] };
    s.fetch_next(residual, at);
    residual.part(at, s.places)
}

fn backward<T: Number>(x: &[View<'_>], flow: Flow) -> Result<Fused> {
    let s = Sizes::of(x[1]);
    let size = size_of::<T>();
    let (tx, tw, tb) = (
        CpuStorage::new(s.elements() * size)?,
        CpuStorage::new(s.channels * size)?,
        CpuStorage::new(s.channels * size)?,
    );
    let (inputs, reads) = (Dense::<T>::all(x)?, x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?);
    let residual = flow == Flow::WhereOutput;
    let tr = CpuStorage::new(if residual { s.elements() * size } else { 0 })?;
    let [dx, dw, db, dr] = [&tx, &tw, &tb, &tr].map(|s| Out::<T>::of(s));
    let stats = if flow == Flow::All { 3 } else { 4 };
    let inverse = 1.0 / (s.images * s.places) as f64;
    launch(&reads, &[&tx, &tw, &tb, &tr], move || {
        s.for_blocks(700, |block| {
            let (c, width) = (block.start, block.len() * s.places);
            let (g, x) = (|at| inputs[0].part(at, width), |at| inputs[1].part(at, width));
            let number = |i: usize, c: usize| inputs[i].part(c, 1)[0].to_f64();
            // dx = w·rstd·(g − mean(g) − x̂·mean(g·x̂)), with x̂ = (x − mean)·rstd
            let scale = |c: usize| number(2, c) * number(stats + 1, c);
            let slope = |c: usize, along: f64| along * inverse * number(stats + 1, c) * number(stats + 1, c);
            let (sums, along) = if s.is_narrow() {
                let mean: Vec<T> = s.expanded(block.clone().map(|c| number(stats, c)));
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
                let numbers = [number(stats, c), scale(c), if stats == 4 { number(3, c) } else { 0.0 }];
                let [mean, scale, shift] = numbers.map(T::from_f64);
                let channel = Channel { s: &s, c, inputs: &inputs, flow, mean, scale, shift };
                let (sum, along) = channel.moments(&dr);
                channel.gradient([sum * inverse, slope(c, along)].map(T::from_f64), &dr, &dx);
                (vec![sum], vec![along])
            };
            for ((c, sum), along) in block.zip(sums).zip(along) {
                dw.part(c, 1)[0] = T::from_f64(along * number(stats + 1, c));
                db.part(c, 1)[0] = T::from_f64(sum);
            }
        });
    });
    let mut outputs = smallvec![finish(tx)?, finish(tw)?, finish(tb)?];
    if residual {
        outputs.push(finish(tr)?);
    }
    Ok(Fused { outputs, ..Fused::default() })
}

/// Backward of one channel.
struct Channel<'a, T> {
    s: &'a Sizes,
    c: usize,
    inputs: &'a [Dense<T>],
    flow: Flow,
    mean: T,
    scale: T,
    shift: T,
}

impl<T: Number> Channel<'_, T> {
    /// (Σ g, Σ g·(x − mean)) of the gradient that flows, which is written to `flows` if it flows to a residual too.
    fn moments(&self, flows: &Out<T>) -> (f64, f64) {
        let (s, len) = (self.s, self.s.places);
        let of_image = |at| {
            self.inputs[..2].iter().for_each(|x| s.fetch_next(x, at));
            let (g, x) = (self.inputs[0].part(at, len), self.inputs[1].part(at, len));
            match self.flow {
                Flow::All => moments(g, x, self.mean),
                Flow::WherePositive => moments_where(g, x, self.mean, self.scale, self.shift),
                Flow::WhereOutput => {
                    s.fetch_next(&self.inputs[6], at);
                    flowing_moments(g, self.inputs[6].part(at, len), x, self.mean, flows.part(at, len))
                }
            }
        };
        let add = |(s, p): (f64, f64), (a, b): (T, T)| (s + a.to_f64(), p + b.to_f64());
        s.starts(self.c).map(of_image).fold((0.0, 0.0), add)
    }
    /// The gradient of x, given mean(g) and the slope along x.
    fn gradient(&self, [g_mean, slope]: [T; 2], flows: &Out<T>, dx: &Out<T>) {
        let (mean, scale, len) = (self.mean, self.scale, self.s.places);
        for at in self.s.starts(self.c) {
            let (g, x, dx) = (self.inputs[0].part(at, len), self.inputs[1].part(at, len), dx.part(at, len));
            match self.flow {
                Flow::All => gradient(g, x, mean, scale, g_mean, slope, dx),
                Flow::WherePositive => gradient_where(g, x, [mean, scale, g_mean, slope], self.shift, dx),
                Flow::WhereOutput => gradient(flows.part(at, len), x, mean, scale, g_mean, slope, dx),
            }
        }
    }
}

/// Running averages: as many numbers as channels, so that one thread has them in no time.
fn average<T: Number>(momentum: f64, x: &[View<'_>]) -> Result<Fused> {
    let n = x[0].elements();
    let to = CpuStorage::new(n * size_of::<T>())?;
    let (inputs, reads) = (Dense::<T>::all(x)?, x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?);
    let (out, keep, gain) = (Out::<T>::of(&to), T::from_f64(1.0 - momentum), T::from_f64(momentum));
    launch(&reads, &[&to], move || follow(inputs[0].part(0, n), inputs[1].part(0, n), keep, gain, out.part(0, n)));
    Ok(Fused::one(finish(to)?))
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
