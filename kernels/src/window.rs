//! Windows over one to three spatial dimensions inside kernels: which place of the input a place of a window sees, and which
//! windows see a place.
//!
//! Window `o` of a dimension sees the places `o·stride − before + k·dilation` for `k` below `size`; what lies outside the input
//! is padding. The number of dimensions is a compile-time constant, the lengths are not, so that one compiled kernel serves
//! every network. CPU reference: `gradus_core::functional::window`.

use cubecl::prelude::*;

/// The geometry, a number for each dimension.
#[derive(CubeType, CubeLaunch)]
pub struct Windows {
    /// The input's lengths.
    pub input: Sequence<usize>,
    /// How many windows there are.
    pub output: Sequence<usize>,
    /// Places in a window.
    pub size: Sequence<usize>,
    /// The distance of neighbouring windows.
    pub stride: Sequence<usize>,
    /// How far the first window begins before the input.
    pub before: Sequence<usize>,
    /// The distance of neighbouring places of a window.
    pub dilation: Sequence<usize>,
}

/// A row-major position and whether it lies inside.
#[derive(CubeType)]
pub struct Spot {
    /// The position; of no use outside.
    pub at: usize,
    /// Whether there is one.
    pub inside: bool,
}

/// The product of lengths.
#[cube]
pub fn volume(lens: &Sequence<usize>) -> usize {
    let rank = comptime!(lens.len());
    let mut n = lens[0];
    #[unroll]
    for d in 1..rank {
        n *= lens[d];
    }
    n
}

/// The coordinates of a row-major position, the last dimension first.
#[cube]
pub fn coordinates(pos: usize, lens: &Sequence<usize>) -> Sequence<usize> {
    let rank = comptime!(lens.len());
    let mut rest = pos;
    let mut found = Sequence::<usize>::new();
    #[unroll]
    for i in 0..rank {
        let d = comptime!(rank - 1 - i);
        if comptime!(d == 0) {
            found.push(rest);
        } else {
            found.push(rest % lens[d]);
            rest /= lens[d];
        }
    }
    found
}

/// What place `k` of window `o` sees; both are coordinates.
#[cube]
pub fn seen(o: &Sequence<usize>, k: &Sequence<usize>, w: &Windows) -> Spot {
    let rank = comptime!(w.input.len());
    let mut at = 0usize.runtime();
    let mut step = 1usize.runtime();
    let mut inside = true.runtime();
    #[unroll]
    for i in 0..rank {
        let d = comptime!(rank - 1 - i);
        let padded = o[i] * w.stride[d] + k[i] * w.dilation[d];
        let place = padded - w.before[d]; // wraps where it lies before the input
        inside = inside && padded >= w.before[d] && place < w.input[d];
        at += place * step;
        step *= w.input[d];
    }
    Spot { at, inside }
}

/// The window that sees place `i` of the input as its place `k`; both are coordinates.
#[cube]
pub fn seer(i: &Sequence<usize>, k: &Sequence<usize>, w: &Windows) -> Spot {
    let rank = comptime!(w.input.len());
    let mut at = 0usize.runtime();
    let mut step = 1usize.runtime();
    let mut inside = true.runtime();
    #[unroll]
    for j in 0..rank {
        let d = comptime!(rank - 1 - j);
        let padded = i[j] + w.before[d];
        let back = k[j] * w.dilation[d];
        let begin = padded - back; // wraps where the window would begin before the padding
        let o = begin / w.stride[d];
        inside = inside && padded >= back && o * w.stride[d] == begin && o < w.output[d];
        at += o * step;
        step *= w.output[d];
    }
    Spot { at, inside }
}
