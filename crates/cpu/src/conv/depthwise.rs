//! Convolutions of each channel by itself (as many groups as channels), over one or two dimensions.
//!
//! A register holds the same place of as many channels ([`pixels`](super::pixels)), and a tap is one multiply-add of registers:
//! images are laid out, and their windows found, as for [`direct`](super::direct) convolutions of one register of channels. Work is cut by images
//! and registers of channels, whatever the number of threads; sums over images are added in a fixed order.

use super::direct::{Pass, Plan, sum_parts};
use super::epilogue::Epilogue;
use super::pixels::{from_pixels, to_pixels};
use crate::dense::Dense;
use crate::elementwise::finish;
use crate::launch::{Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::room::with_parts;
use crate::threads::for_chunks;
use crate::vector::{Real, Vector, by_level, lanes};
use gradus_core::backend::View;
use gradus_core::composite::Fused;
use gradus_core::functional::conv::Conv;
use gradus_core::functional::window::Window;
use gradus_core::{Buffer, DType, Result};

/// How many results of a row, or taps' gradients, are summed side by side, so that none waits for its last addition.
const RESULTS: usize = 8;
const TAPS: usize = 9;

/// Whether each of so many channels read gives one written.
pub(super) fn fits(conv: &Conv, reads: usize, writes: usize) -> bool {
    conv.groups > 1 && conv.groups == reads && conv.groups == writes && conv.window.rank <= 2
}

/// A plan for one register of channels at a time, and where each pass's taps lie from a window's first number.
struct Layers {
    plan: Plan,
    starts: Vec<Vec<usize>>,
    channels: usize,
    lanes: usize,
}

impl Layers {
    fn new(plan: Plan, channels: usize, lanes: usize) -> Layers {
        let of = |pass: &Pass| {
            let taps_of_run = |&first: &usize| (first..first + pass.run).step_by(lanes);
            pass.runs.iter().flat_map(taps_of_run).collect()
        };
        Layers { starts: plan.passes.iter().map(of).collect(), plan, channels, lanes }
    }
    fn registers(&self) -> usize {
        self.channels.div_ceil(self.lanes)
    }
    /// The channels of a register: the first, and how many.
    fn channels(&self, register: usize) -> (usize, usize) {
        let first = register * self.lanes;
        (first, self.lanes.min(self.channels - first))
    }
    /// Nanoseconds for all images, estimated: a tap takes half a cycle, a place's way there and back ten.
    fn work(&self) -> usize {
        let windows: usize = self.plan.passes.iter().map(|p| p.count[0] * p.count[1] * p.taps.len()).sum();
        self.plan.images * self.registers() * (windows / 4 + self.plan.write_places.len() * 2)
    }
    /// Writes each register's weights, tap by tap, and then its bias; zeros for channels beyond the last.
    fn pack<T: Real>(&self, w: &[T], bias: Option<&[T]>, out: &mut [T]) {
        let taps = self.plan.taps;
        out.fill(T::ZERO);
        for (register, out) in out.chunks_exact_mut((taps + 1) * self.lanes).enumerate() {
            let (first, count) = self.channels(register);
            for c in 0..count {
                for (k, &w) in w[(first + c) * taps..][..taps].iter().enumerate() {
                    out[k * self.lanes + c] = w;
                }
                out[taps * self.lanes + c] = bias.map_or(T::ZERO, |b| b[first + c]);
            }
        }
    }
    fn packed(&self) -> usize {
        self.registers() * (self.plan.taps + 1) * self.lanes
    }
    /// Room for the canvas and the results (or their gradients) of one image.
    fn room(&self) -> [usize; 2] {
        [self.plan.canvas_room(), self.plan.write_places.len() * self.lanes]
    }
}

/// Lays out the planes of one register of channels.
#[inline(always)]
unsafe fn fill_canvas<V: Vector>(p: &Plan, planes: &[V::T], canvas: &mut [V::T]) {
    if p.padded {
        canvas.fill(V::T::ZERO);
    }
    // SAFETY: the canvas has a register for every place.
    unsafe { to_pixels::<V>(planes, planes.len() / p.read_places.len(), &p.read_places, V::LANES, canvas.as_mut_ptr()) }
}

by_level! {
    /// Convolves one register of an image's channels: planes of `x` to planes of `y`.
    ///
    /// # Safety
    /// `weights` and `room` are of these layers.
    unsafe fn convolve<T>(l: &Layers, x: &[T], weights: &[T], then: Epilogue<T>, room: [&mut [T]; 2], y: &mut [T]) => convolve_of
}

#[inline(always)]
unsafe fn convolve_of<V: Vector>(
    l: &Layers,
    x: &[V::T],
    weights: &[V::T],
    then: Epilogue<V::T>,
    [canvas, target]: [&mut [V::T]; 2],
    y: &mut [V::T],
) {
    let p = &l.plan;
    let bias = &weights[p.taps * V::LANES..];
    // SAFETY: the canvas holds every tap of every window, and the target every place.
    unsafe {
        fill_canvas::<V>(p, x, canvas);
        if p.leaves_gaps {
            target.chunks_exact_mut(V::LANES).for_each(|place| place.copy_from_slice(bias));
        }
        for (pass, starts) in p.passes.iter().zip(&l.starts) {
            for row in 0..pass.count[0] {
                let from = canvas.as_ptr().add(pass.from + row * pass.from_step[0]);
                let to = target.as_mut_ptr().add((pass.to + row * pass.to_step[0]) * V::LANES);
                let row = Row { pass, starts, weights: weights.as_ptr(), bias: V::load(bias.as_ptr()), from, to };
                match pass.count[1].checked_sub(RESULTS) {
                    // The last ones go over some windows a second time.
                    Some(last) => {
                        (0..last + RESULTS).step_by(RESULTS).for_each(|first| row.windows::<RESULTS>(first.min(last)));
                    }
                    None => (0..pass.count[1]).for_each(|first| row.windows::<1>(first)),
                }
            }
        }
        from_pixels::<V>(target.as_ptr(), &p.write_places, V::LANES, y.len() / p.write_places.len(), then, y);
    }
}

/// A row of windows.
struct Row<'a, V: Vector> {
    pass: &'a Pass,
    starts: &'a [usize],
    weights: *const V::T,
    bias: V,
    from: *const V::T,
    to: *mut V::T,
}

