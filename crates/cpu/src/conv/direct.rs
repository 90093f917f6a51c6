//! Convolutions over one or two dimensions with channels side by side: matrix products read in place, no columns written.
//!
//! An image is laid out once as a padded canvas of pixels ([`pixels`](super::pixels)). A row of results is then a product of as
//! many rows as it has windows, a window's step apart on the canvas, and each tap (or, side by side, a row of taps) is a run of
//! the sum. The transposed convolution is a convolution for each remainder of the stride ([`phases`](super::phases)), and the taps' gradient the product
//! the other way: taps × windows × outputs. Work is cut by images, whatever the number of threads.

use super::epilogue::Epilogue;
use super::phases::{Phase, Phases};
use super::pixels::{fetch_ahead, from_pixels, places, to_pixels};
use crate::dense::Dense;
use crate::elementwise::finish;
use crate::launch::{Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::panel::{Panel, WHOLE, multiply};
use crate::room::with_parts;
use crate::threads::{for_chunks, for_ranges};
use crate::vector::{Real, Vector, by_level, lanes};
use gradus_core::backend::View;
use gradus_core::composite::Fused;
use gradus_core::functional::conv::Conv;
use gradus_core::functional::window::Window;
use gradus_core::{Buffer, Result};

/// Whether a convolution is one for these kernels.
pub(super) fn fits(conv: &Conv) -> bool {
    conv.groups == 1 && conv.window.rank <= 2
}

/// A window's lengths as rows and columns.
fn plane(w: &Window, lens: [usize; 3]) -> [usize; 2] {
    if w.rank == 1 { [1, lens[0]] } else { [lens[0], lens[1]] }
}

/// Windows that are a product: those of one remainder of the stride.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// Where the runs of taps begin, from a window's first number, and how long they are.
    pub(super) runs: Vec<usize>,
    pub(super) run: usize,
    /// The taps, in the order of the runs.
    pub(super) taps: Vec<usize>,
    /// Rows and columns of windows.
    pub(super) count: [usize; 2],
    /// The canvas number of the first window, and how far apart rows and columns of windows are there.
    pub(super) from: usize,
    pub(super) from_step: [usize; 2],
    /// The same of the results, in places.
    pub(super) to: usize,
    pub(super) to_step: [usize; 2],
    /// Where its packed weights begin, in numbers.
    pub(super) packed: usize,
}

/// A convolution between two stacks of planes.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) images: usize,
    pub(super) reads: usize,
    pub(super) writes: usize,
    /// Numbers of a canvas place, and results' channels up to a multiple of a register.
    pub(super) pitch: usize,
    pub(super) wide: usize,
    pub(super) read_places: Vec<u32>,
    pub(super) write_places: Vec<u32>,
    /// Numbers of a canvas.
    pub(super) canvas: usize,
    /// Whether places around the image are read as zeros.
    pub(super) padded: bool,
    pub(super) passes: Vec<Pass>,
    pub(super) taps: usize,
    pub(super) read_step: usize,
    pub(super) write_step: usize,
    /// Places of the results that no pass reaches.
    pub(super) leaves_gaps: bool,
}

/// Taps at these numbers of a canvas as runs: side by side, taps of one row are one run.
fn runs_of(starts: &[usize], channels: usize) -> (Vec<usize>, usize) {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &start in starts {
        match runs.last_mut() {
            Some((first, len)) if *first + *len == start => *len += channels,
            _ => runs.push((start, channels)),
        }
    }
    if runs.iter().all(|r| r.1 == runs[0].1) {
        return (runs.iter().map(|r| r.0).collect(), runs[0].1);
    }
    (starts.to_vec(), channels)
}

/// Numbers between places: channels alone where few, else up to a multiple of a register, since whole registers are written.
fn pitch_of(channels: usize, lanes: usize) -> usize {
    if channels < lanes { channels } else { channels.next_multiple_of(lanes) }
}

