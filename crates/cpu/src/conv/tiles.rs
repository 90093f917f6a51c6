//! The inner loops of convolution: a tile of results kept in registers.
//!
//! [`products`] keeps up to eight output channels times three vectors of windows and walks over the taps; [`correlations`] keeps
//! up to four output channels times six taps and walks over the windows. Both read images in place ([`Planes`](super::planes)).

use super::planes::Vectors;
use crate::math::Float;
use crate::vector::{Real, Vector, by_level};
use std::mem::MaybeUninit;

/// Packed weights hold so many output channels side by side.
pub(super) const PACK: usize = 8;
/// Numbers that may be read beyond the last place of the planes, whose value does not matter but must be a number.
pub(super) const SLACK: usize = 16;

/// One image's (group's) channels times packed weights.
#[derive(Clone, Copy)]
pub(super) struct Product<'a, T> {
    /// Weights of each block of [`PACK`] output channels, then tap by tap, [`PACK`] numbers each.
    pub(super) weights: &'a [T],
    /// Where each tap lies, from a window's place.
    pub(super) taps: &'a [usize],
    /// The planes.
    pub(super) x: &'a [T],
    /// The windows.
    pub(super) windows: &'a Vectors,
    /// A number for each output channel to begin with; none: 0.
    pub(super) bias: &'a [T],
    /// Output channels.
    pub(super) rows: usize,
    /// Numbers of one output channel in the results.
    pub(super) out_channel: usize,
}

