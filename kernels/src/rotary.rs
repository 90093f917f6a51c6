//! Rotation of pairs of numbers by angles of their position (Su et al., "RoFormer", 2021): (a, b) → (a·c − b·s, b·c + a·s).
//!
//! Backward is the rotation back, with −s. A thread has one pair, or one number that stays as it is; halves compute in `f32` and
//! round once. CPU reference: the composite's definition.

use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// The rows of x, and its tables.
#[derive(CubeType, CubeLaunch)]
pub struct Turning {
    /// Numbers of a row.
    pub width: usize,
    /// Pairs of a row that turn.
    pub pairs: usize,
    /// Positions: row r is at position r mod `length`.
    pub length: usize,
    /// The step from a number of a row to the next.
    pub step: isize,
    /// Where the cosines begin.
    pub cosines: usize,
    /// Where the sines begin.
    pub sines: usize,
    /// What sines are multiplied with: −1 to turn back.
    pub sign: f32,
}

/// x turned, dense; `len` counts the threads: pairs and the numbers that stay, of all rows.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn rotary_kernel<T: Numeric>(
    x: &Array<T>,
    cos: &Array<T>,
    sin: &Array<T>,
    out: &mut Array<T>,
    rows: Sequence<usize>,
    at_x: Place,
    t: Turning,
    len: usize,
    #[comptime] interleaved: bool,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let each = t.width - t.pairs;
        let r = ABSOLUTE_POS / each;
        let j = ABSOLUTE_POS % each;
        let from = locate(r, &rows, &at_x);
        let to = r * t.width;
        if j < t.pairs {
            let first = if comptime!(interleaved) { 2 * j } else { j };
            let second = if comptime!(interleaved) { 2 * j + 1 } else { j + t.pairs };
            let a = f32::cast_from(x[usize::cast_from(from + isize::cast_from(first) * t.step)]);
            let b = f32::cast_from(x[usize::cast_from(from + isize::cast_from(second) * t.step)]);
            let angle = r % t.length * t.pairs + j;
            let c = f32::cast_from(cos[t.cosines + angle]);
            let s = f32::cast_from(sin[t.sines + angle]) * t.sign;
            out[to + first] = T::cast_from(a * c - b * s);
            out[to + second] = T::cast_from(b * c + a * s);
        } else {
            let k = j + t.pairs;
            out[to + k] = x[usize::cast_from(from + isize::cast_from(k) * t.step)];
        }
    }
}
