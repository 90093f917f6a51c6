//! Dropout with the CPU's bits: `y[i] = x[i] · (uniform(word i) < keep ? 1/keep : 0)` (Srivastava et al., JMLR 2014), perhaps with a
//! residual added.
//!
//! The mask's words are Philox's (see [`crate::random`]), four for each thread; nothing of the mask is stored, and backward
//! draws it again. A uniform k·2⁻²⁴ lies below `keep` exactly if k < ⌈keep · 2²⁴⌉, an integer comparison, so the mask has the
//! CPU's bits, and the product its rounding. CPU reference: `gradus_core::functional::dropout`.

use crate::random::philox;
use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// `len` elements of `x` under the mask; `scale` is 1/keep. `more` is added, and read only if `is_joined`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn dropout_kernel<T: Numeric>(
    x: &Array<T>,
    more: &Array<T>,
    out: &mut Array<T>,
    shape: Sequence<usize>,
    from: Place,
    more_from: Place,
    key_lo: u32,
    key_hi: u32,
    step: u32,
    stream_lo: u32,
    stream_hi: u32,
    threshold: u32,
    scale: f32,
    len: usize,
    #[comptime] is_joined: bool,
    #[define(T)] _type: StorageType,
) {
    let at = ABSOLUTE_POS * 4;
    if at < len {
        let words = philox(u32::cast_from(ABSOLUTE_POS), step, stream_lo, stream_hi, key_lo, key_hi);
        #[unroll]
        for i in 0..4usize {
            if at + i < len {
                let v = f32::cast_from(x[usize::cast_from(locate(at + i, &shape, &from))]);
                let mut y = v * select((words[i] >> 8u32) < threshold, scale, f32::new(0.0));
                if comptime!(is_joined) {
                    y += f32::cast_from(more[usize::cast_from(locate(at + i, &shape, &more_from))]);
                }
                out[at + i] = T::cast_from(y);
            }
        }
    }
}
