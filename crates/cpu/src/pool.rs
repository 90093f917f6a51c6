//! Pooling, forward and backward: rows of windows at once, tap by tap.

use crate::elementwise::{copy, finish};
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::pool::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad};
use gradus_core::functional::window::Window;
use gradus_core::{Buffer, DType, Element, Layout, Meta, Result};
use std::ops::Range;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, MaxPool>| match c.x[0].dtype {
        DType::F32 if fits(c.x) => {
            max_forward::<f32>(c.op, c.x[0], c.outputs[0], c.records, f32::NEG_INFINITY).map(Some)
        }
        DType::F64 if fits(c.x) => {
            max_forward::<f64>(c.op, c.x[0], c.outputs[0], c.records, f64::NEG_INFINITY).map(Some)
        }
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, MaxPoolGrad>| match c.x[0].dtype {
        DType::F32 if fits(c.x) => max_backward::<f32>(&c.op.0, c.x).map(Some),
        DType::F64 if fits(c.x) => max_backward::<f64>(&c.op.0, c.x).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, AvgPool>| match c.x[0].dtype {
        DType::F32 if fits(c.x) => mean::<f32>(*c.op, c.x[0], false).map(Some),
        DType::F64 if fits(c.x) => mean::<f64>(*c.op, c.x[0], false).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, AvgPoolGrad>| match c.x[0].dtype {
        DType::F32 if fits(c.x) => mean::<f32>(c.op.0, c.x[0], true).map(Some),
        DType::F64 if fits(c.x) => mean::<f64>(c.op.0, c.x[0], true).map(Some),
        _ => Ok(None),
    });
}

fn fits(x: &[View<'_>]) -> bool {
    x.iter().all(|v| v.elements() > 0)
}

/// A dense view of the same elements; a copy is kept in `made`.
fn dense<'a>(x: View<'a>, layout: &'a mut Layout, made: &'a mut Option<Buffer>) -> Result<View<'a>> {
    if x.layout.is_dense() {
        return Ok(x);
    }
    *layout = Layout::dense(*x.shape());
    Ok(View { buffer: made.insert(copy(x)?), layout, dtype: x.dtype })
}

/// Windows, and, worked out once, which of them have each tap inside the input.
struct Taps {
    w: Window,
    /// For each dimension and tap, the windows whose tap lies inside.
    inside: [Vec<Range<usize>>; 3],
}

impl Taps {
    fn of(w: &Window) -> Taps {
        let inside = std::array::from_fn(|d| {
            (0..w.size[d])
                .map(|k| {
                    let at = k * w.dilation[d];
                    let start = w.before[d].saturating_sub(at).div_ceil(w.stride[d]);
                    let end = (w.input[d] + w.before[d]).saturating_sub(at).div_ceil(w.stride[d]).min(w.output[d]);
                    start..end.max(start)
                })
                .collect()
        });
        Taps { w: *w, inside }
    }
    /// The place, in dimension `d` of the input, of tap `k` of window `o`, which must lie inside.
    fn place(&self, d: usize, o: usize, k: usize) -> usize {
        o * self.w.stride[d] + k * self.w.dilation[d] - self.w.before[d]
    }
    /// Calls `f(row of windows, tap, first place, windows)` for each row of windows and each tap that some of them have inside:
    /// window `windows.start` sees the input's place `first place`, the next ones the places a stride on.
    fn for_rows(&self, mut f: impl FnMut(usize, usize, usize, Range<usize>)) {
        let [_, height, width] = self.w.input;
        let [depth, rows, _] = self.w.output;
        for row in 0..depth * rows {
            let (z, y) = (row / rows, row % rows);
            for kz in (0..self.w.size[0]).filter(|&k| self.inside[0][k].contains(&z)) {
                for ky in (0..self.w.size[1]).filter(|&k| self.inside[1][k].contains(&y)) {
                    let line = (self.place(0, z, kz) * height + self.place(1, y, ky)) * width;
                    for (kx, windows) in self.inside[2].iter().enumerate().filter(|(_, w)| !w.is_empty()) {
                        let tap = (kz * self.w.size[1] + ky) * self.w.size[2] + kx;
                        f(row, tap, line + self.place(2, windows.start, kx), windows.clone());
                    }
                }
            }
        }
    }
    /// Where tap `tap` of the window at `o` lies in a plane.
    fn at(&self, o: [usize; 3], tap: usize) -> usize {
        let s = self.w.size;
        let k = [tap / (s[1] * s[2]), tap / s[2] % s[1], tap % s[2]];
        let [z, y, x] = std::array::from_fn(|d| self.place(d, o[d], k[d]));
        (z * self.w.input[1] + y) * self.w.input[2] + x
    }
}

/// Planes in chunks of about 16,000 places: calls `f(plane)` for each.
fn for_planes(planes: usize, places: usize, taps: usize, f: impl Fn(usize) + Send + Sync) {
    let per = (16_384 / places.max(1)).max(1);
    for_chunks(planes.div_ceil(per), planes * places * taps.div_ceil(4), |c| {
        (c * per..planes.min((c + 1) * per)).for_each(&f);
    });
}