impl Plan {
    pub(super) fn forward(w: &Window, images: usize, reads: usize, writes: usize, lanes: usize) -> Plan {
        let [input, output, before, stride] = [w.input, w.output, w.before, w.stride].map(|lens| plane(w, lens));
        let (dilation, before) = (plane(w, w.dilation), if w.rank == 1 { [0, before[1]] } else { before });
        let stride = if w.rank == 1 { [1, stride[1]] } else { stride };
        let size = plane(w, w.size);
        let reach = |d: usize| (output[d] - 1) * stride[d] + (size[d] - 1) * dilation[d] + 1;
        let lens = [reach(0).max(before[0] + input[0]), reach(1).max(before[1] + input[1])];
        let pitch = pitch_of(reads, lanes);
        let taps: Vec<usize> = (0..w.places()).collect();
        let starts: Vec<usize> =
            taps.iter().map(|k| (k / size[1] * dilation[0] * lens[1] + k % size[1] * dilation[1]) * pitch).collect();
        let (runs, run) = if pitch == reads { runs_of(&starts, reads) } else { (starts, reads) };
        let pass = Pass {
            runs,
            run,
            taps,
            count: output,
            from: 0,
            from_step: [stride[0] * lens[1] * pitch, stride[1] * pitch],
            to: 0,
            to_step: [output[1], 1],
            packed: 0,
        };
        Plan {
            images,
            reads,
            writes,
            pitch,
            wide: writes.next_multiple_of(lanes),
            read_places: places(input[0], input[1], lens[1], before[0] * lens[1] + before[1]),
            write_places: places(output[0], output[1], output[1], 0),
            canvas: lens[0] * lens[1] * pitch,
            padded: lens != input,
            passes: vec![pass],
            taps: w.places(),
            read_step: w.places(),
            write_step: reads * w.places(),
            leaves_gaps: false,
        }
    }

    /// x from y.
    pub(super) fn transposed(w: &Window, images: usize, reads: usize, writes: usize, lanes: usize) -> Plan {
        let Phases { all, reach, padded, leaves_gaps } = Phases::new(w);
        // Rows and columns: of one dimension, it is the columns.
        let (row, column) = if w.rank == 1 { (1, 0) } else { (0, 1) };
        let lens = [row, column].map(|d| padded[d].max(reach[d] + w.output[d]));
        let pitch = pitch_of(reads, lanes);
        let number = |place: [usize; 3]| (place[row] * lens[1] + place[column]) * pitch;
        let mut packed = 0;
        let pass = |phase: Phase| {
            let pass = Pass {
                runs: phase.starts.into_iter().map(number).collect(),
                run: reads,
                count: [phase.count[row], phase.count[column]],
                from: number(phase.first),
                from_step: [lens[1] * pitch, pitch],
                to: phase.at[row] * w.input[column] + phase.at[column],
                to_step: [w.stride[row] * w.input[column], w.stride[column]],
                packed,
                taps: phase.taps,
            };
            packed += pass.taps.len() * reads * writes.next_multiple_of(lanes);
            pass
        };
        let passes = all.into_iter().map(pass).collect();
        let (from, to) = ([w.output[row], w.output[column]], [w.input[row], w.input[column]]);
        Plan {
            images,
            reads,
            writes,
            pitch,
            wide: writes.next_multiple_of(lanes),
            read_places: places(from[0], from[1], lens[1], reach[row] * lens[1] + reach[column]),
            write_places: places(to[0], to[1], to[1], 0),
            canvas: lens[0] * lens[1] * pitch,
            padded: lens != from,
            passes,
            taps: w.places(),
            read_step: writes * w.places(),
            write_step: w.places(),
            leaves_gaps,
        }
    }

