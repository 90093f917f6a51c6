//! What several tensors have together, as if they were one: their 2-norm √(Σ (x·factor)²), or whether all elements are finite.
//!
//! Each tensor is cut in chunks, of each of which a cube writes the sum (of squares, or of 1 for each element that is not finite) beside
//! those of the other tensors, as many in one launch as there is room for; then one cube adds them all up. The order of the sums depends
//! on shapes alone. CPU reference: the composites' definitions.

use crate::reduce::Combine;
use crate::rows::{LANES, together};
use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// What is asked of all elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// √(Σ (x·factor)²).
    Norm,
    /// 1 if all are finite, else 0.
    Finite,
}

/// What an element adds to the sum: 0, if all that is asked is whether it is finite, and it is.
#[cube]
fn share(v: f32, factor: f32, #[comptime] asked: Question) -> f32 {
    match asked {
        Question::Norm => {
            let x = v * factor;
            x * x
        }
        Question::Finite => select(v.abs() <= f32::max_value(), f32::new(0.0), f32::new(1.0)),
    }
}

/// One tensor of a launch.
#[derive(CubeType, CubeLaunch)]
pub struct Summand {
    /// The first of its cubes; it has one for each chunk of its elements.
    pub first: usize,
    /// Its elements.
    pub len: usize,
    /// Its dimensions.
    pub shape: Sequence<usize>,
    /// And how it lies in its memory.
    pub place: Place,
}

/// `parts[first + cube] = Σ share(x)` over the cube's `chunk` elements of its tensor; the launch has `chunks` of them.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn several_kernel<T: Numeric>(
    x: &Sequence<Array<T>>,
    parts: &mut Array<f32>,
    summands: &Sequence<Summand>,
    first: usize,
    chunk: usize,
    chunks: usize,
    factor: f32,
    #[comptime] asked: Question,
    #[define(T)] _type: StorageType,
) {
    if CUBE_POS < chunks {
        let count = comptime!(summands.len());
        let mut sum = f32::new(0.0);
        // One of them has elements for this cube.
        #[unroll]
        for t in 0..count {
            let (x, s) = (x.index(t), summands.index(t));
            let mut i = s.len;
            let mut end = 0usize;
            if CUBE_POS >= s.first {
                i = (CUBE_POS - s.first) * chunk + UNIT_POS as usize;
                end = min((CUBE_POS - s.first + 1) * chunk, s.len);
            }
            while i < end {
                let v = f32::cast_from(x[usize::cast_from(locate(i, &s.shape, &s.place))]);
                sum += share(v, factor, asked);
                i += LANES;
            }
        }
        let all = together(sum, LANES, Combine::Sum);
        if UNIT_POS == 0 {
            parts[first + CUBE_POS] = all;
        }
    }
}

/// `out[0] = √(Σ parts)`, or whether that sum is 0, by one cube.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn answer_kernel<T: Numeric>(
    parts: &Array<f32>,
    out: &mut Array<T>,
    count: usize,
    #[comptime] asked: Question,
    #[define(T)] _type: StorageType,
) {
    let mut sum = f32::new(0.0);
    let mut i = UNIT_POS as usize;
    while i < count {
        sum += parts[i];
        i += LANES;
    }
    let all = together(sum, LANES, Combine::Sum);
    if UNIT_POS == 0 {
        out[0] = match asked {
            Question::Norm => T::cast_from(all.sqrt()),
            Question::Finite => T::cast_from(all == f32::new(0.0)),
        };
    }
}
