//! Where an image's numbers lie while it is convolved.
//!
//! An image is copied once, with its padding, into planes. A stride of s puts places s apart side by side (a plane for each
//! remainder), so that neighbouring windows always read neighbouring numbers: tap k of all windows is the plane shifted by a
//! constant. A convolution is then a matrix product whose right side is read in place, shifted, and never written out.

use std::ops::Range;

/// How an image is laid out in planes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planes {
    /// The image's lengths.
    input: [usize; 3],
    /// Padding in front.
    before: [usize; 3],
    /// How far apart windows begin.
    stride: [usize; 3],
    /// Lengths of one plane.
    lens: [usize; 3],
}

impl Planes {
    /// Planes for padded lengths `padded`, of which `before` come in front of the image.
    pub(super) fn new(input: [usize; 3], before: [usize; 3], padded: [usize; 3], stride: [usize; 3]) -> Planes {
        Planes { input, before, stride, lens: std::array::from_fn(|d| padded[d].div_ceil(stride[d])) }
    }
    /// Numbers of one channel.
    pub(super) fn channel(&self) -> usize {
        self.plane() * self.stride.iter().product::<usize>()
    }
    fn plane(&self) -> usize {
        self.lens.iter().product()
    }
    /// Where, in a channel, the plane place `at` lies.
    pub(super) fn place(&self, at: [usize; 3]) -> usize {
        (at[0] * self.lens[1] + at[1]) * self.lens[2] + at[2]
    }
    /// Where, in a channel, the padded image's place `at` lies.
    pub(super) fn shifted(&self, at: [usize; 3]) -> usize {
        let s = self.stride;
        let phase = ((at[0] % s[0]) * s[1] + at[1] % s[1]) * s[2] + at[2] % s[2];
        phase * self.plane() + self.place([at[0] / s[0], at[1] / s[1], at[2] / s[2]])
    }

    /// Copies channels of an image, one after another, into planes.
    pub(super) fn copy<T: Copy>(&self, image: &[T], out: &mut [T], zero: T) {
        if self.lens == self.input && self.stride == [1; 3] && self.before == [0; 3] {
            return out.copy_from_slice(image);
        }
        let whole = self.input.iter().product::<usize>().max(1);
        let wide = self.lens[2] * self.stride[2];
        for (image, out) in image.chunks_exact(whole).zip(out.chunks_exact_mut(self.channel().max(1))) {
            for z in 0..self.lens[0] * self.stride[0] {
                for y in 0..self.lens[1] * self.stride[1] {
                    let at = self.shifted([z, y, 0]);
                    let inside = |d: usize, i: usize| i.checked_sub(self.before[d]).filter(|&i| i < self.input[d]);
                    let row = inside(0, z).zip(inside(1, y));
                    let row = row
                        .map_or(&[][..], |(z, y)| &image[(z * self.input[1] + y) * self.input[2]..][..self.input[2]]);
                    self.copy_row(row, &mut out[at..], wide, zero);
                }
            }
        }
    }

    /// Copies a row of `wide` padded places (an empty one: padding alone) into its planes, the first of which begins at `out`.
    #[inline(always)]
    fn copy_row<T: Copy>(&self, row: &[T], out: &mut [T], wide: usize, zero: T) {
        let (stride, plane) = (self.stride[2], self.plane());
        // The planes may end before the row does: what no window sees is left out.
        let (before, end) = (self.before[2].min(wide), (self.before[2] + row.len()).min(wide));
        if row.is_empty() {
            (0..stride).for_each(|s| out[s * plane..][..self.lens[2]].fill(zero));
        } else if stride == 1 {
            out[..before].fill(zero);
            out[before..end].copy_from_slice(&row[..end - before]);
            out[end..wide].fill(zero);
        } else {
            for s in 0..stride {
                // The row's first place in this plane, and that place's number in the row.
                let first = before + (s + stride - before % stride) % stride;
                let (from, n) = (first / stride, end.saturating_sub(first).div_ceil(stride));
                let out = &mut out[s * plane..][..self.lens[2]];
                out[..from.min(self.lens[2])].fill(zero);
                if n > 0 {
                    let numbers = &row[first - self.before[2]..];
                    match stride {
                        2 => every_second(numbers, &mut out[from..from + n]),
                        _ => out[from..from + n]
                            .iter_mut()
                            .zip(numbers.iter().step_by(stride))
                            .for_each(|(o, &x)| *o = x),
                    }
                }
                out[(from + n).min(self.lens[2])..].fill(zero);
            }
        }
    }
}

/// Every second number, from the first on.
#[inline(always)]
fn every_second<T: Copy>(x: &[T], out: &mut [T]) {
    let last = out.len() - 1;
    // In pairs, which the compiler makes into shuffles; the last pair may be cut short.
    for (o, x) in out[..last].iter_mut().zip(x.chunks_exact(2)) {
        *o = x[0];
    }
    out[last] = x[2 * last];
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

    /// Copies an image of results into vectors, with zeros in lanes that are no windows.
    pub(super) fn copy<T: Copy>(&self, image: &[T], out: &mut [T], lanes: usize, zero: T) {
        for (i, out) in out.chunks_exact_mut(lanes).enumerate().take(self.starts.len()) {
            let runs = self.runs(i);
            if !matches!(runs, [r] if r.to - r.from == lanes) {
                out.fill(zero);
            }
            for r in runs {
                out[r.from..r.to].copy_from_slice(&image[r.at..][..r.to - r.from]);
            }
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
        let planes = Planes::new(input, before, padded, stride);
        let image: Vec<i32> = (1..=35).collect();
        let mut out = vec![-1; planes.channel()];
        planes.copy(&image, &mut out, 0);
        for (tap, o) in [([0, 0, 0], [0, 0, 0]), ([0, 2, 1], [0, 2, 1]), ([0, 1, 4], [0, 1, 2]), ([0, 0, 3], [0, 2, 2])]
        {
            let at: [usize; 3] = std::array::from_fn(|d| o[d] * stride[d] + tap[d]);
            let inside = at[1] >= 1 && at[2] >= 2 && at[1] < 6 && at[2] < 9;
            let want = if inside { image[(at[1] - 1) * 7 + at[2] - 2] } else { 0 };
            assert_eq!(out[planes.shifted(tap) + planes.place(o)], want, "tap {tap:?} of window {o:?}");
        }
    }

    #[test]
    fn vectors_cover_each_window_once_in_both_arrangements() {
        for (count, pitch) in [([2, 3, 5], 7), ([1, 4, 16], 18), ([1, 24, 24], 26), ([3, 1, 1], 1), ([1, 2, 33], 35)] {
            let planes = Planes::new([count[0], count[1] + 2, pitch], [0; 3], [count[0], count[1] + 2, pitch], [1; 3]);
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
