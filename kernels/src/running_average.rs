//! Averages that follow batches, the running statistics of normalizations: out = (1 − momentum)·old + momentum·new.
//!
//! What is too small for full precision becomes 0, as on the CPU; halves compute in `f32` and round once. CPU reference: the formula.

use cubecl::prelude::*;

/// The least normal `f32`.
const LEAST: f32 = f32::MIN_POSITIVE;

/// The average, of so much of the old one and so much of the new numbers.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn running_average_kernel<T: Numeric>(
    old: &Array<T>,
    new: &Array<T>,
    out: &mut Array<T>,
    stays: f32,
    comes: f32,
    len: usize,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let v = f32::cast_from(old[ABSOLUTE_POS]) * stays + f32::cast_from(new[ABSOLUTE_POS]) * comes;
        out[ABSOLUTE_POS] = T::cast_from(select(v.abs() < f32::new(LEAST), f32::new(0.0), v));
    }
}
