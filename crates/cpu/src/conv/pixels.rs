//! Images with their channels side by side: `[channel, place]` and `[place, channel]`, by blocks transposed in registers.
//!
//! Rows of images are seldom a multiple of a register, and masks and scalar rests cost more than the arithmetic around them. In
//! this layout every register holds the channels of one place, so a kernel never sees where a row ends.

use super::epilogue::Epilogue;
use crate::simd::prefetch_part;
use crate::vector::Vector;

/// Copies planes of one image to pixels: number `p` of channel `c` goes to `out[places[p]·pitch + c]`; channels beyond the last,
/// up to a multiple of a register, are written as zeros.
///
/// # Safety
/// `image` holds `channels` planes of `places.len()` numbers; `out` has room for every place. The instruction set by V.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
pub(super) unsafe fn to_pixels<V: Vector>(
    image: &[V::T],
    channels: usize,
    places: &[u32],
    pitch: usize,
    out: *mut V::T,
) {
    let (lanes, plane) = (V::LANES, places.len());
    if pitch == 1 {
        for (&x, &place) in image.iter().zip(places) {
            // SAFETY: by the caller.
            unsafe { *out.add(place as usize) = x }
        }
        return;
    }
    for first in (0..channels).step_by(lanes) {
        let count = lanes.min(channels - first);
        let mut p = 0;
        while p < plane {
            // The last block goes over some places a second time, if the plane has room for a block.
            p = p.min(plane.saturating_sub(lanes));
            let n = lanes.min(plane - p);
            // SAFETY: `count` channels and `n` places are there.
            unsafe {
                if count == lanes && n == lanes {
                    // Of known lengths, so that the block stays in registers.
                    let mut v = [V::zero(); 16];
                    for i in 0..V::LANES {
                        v[i] = V::load(image.as_ptr().add((first + i) * plane + p));
                    }
                    V::transpose(&mut v);
                    for i in 0..V::LANES {
                        v[i].store(out.add(*places.get_unchecked(p + i) as usize * pitch + first));
                    }
                    p += lanes;
                    continue;
                }
                let mut v = [V::zero(); 16];
                for (i, v) in v.iter_mut().enumerate().take(count) {
                    let from = image.as_ptr().add((first + i) * plane + p);
                    *v = if n == lanes { V::load(from) } else { V::load_lanes(from, 0, n) };
                }
                V::transpose(&mut v);
                for (v, &place) in v.iter().zip(&places[p..p + n]) {
                    v.store(out.add(place as usize * pitch + first));
                }
            }
            p += lanes;
        }
    }
}

/// The way back: `image[c, p] = pixels[places[p]·pitch + c]` for `channels` channels, with an activation.
///
/// # Safety
/// As [`to_pixels`]; a place holds channels up to a multiple of a register.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
pub(super) unsafe fn from_pixels<V: Vector>(
    pixels: *const V::T,
    places: &[u32],
    pitch: usize,
    channels: usize,
    then: Epilogue<V::T>,
    image: &mut [V::T],
) {
    let (lanes, plane, relu) = (V::LANES, places.len(), matches!(then, Epilogue::Relu));
    debug_assert!(image.len() >= channels * plane);
    for first in (0..channels).step_by(lanes) {
        let count = lanes.min(channels - first);
        let mut p = 0;
        while p < plane {
            p = p.min(plane.saturating_sub(lanes));
            let n = lanes.min(plane - p);
            // SAFETY: as above.
            unsafe {
                if count == lanes && n == lanes {
                    let mut v = [V::zero(); 16];
                    for i in 0..V::LANES {
                        v[i] = V::load(pixels.add(*places.get_unchecked(p + i) as usize * pitch + first));
                    }
                    if relu {
                        for i in 0..V::LANES {
                            v[i] = v[i].relu();
                        }
                    }
                    V::transpose(&mut v);
                    for i in 0..V::LANES {
                        v[i].store(image.as_mut_ptr().add((first + i) * plane + p));
                    }
                    p += lanes;
                    continue;
                }
                let mut v = [V::zero(); 16];
                for (v, &place) in v.iter_mut().zip(&places[p..p + n]) {
                    *v = V::load(pixels.add(place as usize * pitch + first));
                    if relu {
                        *v = v.relu();
                    }
                }
                V::transpose(&mut v);
                for (i, v) in v.iter().enumerate().take(count) {
                    let to = image.as_mut_ptr().add((first + i) * plane + p);
                    if n == lanes { v.store(to) } else { v.store_lanes(to, 0, n) }
                }
            }
            p += lanes;
        }
        if let Epilogue::Each(f) = then {
            f(&mut image[first * plane..(first + count) * plane]);
        }
    }
}

/// Where the numbers of a plane `[rows, columns]` lie in a canvas of rows `pitch` long, from place `first` on.
pub(super) fn places(rows: usize, columns: usize, pitch: usize, first: usize) -> Vec<u32> {
    (0..rows * columns).map(|i| (first + i / columns * pitch + i % columns) as u32).collect()
}

/// The places of a canvas of so many that are none of these, which ascend.
pub(super) fn blanks(places: &[u32], canvas: usize) -> Vec<u32> {
    (0..canvas as u32).filter(|place| places.binary_search(place).is_err()).collect()
}

/// More numbers would push out what is at work.
const FETCHED: usize = 1 << 16;

/// Has part `i` of `parts` of the numbers wanted next fetched, if they are few enough.
#[inline(always)]
pub(super) fn fetch_ahead<T>(next: *const [T], i: usize, parts: usize) {
    if next.len() <= FETCHED {
        prefetch_part(next, i, parts);
    }
}
