//! Stable sorting of rows, as an order of indices: merge sort by ranks.
//!
//! A pass merges neighbouring sorted runs of `width` elements into runs of `2·width`. Each element finds its own place: its
//! position in its run plus the number of elements of the other run that come before it, found by bisection. Elements of
//! the left run come before equal ones of the right, which makes the order stable; ⌈log₂ n⌉ passes sort a row of any
//! length, without padding. NaN counts as the largest number. CPU reference: `slice::sort_by` on the indices.

use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// Whether `a` comes strictly before `b`.
#[cube]
fn before<A: Numeric>(a: A, b: A, #[comptime] descending: bool) -> bool {
    if comptime!(descending) { b < a || (!(a == a) && b == b) } else { a < b || (a == a && !(b == b)) }
}

/// One merge pass over `rows` rows of `len` indices each; in the `first` pass the runs are single elements in order.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn merge_pass_kernel<In: Numeric, A: Numeric>(
    keys: &Array<In>,
    order: &Array<u32>,
    out: &mut Array<u32>,
    rows: Sequence<usize>,
    place: Place,
    step: isize,
    len: usize,
    width: usize,
    threads: usize,
    #[comptime] first: bool,
    #[comptime] descending: bool,
    #[define(In, A)] _types: [StorageType; 2],
) {
    if ABSOLUTE_POS < threads {
        let row = ABSOLUTE_POS / len;
        let i = ABSOLUTE_POS % len;
        let line = row * len;
        let base = locate(row, &rows, &place);
        let run = i / width;
        let pair = (run - run % 2) * width;
        let middle = min(pair + width, len);
        let end = min(pair + 2 * width, len);
        let is_left = i < middle;
        let me = nth(order, line, i, first);
        let key = A::cast_from(keys[usize::cast_from(base + isize::cast_from(me) * step)]);
        // Bisect the other run for the first element that does not come before this one.
        let begin = select(is_left, middle, pair);
        let mut lo = begin;
        let mut hi = select(is_left, end, middle);
        while lo < hi {
            let mid = (lo + hi) / 2;
            let other =
                A::cast_from(keys[usize::cast_from(base + isize::cast_from(nth(order, line, mid, first)) * step)]);
            let goes_first = select(is_left, before::<A>(other, key, descending), !before::<A>(key, other, descending));
            if goes_first {
                lo = mid + 1;
            } else {
                hi = mid;
            }
        }
        let own_begin = select(is_left, pair, middle);
        out[line + pair + (i - own_begin) + (lo - begin)] = me;
    }
}

#[cube]
fn nth(order: &Array<u32>, line: usize, i: usize, #[comptime] first: bool) -> u32 {
    if comptime!(first) { u32::cast_from(i) } else { order[line + i] }
}

/// Writes the order of each row where a dense tensor of the keys' shape has it: `out[row, i] = order[row, i]`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn write_order_kernel<Out: Numeric>(
    order: &Array<u32>,
    out: &mut Array<Out>,
    rows: Sequence<usize>,
    place: Place,
    step: isize,
    len: usize,
    threads: usize,
    #[comptime] identity: bool,
    #[define(Out)] _type: StorageType,
) {
    if ABSOLUTE_POS < threads {
        let row = ABSOLUTE_POS / len;
        let i = ABSOLUTE_POS % len;
        let at = usize::cast_from(locate(row, &rows, &place) + isize::cast_from(i) * step);
        out[at] = Out::cast_from(nth(order, row * len, i, identity));
    }
}
