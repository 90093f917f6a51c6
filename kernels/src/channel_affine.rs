//! y = x·scale + shift for each channel of dense `[batch, channels, places]`: what a batch normalization with known statistics
//! (Ioffe & Szegedy, 2015) comes down to. A thread has one element; halves compute in `f32` and round once. CPU reference: the
//! composite's definition.

use cubecl::prelude::*;

/// All `len` elements of y.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn channel_affine_kernel<T: Numeric>(
    x: &Array<T>,
    scale: &Array<T>,
    shift: &Array<T>,
    out: &mut Array<T>,
    channels: usize,
    places: usize,
    len: usize,
    #[define(T)] _type: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < len {
        let c = i / places % channels;
        let y = f32::cast_from(x[i]) * f32::cast_from(scale[c]) + f32::cast_from(shift[c]);
        out[i] = T::cast_from(y);
    }
}
