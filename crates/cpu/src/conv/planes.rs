//! Where an image's numbers lie while it is convolved.
//!
//! An image is copied once, with its padding, into planes. A stride of s puts places s apart side by side (a plane for each
//! remainder), so that neighbouring windows always read neighbouring numbers: tap k of all windows is the plane shifted by a
//! constant. A convolution is then a matrix product whose right side is read in place, shifted, and never written out.

use super::tiles::SLACK;
use crate::vector::{Real, Vector, by_level};
use std::ops::Range;

/// How an image is laid out in planes.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    /// The image's lengths.
    input: [usize; 3],
    /// Padding in front.
    before: [usize; 3],
    /// How far apart windows begin.
    stride: [usize; 3],
    /// The remainders by the stride that taps have, in each dimension: a plane for each.
    phases: [Vec<usize>; 3],
    /// Lengths of one plane.
    lens: [usize; 3],
}

impl Planes {
    /// Planes for padded lengths `padded`, of which `before` come in front of the image, and windows with taps at `taps`.
    pub(super) fn new(
        input: [usize; 3],
        before: [usize; 3],
        padded: [usize; 3],
        stride: [usize; 3],
        taps: [&[usize]; 3],
    ) -> Planes {
        let phases =
            std::array::from_fn(|d| (0..stride[d]).filter(|&r| taps[d].iter().any(|t| t % stride[d] == r)).collect());
        Planes { input, before, stride, phases, lens: std::array::from_fn(|d| padded[d].div_ceil(stride[d])) }
    }
    /// Numbers of one channel.
    pub(super) fn channel(&self) -> usize {
        self.lens.iter().product::<usize>() * self.phases.iter().map(Vec::len).product::<usize>()
    }
    /// Where, in a channel, the plane place `at` lies.
    pub(super) fn place(&self, at: [usize; 3]) -> usize {
        (at[0] * self.lens[1] + at[1]) * self.lens[2] + at[2]
    }
    /// Where, in a channel, the padded image's place `at`, a tap, lies.
    pub(super) fn shifted(&self, at: [usize; 3]) -> usize {
        let phase = |d: usize| self.phases[d].iter().position(|&r| r == at[d] % self.stride[d]).unwrap_or(0);
        let plane = (phase(0) * self.phases[1].len() + phase(1)) * self.phases[2].len() + phase(2);
        let inner = self.place(std::array::from_fn(|d| at[d] / self.stride[d]));
        plane * self.lens.iter().product::<usize>() + inner
    }
}

by_level! {
    /// Copies channels of an image, one after another, into planes. What follows them in `out`, up to [`SLACK`] numbers, has any
    /// value afterwards.
    ///
    /// # Safety
    /// `out` has room for as many channels as `image` holds, and for [`SLACK`] numbers more.
    pub(super) unsafe fn copy_planes<T>(planes: &Planes, image: &[T], out: &mut [T]) => planes_of
}

#[inline(always)]
unsafe fn planes_of<V: Vector>(p: &Planes, image: &[V::T], out: &mut [V::T]) {
    let image_channel = p.input.iter().product::<usize>().max(1);
    debug_assert!(out.len() >= image.len() / image_channel * p.channel() + SLACK);
    let mut out = out.as_mut_ptr();
    if p.lens == p.input && p.stride == [1; 3] && p.before == [0; 3] {
        // SAFETY: the planes are the image.
        return unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), out, image.len()) };
    }
    for image in image.chunks_exact(image_channel) {
        for &pz in &p.phases[0] {
            for &py in &p.phases[1] {
                for &px in &p.phases[2] {
                    for (z, y) in (0..p.lens[0]).flat_map(|z| (0..p.lens[1]).map(move |y| (z, y))) {
                        // What lies before the image wraps around, and is out of range as well.
                        let z = (z * p.stride[0] + pz).wrapping_sub(p.before[0]);
                        let y = (y * p.stride[1] + py).wrapping_sub(p.before[1]);
                        let inside = z < p.input[0] && y < p.input[1];
                        // The line, and what follows it.
                        let line = inside.then(|| &image[(z * p.input[1] + y) * p.input[2]..]);
                        // SAFETY: by the caller, `out` holds every row of every plane.
                        unsafe {
                            row_of::<V>(p, line, px, out);
                            out = out.add(p.lens[2]);
                        }
                    }
                }
            }
        }
    }
}

