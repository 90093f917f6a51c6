//! How a kernel says that an index names no place.
//!
//! A device cannot stop in the middle of its work, and waiting for it at each lookup would stall every step. So an index out
//! of range is not followed; it is noted in two words of memory, which the host reads where it waits anyhow: the number that
//! the host gave this launch, and the index. The first launch to note one keeps the words: later ones see that they are taken.
//! Within a launch any of its bad indices may be the one that is kept.
//!
//! CPU reference: the error of the CPU's own lookup.

use cubecl::prelude::*;

/// The words of a fault: the launch's number (0: none), and the index as a 32-bit integer, saturated.
pub const WORDS: usize = 2;

/// The place that `index` names among `limit`, negative ones counted from the end; `limit` itself where there is none, which
/// is noted for launch `site`.
#[cube]
pub fn place_of<I: Numeric>(index: I, limit: usize, fault: &mut Array<u32>, site: u32) -> usize {
    let zero = I::from_int(0);
    let wrapped = select(index < zero, index + I::cast_from(limit), index);
    let inside = wrapped >= zero && usize::cast_from(wrapped) < limit;
    if !inside {
        note::<I>(index, fault, site);
    }
    select(inside, usize::cast_from(wrapped), limit)
}

/// Notes that `index` names nothing, unless an earlier launch noted one.
#[cube]
pub fn note<I: Numeric>(index: I, fault: &mut Array<u32>, site: u32) {
    if fault[0] == 0u32 {
        let most = I::from_int(2_147_483_647);
        let least = I::from_int(-2_147_483_647);
        fault[1] = u32::cast_from(i32::cast_from(select(index > most, most, select(index < least, least, index))));
        fault[0] = site;
    }
}
