//! A sum of the Newton–Schulz iteration: out = x·own + y·other, brought to the nearest value of the dtype `H`.
//!
//! The second product is rounded, the first is not: one fused multiply-add. CPU reference: the composite's definition, which computes
//! the first product in `f64`.

use cubecl::prelude::*;

/// The sum of each two elements.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn newton_schulz_kernel<T: Numeric, H: Numeric>(
    x: &Array<T>,
    y: &Array<T>,
    out: &mut Array<T>,
    own: f32,
    other: f32,
    len: usize,
    #[define(T)] _type: StorageType,
    #[define(H)] _rounded: StorageType,
) {
    if ABSOLUTE_POS < len {
        let i = ABSOLUTE_POS;
        let sum = fma(f32::cast_from(x[i]), own, f32::cast_from(y[i]) * other);
        out[i] = T::cast_from(H::cast_from(sum));
    }
}
