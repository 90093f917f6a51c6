//! Cumulative reductions along a dimension: `out[i] = x[0] ∘ … ∘ x[i]`.
//!
//! A row is cut into chunks of fixed length. The chunks' totals are computed first, scanned themselves (by the same two
//! kernels), and each chunk then starts from the total before it. The order of the combinations depends on the length
//! alone. CPU reference: the sequential loop.

use crate::reduce::{Combine, combine};
use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// `totals[row · chunks + c] = ` the combination of chunk `c` of the row. One thread for each chunk.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn scan_totals_kernel<In: Numeric, A: Numeric>(
    x: &Array<In>,
    totals: &mut Array<A>,
    rows: Sequence<usize>,
    from: Place,
    step: isize,
    len: usize,
    chunks: usize,
    chunk: usize,
    threads: usize,
    #[comptime] op: Combine,
    #[define(In, A)] _types: [StorageType; 2],
) {
    if ABSOLUTE_POS < threads {
        let begin = (ABSOLUTE_POS % chunks) * chunk;
        let end = min(begin + chunk, len);
        let base = locate(ABSOLUTE_POS / chunks, &rows, &from);
        let mut total = A::cast_from(x[usize::cast_from(base + isize::cast_from(begin) * step)]);
        let mut i = begin + 1;
        while i < end {
            total = combine::<A>(total, A::cast_from(x[usize::cast_from(base + isize::cast_from(i) * step)]), op);
            i += 1;
        }
        totals[ABSOLUTE_POS] = total;
    }
}

/// Scans each chunk, starting from the scanned total of the chunks before it. One thread for each chunk.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn scan_kernel<In: Numeric, A: Numeric, Out: Numeric>(
    x: &Array<In>,
    totals: &Array<A>,
    out: &mut Array<Out>,
    rows: Sequence<usize>,
    from: Place,
    step: isize,
    to: Place,
    out_step: isize,
    len: usize,
    chunks: usize,
    chunk: usize,
    threads: usize,
    #[comptime] op: Combine,
    #[define(In, A, Out)] _types: [StorageType; 3],
) {
    if ABSOLUTE_POS < threads {
        let c = ABSOLUTE_POS % chunks;
        let row = ABSOLUTE_POS / chunks;
        let begin = c * chunk;
        let end = min(begin + chunk, len);
        let base = locate(row, &rows, &from);
        let target = locate(row, &rows, &to);
        let mut total = A::cast_from(x[usize::cast_from(base + isize::cast_from(begin) * step)]);
        if c > 0 {
            total = combine::<A>(totals[ABSOLUTE_POS - 1], total, op);
        }
        out[usize::cast_from(target + isize::cast_from(begin) * out_step)] = Out::cast_from(total);
        let mut i = begin + 1;
        while i < end {
            total = combine::<A>(total, A::cast_from(x[usize::cast_from(base + isize::cast_from(i) * step)]), op);
            out[usize::cast_from(target + isize::cast_from(i) * out_step)] = Out::cast_from(total);
            i += 1;
        }
    }
}
