//! The 2-norm of several tensors as if they were one: √(Σ x²) over all elements of all of them.
//!
//! Each tensor is cut in chunks, of each of which a cube writes the sum of squares beside those of the other tensors, as many in one
//! launch as there is room for; then one cube adds them all up. The order of the sums depends on shapes alone. CPU reference: the composite's definition.

use crate::reduce::Combine;
use crate::rows::{LANES, together};
use crate::strided::{Place, locate};
use cubecl::prelude::*;

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

/// `parts[first + cube] = Σ x²` over the cube's `chunk` elements of its tensor; the launch has `chunks` of them.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn square_sum_kernel<T: Numeric>(
    x: &Sequence<Array<T>>,
    parts: &mut Array<f32>,
    summands: &Sequence<Summand>,
    first: usize,
    chunk: usize,
    chunks: usize,
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
                sum += v * v;
                i += LANES;
            }
        }
        let all = together(sum, LANES, Combine::Sum);
        if UNIT_POS == 0 {
            parts[first + CUBE_POS] = all;
        }
    }
}

/// `out[0] = √(Σ parts)`, by one cube.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn root_sum_kernel<T: Numeric>(
    parts: &Array<f32>,
    out: &mut Array<T>,
    count: usize,
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
        out[0] = T::cast_from(all.sqrt());
    }
}
