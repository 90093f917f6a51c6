//! What kernels of one row share: who works on which row, and how a cube's threads combine what each found.
//!
//! A short row is one thread's (`lanes` 1: thread `i` of the launch has row `i`); a longer one a cube's of `lanes` threads, a
//! power of two (cube `i` has row `i`, thread `t` the elements `t, t + lanes, …`). The choice is the host's, by shape alone.

use crate::reduce::{Combine, combine};
use cubecl::prelude::*;

/// The most threads of a cube that shares a row.
pub const LANES: usize = 256;

/// The row that this thread works on.
#[cube]
pub fn row(#[comptime] lanes: usize) -> usize {
    if comptime!(lanes == 1) { ABSOLUTE_POS } else { CUBE_POS }
}

/// The first element of the row that is this thread's; the others follow `lanes` apart.
#[cube]
pub fn lane(#[comptime] lanes: usize) -> usize {
    if comptime!(lanes == 1) { 0usize.runtime() } else { UNIT_POS as usize }
}

/// What the row's threads found, combined in a tree, for each of them. All threads of a cube must come here together.
#[cube]
pub fn together(value: f32, #[comptime] lanes: usize, #[comptime] op: Combine) -> f32 {
    if comptime!(lanes == 1) {
        value
    } else {
        let me = UNIT_POS as usize;
        let mut shared = SharedMemory::<f32>::new(lanes);
        shared[me] = value;
        sync_cube();
        #[unroll]
        for i in 0..comptime!(lanes.ilog2()) {
            let half = comptime!(lanes >> (i + 1));
            if me < half {
                let other = shared[me + half];
                shared[me] = combine::<f32>(shared[me], other, op);
            }
            sync_cube();
        }
        let all = shared[0];
        // Nobody writes the next sum before everybody has read this one.
        sync_cube();
        all
    }
}