vectorized! {
    /// The larger of each pair, and whose it was.
    fn larger<T: Float>(x: &[T], stride: usize, tap: u32, best: &mut [T], place: &mut [u32]) {
        match stride {
            1 => for ((b, p), &v) in best.iter_mut().zip(place).zip(x) { choose(v, tap, b, p); },
            2 => {
                for ((b, p), v) in best.iter_mut().zip(place.iter_mut()).zip(x.chunks_exact(2)) { choose(v[0], tap, b, p); }
                // The last pair may be cut short.
                let whole = x.len() / 2;
                if best.len() > whole { choose(x[2 * whole], tap, &mut best[whole], &mut place[whole]); }
            }
            _ => for ((b, p), &v) in best.iter_mut().zip(place).zip(x.iter().step_by(stride)) { choose(v, tap, b, p); },
        }
    }
    fn add_strided<T: Float>(x: &[T], stride: usize, sum: &mut [T]) {
        match stride {
            1 => for (s, &v) in sum.iter_mut().zip(x) { *s = *s + v; },
            _ => for (s, &v) in sum.iter_mut().zip(x.iter().step_by(stride)) { *s = *s + v; },
        }
    }
    fn spread<T: Float>(g: &[T], stride: usize, dx: &mut [T]) {
        match stride {
            1 => for (d, &g) in dx.iter_mut().zip(g) { *d = *d + g; },
            _ => for (d, &g) in dx.iter_mut().step_by(stride).zip(g) { *d = *d + g; },
        }
    }
    fn scaled<T: Float>(x: &[T], by: &[T], y: &mut [T]) {
        for ((y, &x), &s) in y.iter_mut().zip(x).zip(by) { *y = x * s; }
    }
}

#[inline(always)]
fn choose<T: Float>(v: T, tap: u32, best: &mut T, place: &mut u32) {
    // The first NaN stays.
    let better = (v > *best) | (v.is_nan() & !best.is_nan());
    *best = if better { v } else { *best };
    *place = if better { tap } else { *place };
}

/// How many places of a row `n` windows a stride apart touch, from their first on.
fn reach(n: usize, stride: usize) -> usize {
    (n - 1) * stride + 1
}

fn max_forward<T: Float + Element>(op: &MaxPool, x: View<'_>, out: Meta, keep: bool, low: T) -> Result<Fused> {
    let (mut layout, mut made) = (*x.layout, None);
    let x = dense(x, &mut layout, &mut made)?;
    let w = op.window;
    let (taps, planes) = (Taps::of(&w), x.shape()[0] * x.shape()[1]);
    let (places, windows, width) = (w.input.iter().product::<usize>(), w.windows(), w.output[2]);
    let kept = Meta::new(MaxPool::places_dtype(&w), out.shape);
    let (from, ty) = (storage(x.buffer)?, CpuStorage::new(planes * windows * size_of::<T>())?);
    let tp = CpuStorage::new(if keep { planes * windows * kept.dtype.size() } else { 0 })?;
    let ti = CpuStorage::new(if op.indices { planes * windows * 8 } else { 0 })?;
    let (src, offset, y) = (In::<T>::of(from), x.layout.offset(), Out::<T>::of(&ty));
    let (small, large, indices) = (Out::<u8>::of(&tp), Out::<i32>::of(&tp), Out::<i64>::of(&ti));
    let (bytes, with_indices) = (kept.dtype == DType::U8, op.indices);
    // For each window, its first tap that lies inside: what a window of −∞ alone gives.
    let first = |d: usize, o: usize| taps.inside[d].iter().position(|r| r.contains(&o)).unwrap_or(0);
    let firsts: Vec<u32> = (0..windows)
        .map(|i| [i / (w.output[1] * width), i / width % w.output[1], i % width])
        .map(|o| ((first(0, o[0]) * w.size[1] + first(1, o[1])) * w.size[2] + first(2, o[2])) as u32)
        .collect();
    launch(&[from], &[&ty, &tp, &ti], move || {
        for_planes(planes, places, w.places(), |p| {
            let x = &src.slice()[offset + p * places..][..places];
            let best = y.part(p * windows, windows);
            best.fill(low);
            let mut place = firsts.clone();
            taps.for_rows(|row, tap, at, o| {
                let (n, to) = (o.len(), row * width + o.start..row * width + o.end);
                larger(
                    &x[at..at + reach(n, w.stride[2])],
                    w.stride[2],
                    tap as u32,
                    &mut best[to.clone()],
                    &mut place[to],
                );
            });
            if keep && bytes {
                small.part(p * windows, windows).iter_mut().zip(&place).for_each(|(o, &k)| *o = k as u8);
            } else if keep {
                large.part(p * windows, windows).iter_mut().zip(&place).for_each(|(o, &k)| *o = k as i32);
            }
            if with_indices {
                for (i, (out, &k)) in indices.part(p * windows, windows).iter_mut().zip(&place).enumerate() {
                    *out = taps.at([i / (w.output[1] * width), i / width % w.output[1], i % width], k as usize) as i64;
                }
            }
        });
    });
    let mut fused = Fused::one(finish(ty)?);
    if op.indices {
        fused.outputs.push(finish(ti)?);
    }
    Ok(if keep { fused.keep(kept, finish(tp)?) } else { fused })
}