    /// Nanoseconds for all images, estimated.
    fn work(&self) -> usize {
        let windows: usize = self.passes.iter().map(|p| p.count[0] * p.count[1] * p.taps.len()).sum();
        self.images * (windows * self.reads * self.wide / 50 + self.write_places.len() * self.wide / 8)
    }
    fn packed(&self) -> usize {
        self.passes.iter().map(|p| p.taps.len() * self.reads * self.wide).sum()
    }
    /// The weights of each pass: tap by tap and channel by channel, the written channels side by side.
    fn pack<T: Real>(&self, w: &[T], out: &Out<T>) {
        for pass in &self.passes {
            for_chunks(pass.taps.len(), self.packed() / 2, |t| {
                let out = out.part(pass.packed + t * self.reads * self.wide, self.reads * self.wide);
                for (c, out) in out.chunks_exact_mut(self.wide).enumerate() {
                    for (o, out) in out.iter_mut().enumerate() {
                        let at = c * self.read_step + o * self.write_step + pass.taps[t];
                        *out = if o < self.writes { w[at] } else { T::ZERO };
                    }
                }
            });
        }
    }
    /// One of the images read.
    fn image<'a, T>(&self, images: &'a [T], i: usize) -> &'a [T] {
        let len = self.reads * self.read_places.len();
        &images[i * len..][..len]
    }
    /// Numbers of an image's canvas, and what a register may write beyond it.
    pub(super) fn canvas_room(&self) -> usize {
        self.canvas + 16
    }
}

/// Lays an image out on its canvas.
#[inline(always)]
unsafe fn fill_canvas<V: Vector>(p: &Plan, images: &[V::T], image: usize, canvas: &mut [V::T]) {
    let planes = p.image(images, image);
    if p.padded {
        canvas.fill(V::T::ZERO);
    }
    // SAFETY: the canvas has room for every place and a register more; a register's surplus lanes are zeros, and the places
    // after it are written later.
    unsafe { to_pixels::<V>(planes, p.reads, &p.read_places, p.pitch, canvas.as_mut_ptr()) }
}

/// Some images of a convolution.
#[derive(Clone, Copy)]
struct Job<'a, T> {
    p: &'a Plan,
    from: &'a [T],
    weights: &'a [T],
    /// A number for each written channel, up to a multiple of a register, or none.
    bias: &'a [T],
    then: Epilogue<T>,
    /// Images, from and to.
    images: (usize, usize),
    /// The written channels, from a multiple of a register on.
    channels: (usize, usize),
}

impl<T> Job<'_, T> {
    /// Written channels, up to a multiple of a register.
    fn wide(&self) -> usize {
        (self.channels.1.min(self.p.wide)).max(self.channels.0) - self.channels.0
    }
}

