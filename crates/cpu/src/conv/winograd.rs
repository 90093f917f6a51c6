//! 3×3 convolutions of stride 1 by Winograd's F(2×2, 3×3): 16 multiplications for four results, in place of 36.
//!
//! With d the 4×4 numbers that a 2×2 tile of results sees, and w the taps, the tile is Aᵀ[(G·w·Gᵀ) ∘ (Bᵀ·d·B)]A. Summed over
//! channels, each of the 16 places of the product in the middle is a matrix product of its own (tiles × channels × outputs). The
//! same three transforms give the input's gradient (a convolution of the results' gradient with the taps turned around) and, by
//! transposition, the taps' gradient ([`weight_grad`](mod@weight_grad)). Channels lie side by side ([`pixels`](super::pixels)), so
//! that every register is full. (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.)
//!
//! Work is cut by images, whatever the number of threads.

mod weight_grad;

pub(super) use weight_grad::{fits_weight_grad, weight_grad};

use super::epilogue::Epilogue;
use super::pixels::{blanks, fetch_ahead, from_pixels, places, to_pixels};
use super::transforms::{gather_output, load_square, spread_input, spread_taps, store_square};
use crate::dense::Dense;
use crate::elementwise::finish;
use crate::launch::{Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::panel::{Panel, WHOLE, multiply};
use crate::room::with_parts;
use crate::threads::for_chunks;
use crate::vector::{Real, Vector, by_level, lanes};
use gradus_core::Result;
use gradus_core::backend::View;
use gradus_core::composite::Fused;
use gradus_core::functional::conv::Conv;
use gradus_core::functional::window::Window;
use std::ops::Range;

/// So many tiles go through the three steps at a time: two blocks of the products' height, so that what they need stays in the second
/// cache beside the taps.
const STRIP: usize = 24;
/// Fewer channels leave registers empty, and products too short.
const FEWEST: usize = 8;

/// A 3×3 convolution of stride 1 between two stacks of planes.
#[derive(Clone, Debug)]
struct Tiling {
    images: usize,
    /// Numbers of a register.
    lanes: usize,
    /// Channels read and written, and the same up to a multiple of a register.
    reads: usize,
    writes: usize,
    c: usize,
    o: usize,
    /// Places of a plane read and written.
    read_plane: usize,
    write_plane: usize,
    /// Where a read plane lies in its canvas (padded, and large enough for whole tiles), and how many places that has.
    read_places: Vec<u32>,
    canvas: usize,
    /// The canvas places around it, which are zeros.
    blank: Vec<u32>,
    /// Where a written plane lies in its canvas of whole tiles, and how many places that has.
    write_places: Vec<u32>,
    target: usize,
    /// The canvas places of each tile of a gang of images, read and written.
    origins: Vec<u32>,
    targets: Vec<u32>,
    /// Rows of the canvases.
    read_pitch: usize,
    write_pitch: usize,
    /// Images that go together: at least a strip of tiles.
    gang: usize,
    tiles: usize,
}

/// Whether a convolution is one for these kernels.
pub(super) fn fits(conv: &Conv, reads: usize, writes: usize) -> bool {
    let w = &conv.window;
    let plain = conv.groups == 1 && w.rank == 2 && w.stride == [1; 3] && w.dilation == [1; 3];
    let padding = |d: usize| {
        let both = (w.output[d] + 2).checked_sub(w.input[d]);
        w.before[d] <= 2 && both.and_then(|b| b.checked_sub(w.before[d])).is_some_and(|after| after <= 2)
    };
    plain && w.size == [3, 3, 1] && padding(0) && padding(1) && reads >= FEWEST && writes >= FEWEST
}

impl Tiling {
    fn new<T: Real>(
        images: usize,
        reads: usize,
        writes: usize,
        from: [usize; 2],
        to: [usize; 2],
        before: [usize; 2],
    ) -> Tiling {
        let lanes = lanes::<T>();
        let count = [to[0].div_ceil(2), to[1].div_ceil(2)];
        let (read_pitch, write_pitch) = (2 * count[1] + 2, 2 * count[1]);
        let (canvas, target) = ((2 * count[0] + 2) * read_pitch, 2 * count[0] * write_pitch);
        let tiles = count[0] * count[1];
        let gang = STRIP.div_ceil(tiles).min(images);
        let read_places = places(from[0], from[1], read_pitch, before[0] * read_pitch + before[1]);
        let blank = blanks(&read_places, canvas);
        let at = |pitch: usize, plane: usize| {
            (0..gang * tiles)
                .map(|t| (t / tiles * plane + t % tiles / count[1] * 2 * pitch + t % count[1] * 2) as u32)
                .collect::<Vec<u32>>()
        };
        Tiling {
            images,
            lanes,
            reads,
            writes,
            c: reads.next_multiple_of(lanes),
            o: writes.next_multiple_of(lanes),
            read_plane: from[0] * from[1],
            write_plane: to[0] * to[1],
            read_places,
            canvas,
            blank,
            write_places: places(to[0], to[1], write_pitch, 0),
            target,
            origins: at(read_pitch, canvas),
            targets: at(write_pitch, target),
            read_pitch,
            write_pitch,
            gang,
            tiles,
        }
    }
    fn forward<T: Real>(w: &Window, images: usize, reads: usize, writes: usize) -> Tiling {
        let plane = |lens: [usize; 3]| [lens[0], lens[1]];
        Tiling::new::<T>(images, reads, writes, plane(w.input), plane(w.output), plane(w.before))
    }
    /// From the results' gradient to the input's.
    fn backward<T: Real>(w: &Window, images: usize, reads: usize, writes: usize) -> Tiling {
        let plane = |lens: [usize; 3]| [lens[0], lens[1]];
        let before = [2 - w.before[0], 2 - w.before[1]];
        Tiling::new::<T>(images, reads, writes, plane(w.output), plane(w.input), before)
    }
    /// Nanoseconds for all images, estimated.
    fn work(&self) -> usize {
        self.images * self.tiles * (self.c * self.o / 4 + 8 * (self.c + self.o)) / 16
    }
    /// The images of gang `i`.
    fn gang(&self, i: usize) -> Range<usize> {
        i * self.gang..self.images.min((i + 1) * self.gang)
    }
    fn gangs(&self) -> usize {
        self.images.div_ceil(self.gang)
    }
    /// Consecutive gangs that one thread takes at a time: it has each next one fetched.
    fn chunks(&self) -> usize {
        self.gangs().min(32)
    }
    /// The gangs of chunk `i` of so many.
    fn chunk(&self, i: usize, chunks: usize) -> (usize, usize) {
        (self.gangs() * i / chunks, self.gangs() * (i + 1) / chunks)
    }
    /// What a gang reads of all images' planes.
    fn reads_of<T>(&self, gang: usize, x: &[T]) -> *const [T] {
        let (images, len) = (self.gang(gang), self.reads * self.read_plane);
        &x[images.start * len..images.end * len]
    }
    /// Its results, from all images' on.
    fn writes_of<T>(&self, gang: usize, y: *const T) -> *const [T] {
        let (images, len) = (self.gang(gang), self.writes * self.write_plane);
        std::ptr::slice_from_raw_parts(y.wrapping_add(images.start * len), images.len() * len)
    }
}

/// Where the taps of a filter lie among the weights.
#[derive(Clone, Copy)]
struct Filters {
    read_step: usize,
    write_step: usize,
    /// The last tap comes first: the filters of the input's gradient.
    turned: bool,
}

by_level! {
    /// The transformed taps of read channel `channel`, for all written channels: `out[place][channel][written]`.
    unsafe fn transform_taps<T>(t: &Tiling, f: Filters, channel: usize, w: &[T], out: &Out<T>) => transform_taps_of
}

#[inline(always)]
unsafe fn transform_taps_of<V: Vector>(t: &Tiling, f: Filters, channel: usize, w: &[V::T], out: &Out<V::T>) {
    let half = V::T::ONE / (V::T::ONE + V::T::ONE);
    for first in (0..t.o).step_by(V::LANES) {
        let mut taps = [[V::T::ZERO; 16]; 9];
        if channel < t.reads {
            for (k, taps) in taps.iter_mut().enumerate() {
                let k = if f.turned { 8 - k } else { k };
                for (lane, tap) in taps[..V::LANES.min(t.writes.saturating_sub(first))].iter_mut().enumerate() {
                    *tap = w[channel * f.read_step + (first + lane) * f.write_step + k];
                }
            }
        }
        // SAFETY: the arrays hold a register; `out` has 16 places of c·o numbers, of which this channel's row is this call's.
        unsafe {
            let w = load_square::<V, 3>(taps.as_ptr().cast(), 48, 16);
            let place = t.c * t.o;
            let out = out.ptr().add(channel * t.o + first);
            store_square(spread_taps(w, V::splat(&half)), out, 4 * place, place);
        }
    }
}

/// The transformed input of `tiles`: `out[place][tile][channel]`.
#[inline(always)]
unsafe fn transform_input<V: Vector>(t: &Tiling, c: usize, tiles: Range<usize>, canvas: *const V::T, out: *mut V::T) {
    let place = STRIP * c;
    for first in (0..c).step_by(V::LANES) {
        for (i, &origin) in t.origins[tiles.clone()].iter().enumerate() {
            // SAFETY: the canvas holds 4×4 places from each tile's first on.
            unsafe {
                let d = load_square::<V, 4>(canvas.add(origin as usize * c + first), t.read_pitch * c, c);
                store_square(spread_input(d), out.add(i * c + first), 4 * place, place);
            }
        }
    }
}

/// One chunk of a convolution: some images, some of the written channels.
#[derive(Clone, Copy)]
struct Pass<'a, T> {
    t: &'a Tiling,
    /// All images' planes.
    from: &'a [T],
    /// Transformed taps.
    taps: &'a [T],
    /// A number for each written channel, or none.
    bias: &'a [T],
    then: Epilogue<T>,
    /// The gangs, from and to.
    gangs: (usize, usize),
    /// The written channels, from a multiple of a register on.
    channels: (usize, usize),
}

