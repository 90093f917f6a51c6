//! The gradient of the taps by Winograd's transforms, transposed: Gᵀ[Σ (A·g·Aᵀ) ∘ (Bᵀ·d·B)]G, with g a 2×2 tile of the results'
//! gradient, and the sum over all tiles of all images.
//!
//! Each of the 16 places of the middle is a matrix product, channels × tiles × outputs. Work is cut by images, whatever the number
//! of threads; the parts are added in order.

use super::{STRIP, Tiling, fill_canvas, fits, transform_input};
use crate::conv::direct::sum_parts;
use crate::conv::pixels::{fetch_ahead, to_pixels};
use crate::conv::transforms::{gather_taps, load_square, spread_grad, store_square};
use crate::dense::Dense;
use crate::elementwise::finish;
use crate::launch::{Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::panel::{Panel, WHOLE, multiply};
use crate::room::with_parts;
use crate::threads::for_chunks;
use crate::vector::{Real, Vector, by_level};
use gradus_core::backend::View;
use gradus_core::functional::conv::Conv;
use gradus_core::{Buffer, Result};
use std::ops::Range;

/// Fewer places of a batch's images leave the taps' gradient to the direct products ([`fits_weight_grad`]).
const FEWEST_PLACES: usize = 4096;

/// Whether the taps' gradient goes this way, from inputs x and gradients g of results.
///
/// The tile's transforms mix its places, so that a sum whose every product is zero comes out as a rounding error. Where activations are
/// sparse and places are few, some taps have just such sums, and optimizers that divide by a gradient's size (Adam) make a whole
/// step of the error. Over thousands of places no live channel has them, and dead ones stay exactly zero here too.
pub(in crate::conv) fn fits_weight_grad(conv: &Conv, x: View<'_>, g: View<'_>) -> bool {
    let places = g.elements() / g.shape()[1].max(1);
    places >= FEWEST_PLACES && fits(conv, x.shape()[1], g.shape()[1])
}

/// One part of the taps' gradient: some images.
#[derive(Clone, Copy)]
struct Part<'a, T> {
    t: &'a Tiling,
    x: &'a [T],
    g: &'a [T],
    /// The gangs, from and to.
    gangs: (usize, usize),
}

impl<T> Part<'_, T> {
    /// Room for canvases of both, the transforms of both, and the sums.
    fn room(&self) -> [usize; 5] {
        let t = self.t;
        [t.gang * t.canvas * t.c, t.gang * t.target * t.o, 16 * STRIP * t.c, 16 * STRIP * t.o, 16 * t.c * t.o]
    }
}

