//! Optimizer steps in one pass over parameters, gradients and states, of as many tensors in one launch as there is room for.
//!
//! The formulas, line by line, are those of `gradus_core::functional::update`, which is the CPU reference; halves compute in
//! `f32` and round once. Tensors lie apart, so a kernel gets a list of each kind of them, and each cube finds its share: an
//! update of a hundred small tensors is one launch that fills the device, not a hundred that do not.

mod adam;
mod lion;
mod muon;
mod sgd;

pub use adam::*;
pub use lion::*;
pub use muon::*;
pub use sgd::*;

use cubecl::prelude::*;

/// The elements of one tensor that a cube updates.
pub const SHARE: usize = 1024;

/// One tensor of a launch. Its targets are dense from their first element on; the gradient is dense.
#[derive(CubeType, CubeLaunch)]
pub struct Part {
    /// The first of its cubes; it has one for each [`SHARE`] of its elements.
    pub first: usize,
    /// Its elements.
    pub len: usize,
    /// Where the gradient begins in its memory.
    pub offset: usize,
}

/// The first element of the tensor that is this thread's; those after it follow a cube's threads apart.
#[cube]
fn begin(part: &Part) -> usize {
    let mut at = part.len;
    if CUBE_POS >= part.first {
        at = (CUBE_POS - part.first) * SHARE + UNIT_POS as usize;
    }
    at
}

/// Where this cube's share of the tensor ends: before its beginning if it has none.
#[cube]
fn end(part: &Part) -> usize {
    let mut end = 0usize;
    if CUBE_POS >= part.first {
        end = min((CUBE_POS - part.first + 1) * SHARE, part.len);
    }
    end
}

/// The gradient's element `i`, times the factor, if there is one: rounded as the product in ops would be.
#[cube]
fn gradient<T: Numeric>(g: &Array<T>, i: usize, part: &Part, factor: &Sequence<Array<T>>) -> f32 {
    let own = g[part.offset + i];
    if comptime!(factor.len() == 0) {
        f32::cast_from(own)
    } else {
        let factor = factor[0][0];
        f32::cast_from(T::cast_from(f32::cast_from(own) * f32::cast_from(factor)))
    }
}