/// Writes a plane's row of the phase `px` of an image's row, `line` (none: padding). Whole vectors are written, since a mask
/// costs more than what the next row overwrites.
#[inline(always)]
unsafe fn row_of<V: Vector>(p: &Planes, line: Option<&[V::T]>, px: usize, out: *mut V::T) {
    let (before, stride, len) = (p.before[2], p.stride[2], p.lens[2]);
    let Some(line) = line else {
        // SAFETY: by the caller.
        return unsafe { fill::<V>(out, len) };
    };
    // The first number of the line that this plane has, and where; the plane may end before the line does.
    let from = if stride == 1 { before } else { before.saturating_sub(px).div_ceil(stride) }.min(len);
    let first = from * stride + px - before.min(from * stride + px);
    let rest = p.input[2].saturating_sub(first);
    let n = if stride == 1 { rest } else { rest.div_ceil(stride) }.min(len - from);
    // SAFETY: `from + n ≤ len`, the room that the caller gives; `first + (n − 1)·stride` lies in the line.
    unsafe {
        fill::<V>(out, from);
        if stride == 1 {
            copy::<V>(&line[first.min(line.len())..], out.add(from), n);
        } else {
            for i in 0..n {
                *out.add(from + i) = *line.as_ptr().add(first + i * stride);
            }
        }
        fill::<V>(out.add(from + n), len - from - n);
    }
}

/// Copies the first `n` numbers, and what lies behind them in the last vector.
#[inline(always)]
unsafe fn copy<V: Vector>(x: &[V::T], out: *mut V::T, n: usize) {
    for i in (0..n).step_by(V::LANES) {
        // SAFETY: inside `x`; by the caller, room for a vector.
        unsafe {
            if i + V::LANES <= x.len() {
                V::load(x.as_ptr().add(i)).store(out.add(i));
            } else {
                std::ptr::copy_nonoverlapping(x.as_ptr().add(i), out.add(i), n - i);
            }
        }
    }
}

/// Writes `n` zeros, and more to a vector's end.
#[inline(always)]
unsafe fn fill<V: Vector>(out: *mut V::T, n: usize) {
    for i in (0..n).step_by(V::LANES) {
        // SAFETY: by the caller.
        unsafe { V::zero().store(out.add(i)) }
    }
}

/// A run of lanes of a vector of windows, and where they lie in an image of results.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The first lane.
    pub(super) from: usize,
    /// The lane after the last.
    pub(super) to: usize,
    /// Where the first one lies.
    pub(super) at: usize,
}

/// Windows in vectors: where each vector begins in a plane, and which of its lanes are windows.
#[derive(Clone, Debug, Default)]
pub(super) struct Vectors {
    /// The plane place of each vector's first lane.
    pub(super) starts: Vec<usize>,
    runs: Vec<Run>,
    ends: Vec<usize>,
    /// The distance of neighbouring lanes in the image of results.
    pub(super) step: usize,
}

impl Vectors {
    /// `count` windows in each dimension, the first at plane place `first`, in vectors of `lanes`. Window `w` lies at
    /// `at + Σ w·steps` of the results.
    ///
    /// Where rows are short, vectors run on over their ends, and the lanes between the rows are wasted; else each row has
    /// vectors of its own: whichever takes fewer.
    pub(super) fn over(
        planes: &Planes,
        first: [usize; 3],
        count: [usize; 3],
        lanes: usize,
        at: usize,
        steps: [usize; 3],
    ) -> Vectors {
        let mut v = Vectors { step: steps[2], ..Vectors::default() };
        if count.contains(&0) {
            return v;
        }
        let pitch = planes.lens[2];
        let flat = (count[1] - 1) * pitch + count[2];
        let (rows, flat) =
            if flat.div_ceil(lanes) < count[1] * count[2].div_ceil(lanes) { (1, flat) } else { (count[1], count[2]) };
        for z in 0..count[0] {
            for y in 0..rows {
                let start = planes.place([first[0] + z, first[1] + y, first[2]]);
                for p in (0..flat).step_by(lanes) {
                    v.starts.push(start + p);
                    // A vector meets every row that its places touch.
                    for row in p / pitch..=((p + lanes - 1) / pitch).min(count[1] - 1) {
                        let (from, to) = ((row * pitch).max(p), (row * pitch + count[2]).min(p + lanes));
                        if from < to && (rows == 1 || row == 0) {
                            let at = at + z * steps[0] + (y + row) * steps[1] + (from - row * pitch) * steps[2];
                            v.runs.push(Run { from: from - p, to: to - p, at });
                        }
                    }
                    v.ends.push(v.runs.len());
                }
            }
        }
        v
    }
    /// The runs of vector `i`.
    #[inline(always)]
    pub(super) fn runs(&self, i: usize) -> &[Run] {
        &self.runs[self.range(i)]
    }
    fn range(&self, i: usize) -> Range<usize> {
        (if i == 0 { 0 } else { self.ends[i - 1] })..self.ends[i]
    }
}