by_level! {
    /// The gradients of taps `dw[tap][channel][written]` and biases from some gangs of images.
    unsafe fn correlate_gangs<T>(p: Part<'_, T>, room: [&mut [T]; 5], dw: &mut [T], db: &mut [T]) => correlate_gangs_of
}

#[inline(always)]
unsafe fn correlate_gangs_of<V: Vector>(p: Part<'_, V::T>, room: [&mut [V::T]; 5], dw: &mut [V::T], db: &mut [V::T]) {
    let (t, [canvas, grads, spread, spread_g, sums]) = (p.t, room);
    db.fill(V::T::ZERO);
    // SAFETY: every part of the room is as large as its step needs.
    unsafe {
        sums.fill(V::T::ZERO);
        for gang in p.gangs.0..p.gangs.1 {
            let images = t.gang(gang);
            fill_canvas::<V>(t, t.c, p.x, images.clone(), canvas);
            fill_grads::<V>(t, p.g, images.clone(), grads);
            let ahead = (gang + 1).min(t.gangs() - 1);
            let next = [t.reads_of(ahead, p.x), t.writes_of(ahead, p.g.as_ptr())];
            let tiles = images.len() * t.tiles;
            let strips = tiles.div_ceil(STRIP);
            let step = tiles.div_ceil(strips);
            for first in (0..tiles).step_by(step) {
                let strip = first..tiles.min(first + step);
                next.iter().for_each(|&next| fetch_ahead(next, first / step, strips));
                transform_input::<V>(t, t.c, strip.clone(), canvas.as_ptr(), spread.as_mut_ptr());
                transform_grads::<V>(t, strip.clone(), grads.as_ptr(), spread_g.as_mut_ptr(), db);
                for place in 0..16 {
                    let out = sums.as_mut_ptr().add(place * t.c * t.o);
                    let panel = Panel {
                        rows: t.c,
                        run: strip.len(),
                        runs: WHOLE,
                        a: spread.as_ptr().add(place * STRIP * t.c),
                        a_row: 1,
                        a_column: t.c,
                        b: spread_g.as_ptr().add(place * STRIP * t.o),
                        b_row: t.o,
                        start: out,
                        start_row: t.o,
                        out,
                        out_row: t.o,
                    };
                    multiply::<V>(&panel, t.o);
                }
            }
        }
        let half = V::T::ONE / (V::T::ONE + V::T::ONE);
        let plane = t.c * t.o;
        for first in (0..plane).step_by(V::LANES) {
            let u = load_square::<V, 4>(sums.as_ptr().add(first), 4 * plane, plane);
            store_square(gather_taps(u, V::splat(&half)), dw.as_mut_ptr().add(first), 3 * plane, plane);
        }
    }
}

/// Lays the results' gradients out in whole tiles.
#[inline(always)]
unsafe fn fill_grads<V: Vector>(t: &Tiling, g: &[V::T], images: Range<usize>, grads: &mut [V::T]) {
    if t.target != t.write_plane {
        grads.fill(V::T::ZERO);
    }
    for (i, image) in images.enumerate() {
        let planes = &g[image * t.writes * t.write_plane..][..t.writes * t.write_plane];
        // SAFETY: there is room for every image's places.
        unsafe {
            to_pixels::<V>(planes, t.writes, &t.write_places, t.o, grads.as_mut_ptr().add(i * t.target * t.o));
        }
    }
}

/// A·g·Aᵀ of `tiles`: `out[place][tile][channel]`; and each tile's sum, added to `db`.
#[inline(always)]
unsafe fn transform_grads<V: Vector>(
    t: &Tiling,
    tiles: Range<usize>,
    grads: *const V::T,
    out: *mut V::T,
    db: &mut [V::T],
) {
    let place = STRIP * t.o;
    for first in (0..t.o).step_by(V::LANES) {
        // SAFETY: `db` holds all channels, `grads` whole tiles.
        unsafe {
            let mut sum = V::load(db.as_ptr().add(first));
            for (i, &at) in t.targets[tiles.clone()].iter().enumerate() {
                let g = load_square::<V, 2>(grads.add(at as usize * t.o + first), t.write_pitch * t.o, t.o);
                let spread = spread_grad(g);
                sum = sum.add(spread[1][1]);
                store_square(spread, out.add(i * t.o + first), 4 * place, place);
            }
            sum.store(db.as_mut_ptr().add(first));
        }
    }
}

/// The gradients of the taps, and of the bias.
pub(in crate::conv) fn weight_grad<T: Real>(conv: &Conv, x: &[View<'_>]) -> Result<[Buffer; 2]> {
    let (images, reads, writes) = (x[0].shape()[0], x[0].shape()[1], x[1].shape()[1]);
    let t = Tiling::forward::<T>(&conv.window, images, reads, writes);
    let size = size_of::<T>();
    let (tw, tb) = (CpuStorage::new(reads * writes * 9 * size)?, CpuStorage::new(writes * size)?);
    let parts = t.gangs().min(8);
    let (plane, len) = (t.c * t.o, 9 * t.c * t.o + t.o);
    let room = CpuStorage::new(parts * len * size)?;
    let inputs = [Dense::<T>::of(x[0])?, Dense::<T>::of(x[1])?];
    let (dw, db, partial) = (Out::<T>::of(&tw), Out::<T>::of(&tb), Out::<T>::of(&room));
    launch(&[storage(x[0].buffer)?, storage(x[1].buffer)?], &[&tw, &tb, &room], move || {
        for_chunks(parts, t.work(), |i| {
            let gangs = t.chunk(i, parts);
            let part = Part { t: &t, x: inputs[0].slice(), g: inputs[1].slice(), gangs };
            let (dw, db) = (partial.part(i * len, 9 * plane), partial.part(i * len + 9 * plane, t.o));
            // SAFETY: each call has a part of its own.
            with_parts(part.room(), |room| unsafe { correlate_gangs(part, room, dw, db) })
        });
        sum_parts(&partial, parts, len);
        for_chunks(t.writes, t.writes * t.reads * 9 * 2, |o| {
            let sums = partial.whole();
            for (i, w) in dw.part(o * t.reads * 9, t.reads * 9).iter_mut().enumerate() {
                *w = sums[i % 9 * plane + i / 9 * t.o + o];
            }
        });
        db.slice().copy_from_slice(&partial.whole()[9 * plane..][..t.writes]);
    });
    Ok([finish(tw)?, finish(tb)?])
}