impl<V: Vector> Row<'_, V> {
    /// N neighbouring windows.
    #[inline(always)]
    unsafe fn windows<const N: usize>(&self, first: usize) {
        let mut sums = [self.bias; N];
        // SAFETY: by the caller, these windows and their results are there.
        unsafe {
            let from = self.from.add(first * self.pass.from_step[1]);
            for (&start, &tap) in self.starts.iter().zip(&self.pass.taps) {
                let w = V::load(self.weights.add(tap * V::LANES));
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.fma(w, V::load(from.add(start + i * self.pass.from_step[1])));
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                sum.store(self.to.add((first + i) * self.pass.to_step[1] * V::LANES));
            }
        }
    }
}

/// y from x.
pub(super) fn forward<T: Real>(conv: &Conv, x: &[View<'_>], then: Epilogue<T>) -> Result<Fused> {
    run(conv, x, Plan::forward, then)
}

/// x from y.
pub(super) fn transposed<T: Real>(conv: &Conv, x: &[View<'_>], then: Epilogue<T>) -> Result<Fused> {
    run(conv, x, Plan::transposed, then)
}

/// A plan for so many images, channels read and written, and lanes.
type Planner = fn(&Window, usize, usize, usize, usize) -> Plan;

fn run<T: Real>(conv: &Conv, x: &[View<'_>], plan: Planner, then: Epilogue<T>) -> Result<Fused> {
    let (images, lanes) = (x[0].shape()[0], lanes::<T>());
    let l = Layers::new(plan(&conv.window, images, lanes, lanes, lanes), conv.groups, lanes);
    let (size, [plane, result]) = (size_of::<T>(), [l.plan.read_places.len(), l.plan.write_places.len()]);
    let (to, room) =
        (CpuStorage::new(l.plan.images * l.channels * result * size)?, CpuStorage::new(l.packed() * size)?);
    let (out, packed) = (Out::<T>::of(&to), Out::<T>::of(&room));
    let inputs = Dense::<T>::all(x)?;
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    launch(&reads, &[&to, &room], move || {
        l.pack(inputs[1].slice(), inputs.get(2).map(|b| b.slice()), packed.slice());
        let registers = l.registers();
        for_chunks(l.plan.images * registers, l.work(), |i| {
            let (image, register) = (i / registers, i % registers);
            let (first, count) = l.channels(register);
            let channel = image * l.channels + first;
            let x = &inputs[0].slice()[channel * plane..][..count * plane];
            let y = out.part(channel * result, count * result);
            let weights = packed.whole().chunks_exact(l.packed() / registers).nth(register).unwrap_or(&[]);
            // SAFETY: the weights are the register's, and the room is as large as asked for.
            with_parts(l.room(), |room| unsafe { convolve(&l, x, weights, then, room, y) })
        });
    });
    Ok(Fused::one(finish(to)?))
}

by_level! {
    /// Adds one image's part of the gradients of a register's taps, and then of its bias, to `sums`.
    ///
    /// # Safety
    /// `sums` and `room` are of these layers.
    unsafe fn correlate<T>(l: &Layers, x: &[T], g: &[T], room: [&mut [T]; 2], sums: &mut [T]) => correlate_of
}

#[inline(always)]
unsafe fn correlate_of<V: Vector>(
    l: &Layers,
    x: &[V::T],
    g: &[V::T],
    [canvas, grads]: [&mut [V::T]; 2],
    sums: &mut [V::T],
) {
    let (p, pass) = (&l.plan, &l.plan.passes[0]);
    // SAFETY: the canvas holds every tap of every window, `grads` every place, `sums` a register for each tap and the bias.
    unsafe {
        fill_canvas::<V>(p, x, canvas);
        let places = p.write_places.len();
        to_pixels::<V>(g, g.len() / places, &p.write_places, V::LANES, grads.as_mut_ptr());
        for (block, starts) in l.starts[0].chunks(TAPS).enumerate() {
            // As many taps as are summed side by side: beyond the last, the last once more.
            let at: [usize; TAPS] = std::array::from_fn(|i| starts[i.min(starts.len() - 1)]);
            let mut of_taps = [V::zero(); TAPS];
            let mut g = grads.as_ptr();
            for row in 0..pass.count[0] {
                let mut from = canvas.as_ptr().add(row * pass.from_step[0]);
                for _ in 0..pass.count[1] {
                    let here = V::load(g);
                    for (sum, &at) in of_taps.iter_mut().zip(&at) {
                        *sum = sum.fma(here, V::load(from.add(at)));
                    }
                    g = g.add(V::LANES);
                    from = from.add(pass.from_step[1]);
                }
            }
            for (sum, &tap) in of_taps.iter().zip(&pass.taps[block * TAPS..]) {
                add_to::<V>(sums.as_mut_ptr().add(tap * V::LANES), *sum);
            }
        }
        let mut of_bias = V::zero();
        for place in 0..places {
            of_bias = of_bias.add(V::load(grads.as_ptr().add(place * V::LANES)));
        }
        add_to::<V>(sums.as_mut_ptr().add(p.taps * V::LANES), of_bias);
    }
}

#[inline(always)]
unsafe fn add_to<V: Vector>(p: *mut V::T, more: V) {
    // SAFETY: a register's numbers are there, by the caller.
    unsafe { V::load(p).add(more).store(p) }
}

/// The gradients of the taps, and of the bias.
pub(super) fn weight_grad(conv: &Conv, x: &[View<'_>]) -> Result<[Buffer; 2]> {
    match x[0].dtype {
        DType::F64 => weight_grad_of::<f64>(conv, x),
        _ => weight_grad_of::<f32>(conv, x),
    }
}

fn weight_grad_of<T: Real>(conv: &Conv, x: &[View<'_>]) -> Result<[Buffer; 2]> {
    let (images, lanes, size) = (x[0].shape()[0], lanes::<T>(), size_of::<T>());
    let l = Layers::new(Plan::forward(&conv.window, images, lanes, lanes, lanes), conv.groups, lanes);
    let (taps, registers) = (l.plan.taps, l.registers());
    let (tw, tb) = (CpuStorage::new(l.channels * taps * size)?, CpuStorage::new(l.channels * size)?);
    // Few registers of channels: images in parts as well, whose sums are added in order.
    let parts = 8usize.div_ceil(registers).min(images);
    let room = CpuStorage::new(parts * l.packed() * size)?;
    let inputs = [Dense::<T>::of(x[0])?, Dense::<T>::of(x[1])?];
    let (dw, db, partial) = (Out::<T>::of(&tw), Out::<T>::of(&tb), Out::<T>::of(&room));
    launch(&[storage(x[0].buffer)?, storage(x[1].buffer)?], &[&tw, &tb, &room], move || {
        let [x_plane, g_plane] = [l.plan.read_places.len(), l.plan.write_places.len()];
        let len = l.packed() / registers;
        for_chunks(parts * registers, l.work(), |i| {
            let (part, register) = (i / registers, i % registers);
            let (first, count) = l.channels(register);
            let sums = partial.part(i * len, len);
            sums.fill(T::ZERO);
            for image in images * part / parts..images * (part + 1) / parts {
                let channel = image * l.channels + first;
                let x = &inputs[0].slice()[channel * x_plane..][..count * x_plane];
                let g = &inputs[1].slice()[channel * g_plane..][..count * g_plane];
                // SAFETY: the sums are the register's, and the room is as large as asked for.
                with_parts(l.room(), |room| unsafe { correlate(&l, x, g, room, sums) })
            }
        });
        sum_parts(&partial, parts, l.packed());
        let (sums, dw, db) = (partial.whole(), dw.slice(), db.slice());
        for c in 0..l.channels {
            let at = |k: usize| sums[c / lanes * len + k * lanes + c % lanes];
            dw[c * taps..][..taps].iter_mut().enumerate().for_each(|(k, w)| *w = at(k));
            db[c] = at(taps);
        }
    });
    Ok([finish(tw)?, finish(tb)?])
}