by_level! {
    /// Copies an image of results into vectors, with zeros in lanes that are no windows.
    ///
    /// # Safety
    /// The image holds every window, and `out` as many vectors as there are.
    pub(super) unsafe fn copy_vectors<T>(windows: &Vectors, image: &[T], out: &mut [T]) => vectors_of
}

#[inline(always)]
unsafe fn vectors_of<V: Vector>(windows: &Vectors, image: &[V::T], out: &mut [V::T]) {
    for i in 0..windows.starts.len() {
        // SAFETY: by the caller.
        unsafe {
            let load = |r: &Run| V::load_lanes(image.as_ptr().add(r.at), r.from, r.to);
            let v = match windows.runs(i) {
                [r] if r.to - r.from == V::LANES => V::load(image.as_ptr().add(r.at)),
                runs => runs.iter().fold(V::zero(), |v, r| v.add(load(r))),
            };
            v.store(out.as_mut_ptr().add(i * V::LANES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_plane_holds_each_tap_of_all_windows() {
        // 5×7 places, windows 2×3 apart, padding 1 and 2 in front.
        let (input, before, padded, stride) = ([1, 5, 7], [0, 1, 2], [1, 7, 11], [1, 2, 3]);
        // No tap of a row lies two places from a window's begin: that plane is left out.
        let planes = Planes::new(input, before, padded, stride, [&[0], &[0, 1, 2], &[0, 1, 3, 4]]);
        assert_eq!(planes.channel(), (2 * 2) * (4 * 4));
        let image: Vec<f32> = (1..=35).map(|x| x as f32).collect();
        let mut out = vec![-1.0; planes.channel() + SLACK];
        // SAFETY: room for the image's one channel and more.
        unsafe { copy_planes(&planes, &image, &mut out) };
        for (tap, o) in [([0, 0, 0], [0, 0, 0]), ([0, 2, 1], [0, 2, 1]), ([0, 1, 4], [0, 1, 2]), ([0, 0, 3], [0, 2, 2])]
        {
            let at: [usize; 3] = std::array::from_fn(|d| o[d] * stride[d] + tap[d]);
            let inside = at[1] >= 1 && at[2] >= 2 && at[1] < 6 && at[2] < 9;
            let want = if inside { image[(at[1] - 1) * 7 + at[2] - 2] } else { 0.0 };
            assert_eq!(out[planes.shifted(tap) + planes.place(o)], want, "tap {tap:?} of window {o:?}");
        }
    }

    #[test]
    fn vectors_cover_each_window_once_in_both_arrangements() {
        for (count, pitch) in [([2, 3, 5], 7), ([1, 4, 16], 18), ([1, 24, 24], 26), ([3, 1, 1], 1), ([1, 2, 33], 35)] {
            let lens = [count[0], count[1] + 2, pitch];
            let planes = Planes::new(lens, [0; 3], lens, [1; 3], [&[0]; 3]);
            let v = Vectors::over(&planes, [0; 3], count, 16, 0, [count[1] * count[2], count[2], 1]);
            let mut seen = vec![0; count.iter().product()];
            for i in 0..v.starts.len() {
                for r in v.runs(i) {
                    for lane in r.from..r.to {
                        let w = r.at + lane - r.from;
                        let place = planes.place([w / (count[1] * count[2]), w / count[2] % count[1], w % count[2]]);
                        assert_eq!(v.starts[i] + lane, place);
                        seen[w] += 1;
                    }
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "{count:?} in rows of {pitch}: {seen:?}");
        }
    }
}