by_level! {
    /// Convolves images; `out` holds all images' results.
    unsafe fn convolve_images<T>(j: Job<'_, T>, room: [&mut [T]; 2], out: &Out<T>) => convolve_images_of
}

#[inline(always)]
unsafe fn convolve_images_of<V: Vector>(j: Job<'_, V::T>, room: [&mut [V::T]; 2], out: &Out<V::T>) {
    let (p, [canvas, target], wide, first) = (j.p, room, j.wide(), j.channels.0);
    let (count, plane) = (p.writes.min(first + wide) - first, p.write_places.len());
    for image in j.images.0..j.images.1 {
        let next = p.image(j.from, (image + 1).min(j.images.1 - 1));
        // SAFETY: the canvas holds every tap of every window, the target every place; the results' planes are this call's alone.
        unsafe {
            fill_canvas::<V>(p, j.from, image, canvas);
            let start = if j.bias.is_empty() { std::ptr::null() } else { j.bias.as_ptr().add(first) };
            if p.leaves_gaps {
                for place in target.chunks_exact_mut(wide) {
                    match j.bias.is_empty() {
                        true => place.fill(V::T::ZERO),
                        false => place.copy_from_slice(&j.bias[first..first + wide]),
                    }
                }
            }
            let results =
                std::ptr::slice_from_raw_parts(out.ptr().add((image * p.writes + first) * plane), count * plane);
            for (k, pass) in p.passes.iter().enumerate() {
                for row in 0..pass.count[0] {
                    let (part, parts) = (k * pass.count[0] + row, p.passes.len() * pass.count[0]);
                    fetch_ahead(next, part, parts);
                    fetch_ahead(results, part, parts);
                    let panel = Panel {
                        rows: pass.count[1],
                        run: pass.run,
                        runs: &pass.runs,
                        a: canvas.as_ptr().add(pass.from + row * pass.from_step[0]),
                        a_row: pass.from_step[1],
                        a_column: 1,
                        b: j.weights.as_ptr().add(pass.packed + first),
                        b_row: p.wide,
                        start,
                        start_row: 0,
                        out: target.as_mut_ptr().add((pass.to + row * pass.to_step[0]) * wide),
                        out_row: pass.to_step[1] * wide,
                    };
                    multiply::<V>(&panel, wide);
                }
            }
            let planes = out.part((image * p.writes + first) * plane, count * plane);
            from_pixels::<V>(target.as_ptr(), &p.write_places, wide, count, j.then, planes);
        }
    }
}

/// y from x.
pub(super) fn forward<T: Real>(conv: &Conv, x: &[View<'_>], then: Epilogue<T>) -> Result<Fused> {
    let (images, reads, writes) = (x[0].shape()[0], x[0].shape()[1], x[1].shape()[0]);
    convolve::<T>(x, Plan::forward(&conv.window, images, reads, writes, lanes::<T>()), then)
}

/// x from y.
pub(super) fn transposed<T: Real>(conv: &Conv, x: &[View<'_>], then: Epilogue<T>) -> Result<Fused> {
    let (images, reads, writes) = (x[0].shape()[0], x[0].shape()[1], x[1].shape()[1]);
    convolve::<T>(x, Plan::transposed(&conv.window, images, reads, writes, lanes::<T>()), then)
}

fn convolve<T: Real>(x: &[View<'_>], p: Plan, then: Epilogue<T>) -> Result<Fused> {
    let (size, results) = (size_of::<T>(), p.writes * p.write_places.len());
    let (to, room) = (CpuStorage::new(p.images * results * size)?, CpuStorage::new((p.packed() + p.wide) * size)?);
    let (out, packed) = (Out::<T>::of(&to), Out::<T>::of(&room));
    let inputs = Dense::<T>::all(x)?;
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    // Few images are cut into blocks of output channels, too.
    let block = 2 * lanes::<T>();
    let blocks = p.wide.div_ceil(block);
    let cuts = blocks.min(8usize.div_ceil(p.images));
    launch(&reads, &[&to, &room], move || {
        p.pack(inputs[1].slice(), &packed);
        let bias = packed.part(p.packed(), p.wide);
        if let Some(b) = inputs.get(2) {
            bias.fill(T::ZERO);
            bias[..p.writes].copy_from_slice(b.slice());
        }
        let bias = if inputs.len() > 2 { &*bias } else { &[] };
        let chunks = p.images.min(32);
        for_chunks(chunks * cuts, p.work(), |i| {
            let (chunk, cut) = (i / cuts, i % cuts);
            let images = (p.images * chunk / chunks, p.images * (chunk + 1) / chunks);
            let channels = (blocks * cut / cuts * block, blocks * (cut + 1) / cuts * block);
            let (from, weights) = (inputs[0].slice(), &packed.slice()[..p.packed()]);
            let job = Job { p: &p, from, weights, bias, then, images, channels };
            let sizes = [p.canvas_room(), p.write_places.len() * job.wide()];
            // SAFETY: each call has planes of its own.
            with_parts(sizes, |room| unsafe { convolve_images(job, room, &out) })
        });
    });
    Ok(Fused::one(finish(to)?))
}

/// Some images of the taps' gradient.
#[derive(Clone, Copy)]
struct Part<'a, T> {
    p: &'a Plan,
    x: &'a [T],
    g: &'a [T],
    /// Images, from and to.
    images: (usize, usize),
}

by_level! {
    /// The gradients of taps, `dw[run][number of the run][written]`, and biases, from some images.
    unsafe fn correlate_images<T>(c: Part<'_, T>, room: [&mut [T]; 2], dw: &mut [T], db: &mut [T]) => correlate_images_of
}

#[inline(always)]
unsafe fn correlate_images_of<V: Vector>(c: Part<'_, V::T>, room: [&mut [V::T]; 2], dw: &mut [V::T], db: &mut [V::T]) {
    let (p, pass, [canvas, grads]) = (c.p, &c.p.passes[0], room);
    dw.fill(V::T::ZERO);
    db.fill(V::T::ZERO);
    for image in c.images.0..c.images.1 {
        let len = p.writes * p.write_places.len();
        let ahead = (image + 1).min(c.images.1 - 1);
        let next = [p.image(c.x, ahead), &c.g[ahead * len..][..len]];
        // SAFETY: the canvas holds every tap of every window, `grads` every place, `dw` a row for every number of each run.
        unsafe {
            fill_canvas::<V>(p, c.x, image, canvas);
            to_pixels::<V>(&c.g[image * len..][..len], p.writes, &p.write_places, p.wide, grads.as_mut_ptr());
            for row in 0..pass.count[0] {
                next.iter().for_each(|&next| fetch_ahead(next, row, pass.count[0]));
                let g = grads.as_ptr().add(row * pass.count[1] * p.wide);
                for (i, run) in pass.runs.iter().enumerate() {
                    let out = dw.as_mut_ptr().add(i * pass.run * p.wide);
                    let panel = Panel {
                        rows: pass.run,
                        run: pass.count[1],
                        runs: WHOLE,
                        a: canvas.as_ptr().add(row * pass.from_step[0] + run),
                        a_row: 1,
                        a_column: pass.from_step[1],
                        b: g,
                        b_row: p.wide,
                        start: out,
                        start_row: p.wide,
                        out,
                        out_row: p.wide,
                    };
                    multiply::<V>(&panel, p.wide);
                }
            }
            for first in (0..p.wide).step_by(V::LANES) {
                let mut sum = V::load(db.as_ptr().add(first));
                for place in 0..p.write_places.len() {
                    sum = sum.add(V::load(grads.as_ptr().add(place * p.wide + first)));
                }
                sum.store(db.as_mut_ptr().add(first));
            }
        }
    }
}

/// The gradients of the taps, and of the bias.
pub(super) fn weight_grad<T: Real>(conv: &Conv, x: &[View<'_>]) -> Result<[Buffer; 2]> {
    let (images, reads, writes) = (x[0].shape()[0], x[0].shape()[1], x[1].shape()[1]);
    let p = Plan::forward(&conv.window, images, reads, writes, lanes::<T>());
    let (size, parts) = (size_of::<T>(), images.min(8));
    let (tw, tb) = (CpuStorage::new(reads * writes * p.taps * size)?, CpuStorage::new(writes * size)?);
    let (weights, len) = (p.packed(), p.packed() + p.wide);
    let room = CpuStorage::new(parts * len * size)?;
    let inputs = [Dense::<T>::of(x[0])?, Dense::<T>::of(x[1])?];
    let (dw, db, partial) = (Out::<T>::of(&tw), Out::<T>::of(&tb), Out::<T>::of(&room));
    launch(&[storage(x[0].buffer)?, storage(x[1].buffer)?], &[&tw, &tb, &room], move || {
        for_chunks(parts, p.work(), |i| {
            let images = (images * i / parts, images * (i + 1) / parts);
            let part = Part { p: &p, x: inputs[0].slice(), g: inputs[1].slice(), images };
            let (dw, db) = (partial.part(i * len, weights), partial.part(i * len + weights, p.wide));
            let sizes = [p.canvas_room(), p.write_places.len() * p.wide];
            // SAFETY: each call has a part of its own.
            with_parts(sizes, |room| unsafe { correlate_images(part, room, dw, db) })
        });
        sum_parts(&partial, parts, len);
        for_chunks(writes, writes * reads * p.taps * 2, |o| {
            let sums = partial.whole();
            for (i, w) in dw.part(o * reads * p.taps, reads * p.taps).iter_mut().enumerate() {
                let (c, k) = (i / p.taps, i % p.taps);
                *w = sums[(k * reads + c) * p.wide + o];
            }
        });
        db.slice().copy_from_slice(&partial.whole()[weights..][..writes]);
    });
    Ok([finish(tw)?, finish(tb)?])
}

/// Adds parts of `len` numbers, in order, to the first.
pub(super) fn sum_parts<T: Real>(partial: &Out<T>, parts: usize, len: usize) {
    for_ranges(len, 1 << 12, 200 * parts, |start, n| {
        let sum = partial.part(start, n);
        for part in 1..parts {
            let more = partial.part(part * len + start, n);
            sum.iter_mut().zip(more).for_each(|(s, x)| *s = *s + *x);
        }
    });
}