fn max_backward<T: Float>(w: &Window, x: &[View<'_>]) -> Result<Fused> {
    let (mut layout, mut made) = (*x[0].layout, None);
    let g = dense(x[0], &mut layout, &mut made)?;
    let (mut layout, mut made) = (*x[1].layout, None);
    let kept = dense(x[1], &mut layout, &mut made)?;
    let (w, taps, planes) = (*w, Taps::of(w), g.shape()[0] * g.shape()[1]);
    let (places, windows, width) = (w.input.iter().product::<usize>(), w.windows(), w.output[2]);
    let (sg, sk, to) = (storage(g.buffer)?, storage(kept.buffer)?, CpuStorage::new(planes * places * size_of::<T>())?);
    let (g, at, kept_at, dx) = (In::<T>::of(sg), g.layout.offset(), kept.layout.offset(), Out::<T>::of(&to));
    let (small, large, bytes) = (In::<u8>::of(sk), In::<i32>::of(sk), kept.dtype == DType::U8);
    // Where a tap lies from its window's first place, which may lie before the plane.
    let size = w.size;
    let tap_at = |k: usize| {
        let k = [k / (size[1] * size[2]), k / size[2] % size[1], k % size[2]];
        let [z, y, x] = std::array::from_fn(|d| (k[d] * w.dilation[d]) as isize - w.before[d] as isize);
        (z * w.input[1] as isize + y) * w.input[2] as isize + x
    };
    let offsets: Vec<isize> = (0..w.places()).map(tap_at).collect();
    launch(&[sg, sk], &[&to], move || {
        for_planes(planes, places, 4, |p| {
            let (g, dx) = (&g.slice()[at + p * windows..][..windows], dx.part(p * places, places));
            dx.fill(T::ZERO);
            for (row, g) in g.chunks_exact(width).enumerate() {
                let (z, y) = (row / taps.w.output[1], row % taps.w.output[1]);
                let line = (z * w.stride[0] * w.input[1] + y * w.stride[1]) * w.input[2];
                let first = p * windows + row * width + kept_at;
                let mut put = |i: usize, g: T, k: usize| {
                    // An index that no kernel wrote could lie outside; the slice's own check then tells.
                    let d = &mut dx[((line + i * w.stride[2]) as isize + offsets[k]) as usize];
                    *d = *d + g;
                };
                match bytes {
                    true => g
                        .iter()
                        .zip(&small.slice()[first..])
                        .enumerate()
                        .for_each(|(i, (&g, &k))| put(i, g, k as usize)),
                    false => g
                        .iter()
                        .zip(&large.slice()[first..])
                        .enumerate()
                        .for_each(|(i, (&g, &k))| put(i, g, k as usize)),
                }
            }
        });
    });
    Ok(Fused::one(finish(to)?))
}

/// The means of windows, or (`backward`) the gradient of that.
fn mean<T: Float + Element>(op: AvgPool, x: View<'_>, backward: bool) -> Result<Fused> {
    let (mut layout, mut made) = (*x.layout, None);
    let x = dense(x, &mut layout, &mut made)?;
    let w = op.window;
    let (taps, planes) = (Taps::of(&w), x.shape()[0] * x.shape()[1]);
    let (places, windows, width) = (w.input.iter().product::<usize>(), w.windows(), w.output[2]);
    let (read, written) = if backward { (windows, places) } else { (places, windows) };
    let (from, to) = (storage(x.buffer)?, CpuStorage::new(planes * written * size_of::<T>())?);
    let (src, offset, out) = (In::<T>::of(from), x.layout.offset(), Out::<T>::of(&to));
    let divisor = |i: usize| {
        let o = [i / (w.output[1] * width), i / width % w.output[1], i % width];
        (0..w.rank).map(|d| op.divisor(d, o[d])).product::<usize>()
    };
    let scale: Vec<T> = (0..windows).map(|i| T::from_f64(1.0 / divisor(i) as f64)).collect();
    launch(&[from], &[&to], move || {
        for_planes(planes, places, w.places(), |p| {
            let (x, y) = (&src.slice()[offset + p * read..][..read], out.part(p * written, written));
            y.fill(T::ZERO);
            if backward {
                let mut g = vec![T::ZERO; windows];
                scaled(x, &scale, &mut g);
                taps.for_rows(|row, _, at, o| {
                    let n = o.len();
                    spread(
                        &g[row * width + o.start..row * width + o.end],
                        w.stride[2],
                        &mut y[at..at + reach(n, w.stride[2])],
                    );
                });
            } else {
                taps.for_rows(|row, _, at, o| {
                    let n = o.len();
                    add_strided(
                        &x[at..at + reach(n, w.stride[2])],
                        w.stride[2],
                        &mut y[row * width + o.start..row * width + o.end],
                    );
                });
                y.iter_mut().zip(&scale).for_each(|(y, &s)| *y = *y * s);
            }
        });
    });
    Ok(Fused::one(finish(to)?))
}