impl<T> Pass<'_, T> {
    /// Written channels, up to a multiple of a register.
    fn wide(&self) -> usize {
        (self.channels.1 - self.channels.0).next_multiple_of(self.t.lanes)
    }
    /// Room for canvases, their transform, the products and the results.
    fn room(&self) -> [usize; 4] {
        let (t, wide) = (self.t, self.wide());
        [t.gang * t.canvas * t.c, 16 * STRIP * t.c, 16 * STRIP * wide, t.gang * t.target * wide]
    }
}

by_level! {
    /// Convolves gangs of images; `out` holds all images' results.
    unsafe fn convolve_gangs<T>(p: Pass<'_, T>, room: [&mut [T]; 4], out: &Out<T>) => convolve_gangs_of
}

#[inline(always)]
unsafe fn convolve_gangs_of<V: Vector>(p: Pass<'_, V::T>, room: [&mut [V::T]; 4], out: &Out<V::T>) {
    // SAFETY: by the caller.
    unsafe {
        // Of one register a place, addresses cost as much as the numbers, unless distances are known.
        if p.t.c == V::LANES && p.wide() == V::LANES {
            convolve_of::<V>(&p, room, out, V::LANES, V::LANES)
        } else {
            convolve_of::<V>(&p, room, out, p.t.c, p.wide())
        }
    }
}

/// The same, of places of `c` channels read and `wide` written, whole registers both.
#[inline(always)]
unsafe fn convolve_of<V: Vector>(p: &Pass<'_, V::T>, room: [&mut [V::T]; 4], out: &Out<V::T>, c: usize, wide: usize) {
    let (t, [canvas, spread, product, target]) = (p.t, room);
    let (from, to) = p.channels;
    // Rows of a product no wider than what they are made from take its place: half the numbers then go through the first cache.
    let in_place = wide <= c && wide <= 2 * V::LANES;
    let spread = spread.as_mut_ptr();
    let product = if in_place { spread } else { product.as_mut_ptr() };
    for gang in p.gangs.0..p.gangs.1 {
        let images = t.gang(gang);
        let next = t.reads_of((gang + 1).min(t.gangs() - 1), p.from);
        let results = t.writes_of(gang, out.ptr().cast_const());
        // SAFETY: every part of the room is as large as its step needs; the results' planes are this call's alone.
        unsafe {
            fill_canvas::<V>(t, c, p.from, images.clone(), canvas);
            let tiles = images.len() * t.tiles;
            let strips = tiles.div_ceil(STRIP);
            let step = tiles.div_ceil(strips); // strips of about the same length
            for first in (0..tiles).step_by(step) {
                let strip = first..tiles.min(first + step);
                fetch_ahead(next, first / step, strips);
                fetch_ahead(results, first / step, strips);
                transform_input::<V>(t, c, strip.clone(), canvas.as_ptr(), spread);
                for place in 0..16 {
                    let panel = Panel {
                        rows: strip.len(),
                        run: c,
                        runs: WHOLE,
                        a: spread.add(place * STRIP * c),
                        a_row: c,
                        a_column: 1,
                        b: p.taps.as_ptr().add(place * c * t.o + from),
                        b_row: t.o,
                        start: std::ptr::null(),
                        start_row: 0,
                        out: product.add(place * STRIP * wide),
                        out_row: wide,
                    };
                    multiply::<V>(&panel, wide);
                }
                transform_output::<V>(p, strip, wide, product, target.as_mut_ptr());
            }
            for (i, image) in images.enumerate() {
                let planes = out.part((image * t.writes + from) * t.write_plane, (to - from) * t.write_plane);
                let pixels = target.as_ptr().add(i * t.target * wide);
                from_pixels::<V>(pixels, &t.write_places, wide, to - from, p.then, planes);
            }
        }
    }
}

/// Lays images out on their canvases, with zeros around.
#[inline(always)]
unsafe fn fill_canvas<V: Vector>(t: &Tiling, c: usize, from: &[V::T], images: Range<usize>, canvas: &mut [V::T]) {
    for (i, image) in images.enumerate() {
        let planes = &from[image * t.reads * t.read_plane..][..t.reads * t.read_plane];
        // SAFETY: the canvas has room for every place of every image.
        unsafe {
            let canvas = canvas.as_mut_ptr().add(i * t.canvas * c);
            for &place in &t.blank {
                for first in (0..c).step_by(V::LANES) {
                    V::zero().store(canvas.add(place as usize * c + first));
                }
            }
            to_pixels::<V>(planes, t.reads, &t.read_places, c, canvas);
        }
    }
}

/// The tiles of results from the 16 products, with the bias added.
#[inline(always)]
unsafe fn transform_output<V: Vector>(
    p: &Pass<'_, V::T>,
    tiles: Range<usize>,
    wide: usize,
    product: *const V::T,
    target: *mut V::T,
) {
    let t = p.t;
    for first in (0..wide).step_by(V::LANES) {
        for (i, &at) in t.targets[tiles.clone()].iter().enumerate() {
            // SAFETY: the products hold 16 places of a strip's tiles, the target whole tiles.
            unsafe {
                let place = STRIP * wide;
                let mut y = gather_output(load_square::<V, 4>(product.add(i * wide + first), 4 * place, place));
                if !p.bias.is_empty() {
                    let from = p.channels.0 + first;
                    let bias = V::load_lanes(p.bias.as_ptr().add(from), 0, V::LANES.min(p.channels.1 - from));
                    for y in y.as_flattened_mut() {
                        *y = y.add(bias);
                    }
                }
                store_square(y, target.add(at as usize * wide + first), t.write_pitch * wide, wide);
            }
        }
    }
}

/// y from x.
pub(super) fn forward<T: Real>(conv: &Conv, x: &[View<'_>], then: Epilogue<T>) -> Result<Fused> {
    let (images, reads, writes) = (x[0].shape()[0], x[0].shape()[1], x[1].shape()[0]);
    let t = Tiling::forward::<T>(&conv.window, images, reads, writes);
    convolve::<T>(x, t, Filters { read_step: 9, write_step: 9 * reads, turned: false }, then)
}

/// x from y.
pub(super) fn transposed<T: Real>(conv: &Conv, x: &[View<'_>], then: Epilogue<T>) -> Result<Fused> {
    let (images, reads, writes) = (x[0].shape()[0], x[0].shape()[1], x[1].shape()[1]);
    let t = Tiling::backward::<T>(&conv.window, images, reads, writes);
    convolve::<T>(x, t, Filters { read_step: 9 * writes, write_step: 9, turned: true }, then)
}

fn convolve<T: Real>(x: &[View<'_>], t: Tiling, filters: Filters, then: Epilogue<T>) -> Result<Fused> {
    let size = size_of::<T>();
    let (to, room) =
        (CpuStorage::new(t.images * t.writes * t.write_plane * size)?, CpuStorage::new(16 * t.c * t.o * size)?);
    let (out, taps) = (Out::<T>::of(&to), Out::<T>::of(&room));
    let inputs = Dense::<T>::all(x)?;
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    // Few images are cut into blocks of output channels, too.
    let block = 2 * lanes::<T>();
    let blocks = t.writes.div_ceil(block);
    let cuts = blocks.min(8usize.div_ceil(t.gangs()));
    launch(&reads, &[&to, &room], move || {
        // SAFETY: each call has a channel of its own.
        for_chunks(t.c, t.c * t.o, |c| unsafe { transform_taps(&t, filters, c, inputs[1].slice(), &taps) });
        let bias = inputs.get(2).map_or(&[][..], |b| b.slice());
        for_chunks(t.chunks() * cuts, t.work(), |i| {
            let (gangs, cut) = (t.chunk(i / cuts, t.chunks()), i % cuts);
            let channels = (blocks * cut / cuts * block, t.writes.min(blocks * (cut + 1) / cuts * block));
            let pass = Pass { t: &t, from: inputs[0].slice(), taps: taps.slice(), bias, then, gangs, channels };
            // SAFETY: each call has planes of its own.
            with_parts(pass.room(), |room| unsafe { convolve_gangs(pass, room, &out) })
        });
    });
    Ok(Fused::one(finish(to)?))
}
