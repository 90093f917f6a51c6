//! The 2-norm of several tensors as if they were one: √(Σ x²) over all elements of all of them.
//!
//! Each tensor is cut in chunks, of each of which a cube writes the sum of squares beside those of the other tensors; then one
//! cube adds them all up. The order of the sums depends on shapes alone. CPU reference: the composite's definition.

use crate::reduce::Combine;
use crate::rows::{LANES, together};
use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// `parts[first + cube] = Σ x²` over the cube's `chunk` elements; the tensor has `chunks` of them.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn square_sum_kernel<T: Numeric>(
    x: &Array<T>,
    parts: &mut Array<f32>,
    shape: Sequence<usize>,
    at: Place,
    first: usize,
    len: usize,
    chunk: usize,
    chunks: usize,
    #[define(T)] _type: StorageType,
) {
    if CUBE_POS < chunks {
        let end = min((CUBE_POS + 1) * chunk, len);
        let mut sum = f32::new(0.0);
        let mut i = CUBE_POS * chunk + UNIT_POS as usize;
        while i < end {
            let v = f32::cast_from(x[usize::cast_from(locate(i, &shape, &at))]);
            sum += v * v;
            i += LANES;
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
