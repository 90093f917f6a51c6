//! Fused batch normalization: channel by channel, so that a channel's three passes find it in the cache. Backward gives the
//! gradients of input, weight and bias.
//!
//! Sums are taken in the tensor's own type over one image's channel, and in f64 over the images: fixed, and exact enough for
//! millions of places.

use crate::elementwise::finish;
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

const LANES: usize = 16;

#[inline(always)]
fn total<T: Float>(lanes: [T; LANES]) -> T {
    lanes.into_iter().fold(T::ZERO, |s, v| s + v)
}

vectorized! {
    fn sum<T: Float>(x: &[T]) -> T {
        let mut s = [T::ZERO; LANES];
        for c in x.chunks(LANES) { for (s, &x) in s.iter_mut().zip(c) { *s = *s + x; } }
        total(s)
    }
    fn squares<T: Float>(x: &[T], mean: T) -> T {
        let mut s = [T::ZERO; LANES];
        for c in x.chunks(LANES) { for (s, &x) in s.iter_mut().zip(c) { let d = x - mean; *s = *s + d * d; } }
        total(s)
    }
    /// (Σ g, Σ g·(x − mean)).
    fn moments<T: Float>(g: &[T], x: &[T], mean: T) -> (T, T) {
        let (mut s, mut p) = ([T::ZERO; LANES], [T::ZERO; LANES]);
        for (cg, cx) in g.chunks(LANES).zip(x.chunks(LANES)) {
            for (i, (&g, &x)) in cg.iter().zip(cx).enumerate() {
                s[i] = s[i] + g;
                p[i] = p[i] + g * (x - mean);
            }
        }
        (total(s), total(p))
    }
    fn normalize<T: Float>(x: &[T], mean: T, scale: T, shift: T, y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = (x - mean) * scale + shift; }
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
    /// Calls `f` for each channel, on several threads; `cost` in nanoseconds for 1000 elements.
    fn for_channels(&self, cost: usize, f: impl Fn(usize) + Send + Sync) {
        // Neighbouring channels share cache lines where places are few.
        let per = (64 / self.places).max(1);
        for_chunks(self.channels.div_ceil(per), self.elements() / 1000 * cost, |i| {
            (i * per..self.channels.min((i + 1) * per)).for_each(&f);
        });
    }
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

fn forward<T: Float + Element>(eps: f64, x: &[View<'_>], stat: Meta) -> Result<Fused> {
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
        let one = |i: usize, c: usize, without: T| inputs.get(i).map_or(without, |v| v.part(c, 1)[0]);
        s.for_channels(600, |c| {
            let x = |at| inputs[0].part(at, s.places);
            let mean = T::from_f64(s.starts(c).map(|at| sum(x(at)).to_f64()).sum::<f64>() * inverse);
            let var = s.starts(c).map(|at| squares(x(at), mean).to_f64()).sum::<f64>() * inverse;
            let rstd = 1.0 / (var + eps).sqrt();
            let (w, b) = (one(1, c, T::ONE), one(2, c, T::ZERO));
            let scale = T::from_f64(rstd * w.to_f64());
            s.starts(c).for_each(|at| normalize(x(at), mean, scale, b, y.part(at, s.places)));
            means.part(c, 1)[0] = mean;
            vars.part(c, 1)[0] = T::from_f64(var);
            rstds.part(c, 1)[0] = T::from_f64(rstd);
        });
    });
    let mean = finish(tm)?;
    let fused = Fused { outputs: smallvec![finish(ty)?, mean.clone(), finish(tv)?], ..Fused::default() };
    Ok(fused.keep(stat, mean).keep(stat, finish(tr)?))
}

fn backward<T: Float + Element>(x: &[View<'_>]) -> Result<Fused> {
    let s = Sizes::of(x[1]);
    let size = size_of::<T>();
    let (tx, tw, tb) =
        (CpuStorage::new(s.elements() * size)?, CpuStorage::new(s.channels * size)?, CpuStorage::new(s.channels * size)?);
    let (inputs, reads) = (Dense::<T>::all(x)?, x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?);
    let (dx, dw, db) = (Out::<T>::of(&tx), Out::<T>::of(&tw), Out::<T>::of(&tb));
    let inverse = 1.0 / (s.images * s.places) as f64;
    launch(&reads, &[&tx, &tw, &tb], move || {
        s.for_channels(700, |c| {
            let (g, x) = (|at| inputs[0].part(at, s.places), |at| inputs[1].part(at, s.places));
            let [w, mean, rstd] = [2, 3, 4].map(|i| inputs[i].part(c, 1)[0]);
            let (mut sum, mut along) = (0.0, 0.0);
            for at in s.starts(c) {
                let (a, b) = moments(g(at), x(at), mean);
                sum += a.to_f64();
                along += b.to_f64();
            }
            // dx = w·rstd·(g − mean(g) − x̂·mean(g·x̂)), with x̂ = (x − mean)·rstd
            let r = rstd.to_f64();
            let (g_mean, slope) = (T::from_f64(sum * inverse), T::from_f64(along * inverse * r * r));
            let scale = w * rstd;
            s.starts(c).for_each(|at| gradient(g(at), x(at), mean, scale, g_mean, slope, dx.part(at, s.places)));
            dw.part(c, 1)[0] = T::from_f64(along * r);
            db.part(c, 1)[0] = T::from_f64(sum);
        });
    });
    Ok(Fused { outputs: smallvec![finish(tx)?, finish(tw)?, finish(tb)?], ..Fused::default() })
}

fn affine<T: Float + Element>(x: &[View<'_>]) -> Result<Fused> {
    let s = Sizes::of(x[0]);
    let to = CpuStorage::new(s.elements() * size_of::<T>())?;
    let (inputs, reads) = (Dense::<T>::all(x)?, x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?);
    let y = Out::<T>::of(&to);
    launch(&reads, &[&to], move || {
        s.for_channels(300, |c| {
            let (scale, shift) = (inputs[1].part(c, 1)[0], inputs[2].part(c, 1)[0]);
            s.starts(c).for_each(|at| normalize(inputs[0].part(at, s.places), T::ZERO, scale, shift, y.part(at, s.places)));
        });
    });
    Ok(Fused::one(finish(to)?))
}