by_level! {
    /// Σ over taps of weight · shifted plane, for all windows and output channels, written to `out`.
    ///
    /// # Safety
    /// The planes hold every tap of every vector (and [`SLACK`] numbers more); `out` has `rows` channels, held alone.
    pub(super) unsafe fn products<T>(p: Product<'_, T>, out: *mut T) => all_products
}

#[inline(always)]
unsafe fn all_products<V: Vector>(p: Product<'_, V::T>, out: *mut V::T) {
    let count = p.windows.starts.len();
    // A tile's part of the planes stays in the nearest cache while every output channel passes over it.
    for first in (0..count).step_by(3) {
        for row in (0..p.rows).step_by(V::ROWS) {
            let rows = V::ROWS.min(p.rows - row);
            // SAFETY: by the caller.
            unsafe {
                match count - first {
                    1 => some_rows::<V, 1>(&p, out, row, rows, first),
                    2 => some_rows::<V, 2>(&p, out, row, rows, first),
                    _ => some_rows::<V, 3>(&p, out, row, rows, first),
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn some_rows<V: Vector, const N: usize>(
    p: &Product<'_, V::T>,
    out: *mut V::T,
    row: usize,
    rows: usize,
    first: usize,
) {
    // SAFETY: by the caller.
    unsafe {
        match rows {
            1 => tile::<V, 1, N>(p, out, row, rows, first),
            2 => tile::<V, 2, N>(p, out, row, rows, first),
            3 | 4 => tile::<V, 4, N>(p, out, row, rows, first),
            _ => tile::<V, 8, N>(p, out, row, rows, first),
        }
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
unsafe fn tile<V: Vector, const R: usize, const N: usize>(
    p: &Product<'_, V::T>,
    out: *mut V::T,
    row: usize,
    rows: usize,
    first: usize,
) {
    // SAFETY: by the caller: weights are packed for a multiple of PACK rows, so rows up to R are there, if only as zeros.
    unsafe {
        // Only constants index the accumulators, else they would live in memory.
        let mut acc = [[V::zero(); N]; R];
        if !p.bias.is_empty() {
            for i in 0..R {
                acc[i] = [V::splat(p.bias.as_ptr().add(row + i.min(rows - 1))); N];
            }
        }
        let mut weights = p.weights.as_ptr().add(row / PACK * PACK * p.taps.len() + row % PACK);
        let starts: [*const V::T; N] =
            std::array::from_fn(|j| p.x.as_ptr().add(*p.windows.starts.get_unchecked(first + j)));
        for &tap in p.taps {
            let x: [V; N] = std::array::from_fn(|j| V::load(starts[j].add(tap)));
            for i in 0..R {
                let w = V::splat(weights.add(i));
                for j in 0..N {
                    acc[i][j] = acc[i][j].fma(w, x[j]);
                }
            }
            weights = weights.add(PACK);
        }
        let mut done = [[const { MaybeUninit::<V>::uninit() }; N]; R];
        for i in 0..R {
            for j in 0..N {
                done[i][j].write(acc[i][j]);
            }
        }
        for j in 0..N {
            let runs = p.windows.runs(first + j);
            for (i, done) in done.iter().enumerate().take(rows) {
                put(done[j].assume_init_read(), out.add((row + i) * p.out_channel), runs, p.windows.step);
            }
        }
    }
}

#[inline(always)]
unsafe fn put<V: Vector>(v: V, out: *mut V::T, runs: &[super::planes::Run], step: usize) {
    // SAFETY: by the caller, runs lie inside the channel.
    unsafe {
        for r in runs {
            if step == 1 {
                match r.to - r.from == V::LANES {
                    true => v.store(out.add(r.at)),
                    false => v.store_lanes(out.add(r.at), r.from, r.to),
                }
            } else {
                // At most 16 lanes, of any vector.
                let mut lanes = [const { MaybeUninit::<V::T>::uninit() }; 16];
                let lanes = lanes.as_mut_ptr().cast::<V::T>();
                v.store(lanes);
                for i in r.from..r.to {
                    *out.add(r.at + (i - r.from) * step) = *lanes.add(i);
                }
            }
        }
    }
}

/// Several images' channels against the gradients of their results.
#[derive(Clone, Copy)]
pub(super) struct Correlation<'a, T> {
    /// Gradients in vectors: image by image, output channel by output channel; zeros in lanes that are no windows.
    pub(super) g: &'a [T],
    /// Planes, image by image.
    pub(super) x: &'a [T],
    /// Where each tap lies, from a window's place.
    pub(super) taps: &'a [usize],
    /// Where each vector of windows begins.
    pub(super) starts: &'a [usize],
    /// Images.
    pub(super) images: usize,
    /// Numbers of one image's planes.
    pub(super) x_image: usize,
    /// Numbers of one image's gradients.
    pub(super) g_image: usize,
    /// Output channels.
    pub(super) rows: usize,
}

by_level! {
    /// Σ over images and windows of gradient · shifted plane, added to `out` `[rows, taps]`.
    ///
    /// # Safety
    /// As [`products`].
    pub(super) unsafe fn correlations<T>(c: Correlation<'_, T>, out: *mut T) => all_correlations
}

#[inline(always)]
unsafe fn all_correlations<V: Vector>(c: Correlation<'_, V::T>, out: *mut V::T) {
    // SAFETY: by the caller.
    unsafe {
        let rows = if V::TAPS == 6 { 4 } else { 3 };
        for row in (0..c.rows).step_by(rows) {
            for tap in (0..c.taps.len()).step_by(V::TAPS) {
                match (V::TAPS, rows.min(c.rows - row)) {
                    (6, 1) => correlate::<V, 1, 6>(&c, out, row, tap),
                    (6, 2) => correlate::<V, 2, 6>(&c, out, row, tap),
                    (6, 3) => correlate::<V, 3, 6>(&c, out, row, tap),
                    (6, _) => correlate::<V, 4, 6>(&c, out, row, tap),
                    (_, 1) => correlate::<V, 1, 3>(&c, out, row, tap),
                    (_, 2) => correlate::<V, 2, 3>(&c, out, row, tap),
                    (_, _) => correlate::<V, 3, 3>(&c, out, row, tap),
                }
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
unsafe fn correlate<V: Vector, const R: usize, const K: usize>(
    c: &Correlation<'_, V::T>,
    out: *mut V::T,
    row: usize,
    first: usize,
) {
    // SAFETY: by the caller.
    unsafe {
        let mut acc = [[V::zero(); K]; R];
        // A last tile of fewer taps computes some twice.
        let taps: [usize; K] = std::array::from_fn(|k| c.taps[(first + k).min(c.taps.len() - 1)]);
        let vectors = c.starts.len();
        for image in 0..c.images {
            let x = c.x.as_ptr().add(image * c.x_image);
            let x: [*const V::T; K] = std::array::from_fn(|k| x.add(taps[k]));
            let mut g = c.g.as_ptr().add(image * c.g_image + row * vectors * V::LANES);
            for &start in c.starts {
                let gs: [V; R] = std::array::from_fn(|i| V::load(g.add(i * vectors * V::LANES)));
                for k in 0..K {
                    let x = V::load(x[k].add(start));
                    for i in 0..R {
                        acc[i][k] = acc[i][k].fma(gs[i], x);
                    }
                }
                g = g.add(V::LANES);
            }
        }
        let mut sums = [[V::T::ZERO; K]; R];
        for i in 0..R {
            for k in 0..K {
                sums[i][k] = acc[i][k].sum();
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let out = out.add((row + i) * c.taps.len() + first);
            for (k, &sum) in sums.iter().enumerate().take(c.taps.len() - first) {
                *out.add(k) = *out.add(k) + sum;
            }
        }
    }
}
