//! Pooling, forward and backward: rows of windows at once, tap by tap.

mod pairs;

use crate::dense::MadeDense;
use crate::elementwise::finish;
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::pool::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad};
use gradus_core::functional::window::Window;
use gradus_core::{DType, Element, Meta, Result};
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

/// The same windows with their last dimension in the last place, where rows are.
pub(crate) fn trailing(w: &Window) -> Window {
    let unused = 3 - w.rank;
    let shift = |lens: [usize; 3], one: usize| std::array::from_fn(|d| if d < unused { one } else { lens[d - unused] });
    Window {
        rank: w.rank,
        input: shift(w.input, 1),
        output: shift(w.output, 1),
        size: shift(w.size, 1),
        stride: shift(w.stride, 1),
        before: shift(w.before, 0),
        dilation: shift(w.dilation, 1),
    }
}

fn fits(x: &[View<'_>]) -> bool {
    x.iter().all(|v| v.elements() > 0)
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
    /// The places of tap `tap` in its window, dimension by dimension.
    #[inline(always)]
    fn unravel(&self, tap: usize) -> [usize; 3] {
        let s = self.w.size;
        [tap / (s[1] * s[2]), tap / s[2] % s[1], tap % s[2]]
    }
    /// Where tap `tap` of the window at `o` lies in a plane.
    fn at(&self, o: [usize; 3], tap: usize) -> usize {
        let k = self.unravel(tap);
        let [z, y, x] = std::array::from_fn(|d| self.place(d, o[d], k[d]));
        (z * self.w.input[1] + y) * self.w.input[2] + x
    }
}

/// What the planes of a chunk are worked out in.
struct Room<T> {
    numbers: Vec<T>,
    places: Vec<u8>,
}

/// Planes in chunks of about 16,000 places: calls `f(plane, room)` for each, with room that planes of a chunk share.
fn for_planes<T>(planes: usize, places: usize, taps: usize, f: impl Fn(usize, &mut Room<T>) + Send + Sync) {
    let per = (16_384 / places.max(1)).max(1);
    for_chunks(planes.div_ceil(per), planes * places * taps.div_ceil(4), |c| {
        let mut room = Room { numbers: Vec::new(), places: Vec::new() };
        (c * per..planes.min((c + 1) * per)).for_each(|p| f(p, &mut room));
    });
}

/// How the place of a window's largest number, its tap, is kept: in a byte where that can hold all taps.
trait Place: Element {
    fn of(tap: u32) -> Self;
}
impl Place for u8 {
    #[inline(always)]
    fn of(tap: u32) -> u8 {
        tap as u8
    }
}
impl Place for i32 {
    #[inline(always)]
    fn of(tap: u32) -> i32 {
        tap as i32
    }
}

// Rows are often shorter than a register, and a choice left over becomes a branch, which random numbers mispredict half of the
// time. So a tap's numbers of all windows are brought side by side first, and chosen from in whole registers.
vectorized! {
    /// The number that each window of a plane sees at one tap; `low` where the tap lies outside.
    fn seen_at<T: Float>(taps: &Taps, tap: usize, x: &[T], low: T, seen: &mut [T]) {
        let (w, [kz, ky, kx]) = (&taps.w, taps.unravel(tap));
        let (columns, stride) = (&taps.inside[2][kx], w.stride[2]);
        for (row, seen) in seen.chunks_exact_mut(w.output[2]).enumerate() {
            let (z, y) = (row / w.output[1], row % w.output[1]);
            if columns.is_empty() || !taps.inside[0][kz].contains(&z) || !taps.inside[1][ky].contains(&y) {
                seen.fill(low);
                continue;
            }
            let line = (taps.place(0, z, kz) * w.input[1] + taps.place(1, y, ky)) * w.input[2];
            let x = &x[line + taps.place(2, columns.start, kx)..];
            seen[..columns.start].fill(low);
            seen[columns.end..].fill(low);
            let seen = &mut seen[columns.clone()];
            match stride {
                1 => seen.copy_from_slice(&x[..seen.len()]),
                2 => {
                    // In pairs, of which the last may be cut short.
                    let last = seen.len() - 1;
                    seen[..last].iter_mut().zip(x.chunks_exact(2)).for_each(|(s, x)| *s = x[0]);
                    seen[last] = x[2 * last];
                }
                _ => seen.iter_mut().zip(x.iter().step_by(stride)).for_each(|(s, &x)| *s = x),
            }
        }
    }
    /// The larger of each pair, and whose it was; the first NaN stays.
    fn larger<T: Float, P: Place>(seen: &[T], tap: P, best: &mut [T], place: &mut [P]) {
        for ((b, p), &v) in best.iter_mut().zip(place).zip(seen) {
            let better = (v > *b) | (v.is_nan() & !b.is_nan());
            *b = if better { v } else { *b };
            *p = if better { tap } else { *p };
        }
    }
    /// The gradients of the windows whose largest number was at `tap`, and zeros.
    fn chosen<T: Float>(g: &[T], place: &[u8], tap: u8, out: &mut [T]) {
        for ((o, &g), &k) in out.iter_mut().zip(g).zip(place) {
            *o = if k == tap { g } else { T::ZERO };
        }
    }
    /// Each window's number put to one tap of it.
    fn put_at<T: Float>(taps: &Taps, tap: usize, from: &[T], x: &mut [T]) {
        let (w, [kz, ky, kx]) = (&taps.w, taps.unravel(tap));
        for (row, from) in from.chunks_exact(w.output[2]).enumerate() {
            let (z, y) = (row / w.output[1], row % w.output[1]);
            let line = (taps.place(0, z, kz) * w.input[1] + taps.place(1, y, ky)) * w.input[2];
            let x = &mut x[line + taps.place(2, 0, kx)..];
            if w.stride[2] == 2 {
                let last = from.len() - 1;
                x.chunks_exact_mut(2).zip(&from[..last]).for_each(|(x, &v)| x[0] = v);
                x[2 * last] = from[last];
            } else {
                x.iter_mut().step_by(w.stride[2]).zip(from).for_each(|(x, &v)| *x = v);
            }
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

/// How many places of a row `n` windows a stride apart touch, from their first on.
fn reach(n: usize, stride: usize) -> usize {
    (n - 1) * stride + 1
}

fn max_forward<T: Float + Element>(op: &MaxPool, x: View<'_>, out: Meta, keep: bool, low: T) -> Result<Fused> {
    match MaxPool::places_dtype(&op.window) {
        DType::U8 => max_with::<T, u8>(op, x, out, keep, low),
        _ => max_with::<T, i32>(op, x, out, keep, low),
    }
}

fn max_with<T: Float + Element, P: Place>(op: &MaxPool, x: View<'_>, out: Meta, keep: bool, low: T) -> Result<Fused> {
    let mut made = MadeDense::default();
    let x = made.of(x)?;
    let w = trailing(&op.window);
    let (taps, planes) = (Taps::of(&w), x.shape()[0] * x.shape()[1]);
    let (places, windows, width) = (w.input.iter().product::<usize>(), w.windows(), w.output[2]);
    let (from, ty) = (storage(x.buffer)?, CpuStorage::new(planes * windows * size_of::<T>())?);
    let tp = CpuStorage::new(planes * windows * size_of::<P>())?;
    let ti = CpuStorage::new(if op.indices { planes * windows * 8 } else { 0 })?;
    let (src, offset, y) = (In::<T>::of(from), x.layout.offset(), Out::<T>::of(&ty));
    let (kept, indices, with_indices) = (Out::<P>::of(&tp), Out::<i64>::of(&ti), op.indices);
    // For each window, its first tap that lies inside: what a window of −∞ alone gives.
    let first = |d: usize, o: usize| taps.inside[d].iter().position(|r| r.contains(&o)).unwrap_or(0);
    let unravel = move |i: usize| [i / (w.output[1] * width), i / width % w.output[1], i % width];
    let firsts: Vec<P> = (0..windows)
        .map(unravel)
        .map(|o| P::of(((first(0, o[0]) * w.size[1] + first(1, o[1])) * w.size[2] + first(2, o[2])) as u32))
        .collect();
    let (pairs, bytes) = (P::DTYPE == DType::U8 && pairs::fits(&w), Out::<u8>::of(&tp));
    launch(&[from], &[&ty, &tp, &ti], move || {
        for_planes(planes, places, w.places(), |p, room: &mut Room<T>| {
            let x = &src.slice()[offset + p * places..][..places];
            let (best, place) = (y.part(p * windows, windows), kept.part(p * windows, windows));
            if pairs {
                pairs::forward(&w, x, &mut room.numbers, &mut room.places, best, bytes.part(p * windows, windows));
            } else {
                best.fill(low);
                place.copy_from_slice(&firsts);
                room.numbers.resize(windows, low);
                for tap in 0..w.places() {
                    seen_at(&taps, tap, x, low, &mut room.numbers);
                    larger(&room.numbers, P::of(tap as u32), best, place);
                }
            }
            if with_indices {
                for (i, (out, k)) in indices.part(p * windows, windows).iter_mut().zip(place).enumerate() {
                    *out = taps.at(unravel(i), k.to_i64() as usize) as i64;
                }
            }
        });
    });
    let mut fused = Fused::one(finish(ty)?);
    if op.indices {
        fused.outputs.push(finish(ti)?);
    }
    Ok(if keep { fused.keep(Meta::new(P::DTYPE, out.shape), finish(tp)?) } else { fused })
}

/// Whether the windows are tiles: side by side, without padding.
fn tiles(w: &Window) -> bool {
    w.stride == w.size
        && w.before == [0; 3]
        && w.dilation == [1; 3]
        && (0..3).all(|d| w.output[d] * w.size[d] <= w.input[d])
}

fn max_backward<T: Float>(w: &Window, x: &[View<'_>]) -> Result<Fused> {
    let mut made = [MadeDense::default(), MadeDense::default()];
    let [made_g, made_kept] = &mut made;
    let (g, kept) = (made_g.of(x[0])?, made_kept.of(x[1])?);
    match kept.dtype {
        DType::U8 => max_backward_with::<T, u8>(*w, g, kept),
        _ => max_backward_with::<T, i32>(*w, g, kept),
    }
}

fn max_backward_with<T: Float, P: Place>(w: Window, g: View<'_>, kept: View<'_>) -> Result<Fused> {
    let w = trailing(&w);
    let (rows, planes) = (w.output[1], g.shape()[0] * g.shape()[1]);
    let (places, windows, width) = (w.input.iter().product::<usize>(), w.windows(), w.output[2]);
    let (sg, sk, to) = (storage(g.buffer)?, storage(kept.buffer)?, CpuStorage::new(planes * places * size_of::<T>())?);
    let (g, at, kept_at, dx) = (In::<T>::of(sg), g.layout.offset(), kept.layout.offset(), Out::<T>::of(&to));
    let (taps_kept, bytes) = (In::<P>::of(sk), In::<u8>::of(sk));
    // Where a tap lies from its window's first place, which may lie before the plane.
    let size = w.size;
    let tap_at = |k: usize| {
        let k = [k / (size[1] * size[2]), k / size[2] % size[1], k % size[2]];
        let [z, y, x] = std::array::from_fn(|d| (k[d] * w.dilation[d]) as isize - w.before[d] as isize);
        (z * w.input[1] as isize + y) * w.input[2] as isize + x
    };
    let offsets: Vec<isize> = (0..w.places()).map(tap_at).collect();
    // Tiles write each place once.
    let (tiles, taps) = (P::DTYPE == DType::U8 && tiles(&w), Taps::of(&w));
    let covered = (0..3).all(|d| w.output[d] * w.size[d] == w.input[d]);
    launch(&[sg, sk], &[&to], move || {
        for_planes(planes, places, 4, |p, room: &mut Room<T>| {
            let (g, dx) = (&g.slice()[at + p * windows..][..windows], dx.part(p * places, places));
            if !(tiles && covered) {
                dx.fill(T::ZERO);
            }
            if tiles {
                let place = &bytes.slice()[kept_at + p * windows..][..windows];
                if pairs::fits(&w) {
                    return pairs::backward(&w, g, place, dx);
                }
                room.numbers.resize(windows, T::ZERO);
                for tap in 0..w.places() {
                    chosen(g, place, tap as u8, &mut room.numbers);
                    put_at(&taps, tap, &room.numbers, dx);
                }
                return;
            }
            let kept = &taps_kept.slice()[kept_at + p * windows..][..windows];
            for (row, (g, kept)) in g.chunks_exact(width).zip(kept.chunks_exact(width)).enumerate() {
                let line = (row / rows * w.stride[0] * w.input[1] + row % rows * w.stride[1]) * w.input[2];
                for (i, (&g, k)) in g.iter().zip(kept).enumerate() {
                    // An index that no kernel wrote could lie outside; the slice's own check then tells.
                    let d = &mut dx[((line + i * w.stride[2]) as isize + offsets[k.to_i64() as usize]) as usize];
                    *d = *d + g;
                }
            }
        });
    });
    Ok(Fused::one(finish(to)?))
}

/// The means of windows, or (`backward`) the gradient of that.
fn mean<T: Float + Element>(op: AvgPool, x: View<'_>, backward: bool) -> Result<Fused> {
    let mut made = MadeDense::default();
    let x = made.of(x)?;
    let w = trailing(&op.window);
    let (taps, planes) = (Taps::of(&w), x.shape()[0] * x.shape()[1]);
    let (places, windows, width) = (w.input.iter().product::<usize>(), w.windows(), w.output[2]);
    let (read, written) = if backward { (windows, places) } else { (places, windows) };
    let (from, to) = (storage(x.buffer)?, CpuStorage::new(planes * written * size_of::<T>())?);
    let (src, offset, out) = (In::<T>::of(from), x.layout.offset(), Out::<T>::of(&to));
    let divisor = |i: usize| {
        let o = [i / (w.output[1] * width), i / width % w.output[1], i % width];
        (0..w.rank).map(|d| op.divisor(d, o[3 - w.rank + d])).product::<usize>()
    };
    let scale: Vec<T> = (0..windows).map(|i| T::from_f64(1.0 / divisor(i) as f64)).collect();
    launch(&[from], &[&to], move || {
        for_planes(planes, places, w.places(), |p, room: &mut Room<T>| {
            let (x, y) = (&src.slice()[offset + p * read..][..read], out.part(p * written, written));
            y.fill(T::ZERO);
            if backward {
                let g = &mut room.numbers;
                g.resize(windows, T::ZERO);
                scaled(x, &scale, g);
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
