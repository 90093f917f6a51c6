//! Picking elements along a dimension by indices, and its deterministic inverse.
//!
//! `gather`: `out[p] = x[p with index[p] in place of its coordinate along the dimension]`. The views of `x` and of the
//! index have step 0 in the output dimensions they do not run along, so that one kernel serves `take_along`,
//! `index_select` and `embedding`.
//!
//! `scatter`: `out[q] = base[q] ∘ src[j₁] ∘ src[j₂] ∘ …` over the `j` whose index names `q`, ascending: each output
//! element is owned by one thread, which finds its sources by bisection in the stably sorted indices (or, for few sources,
//! by looking at each). No atomics, so the bits are the same each time. CPU reference: the loop over the sources in order.
//!
//! Negative indices count from the end. One that is out of range is neither read nor written through, but noted (see
//! [`crate::fault`]).

use crate::fault::place_of;
use crate::reduce::{Combine, combine};
use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// `out[pos] = x[x_place(pos) + index[index_place(pos)] · step]`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn gather_kernel<T: Numeric, I: Numeric>(
    x: &Array<T>,
    index: &Array<I>,
    out: &mut Array<T>,
    fault: &mut Array<u32>,
    shape: Sequence<usize>,
    x_place: Place,
    index_place: Place,
    step: isize,
    limit: usize,
    site: u32,
    len: usize,
    #[define(T, I)] _types: [StorageType; 2],
) {
    if ABSOLUTE_POS < len {
        let i = index[usize::cast_from(locate(ABSOLUTE_POS, &shape, &index_place))];
        let place = place_of::<I>(i, limit, fault, site);
        let safe = select(place < limit, place, 0usize);
        out[ABSOLUTE_POS] = x[usize::cast_from(locate(ABSOLUTE_POS, &shape, &x_place) + isize::cast_from(safe) * step)];
    }
}

/// `out[pos]`: the place that `index[pos]` names, or −1 where it names none.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn resolve_index_kernel<I: Numeric>(
    index: &Array<I>,
    out: &mut Array<I>,
    fault: &mut Array<u32>,
    shape: Sequence<usize>,
    from: Place,
    limit: usize,
    site: u32,
    len: usize,
    #[define(I)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let i = index[usize::cast_from(locate(ABSOLUTE_POS, &shape, &from))];
        let place = place_of::<I>(i, limit, fault, site);
        out[ABSOLUTE_POS] = select(place < limit, I::cast_from(place), I::from_int(-1));
    }
}

/// How an element meets those scattered onto it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scatter {
    /// They are combined with it.
    Onto(Combine),
    /// The last one replaces it.
    Replace,
}

/// One thread for each element of the part of `base` that the index reaches; its coordinate along the dimension is
/// `along(pos)`. The index is resolved. `line(pos)` is where the element's line of `order` begins; `count` sources lie along
/// the dimension.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn scatter_kernel<T: Numeric, A: Numeric, I: Numeric>(
    base: &Array<T>,
    index: &Array<I>,
    order: &Array<u32>,
    src: &Array<T>,
    out: &mut Array<T>,
    shape: Sequence<usize>,
    base_place: Place,
    out_place: Place,
    along: Place,
    index_place: Place,
    line: Place,
    src_place: Place,
    index_step: isize,
    src_step: isize,
    count: usize,
    len: usize,
    #[comptime] how: Scatter,
    #[comptime] sorted: bool,
    #[define(T, A, I)] _types: [StorageType; 3],
) {
    if ABSOLUTE_POS < len {
        let me = locate(ABSOLUTE_POS, &shape, &along);
        let indices = locate(ABSOLUTE_POS, &shape, &index_place);
        let sources = locate(ABSOLUTE_POS, &shape, &src_place);
        let begin = usize::cast_from(locate(ABSOLUTE_POS, &shape, &line));
        let mut value = A::cast_from(base[usize::cast_from(locate(ABSOLUTE_POS, &shape, &base_place))]);
        let mut j = 0usize;
        if comptime!(sorted) {
            let mut hi = count;
            while j < hi {
                let mid = (j + hi) / 2;
                let i = isize::cast_from(
                    index[usize::cast_from(indices + isize::cast_from(order[begin + mid]) * index_step)],
                );
                if i < me {
                    j = mid + 1;
                } else {
                    hi = mid;
                }
            }
        }
        while j < count {
            let at = nth(order, begin, j, sorted);
            let i = isize::cast_from(index[usize::cast_from(indices + at * index_step)]);
            if i == me {
                let v = A::cast_from(src[usize::cast_from(sources + at * src_step)]);
                value = match comptime!(how) {
                    Scatter::Onto(op) => combine::<A>(value, v, op),
                    Scatter::Replace => v,
                };
            }
            if comptime!(sorted) {
                // The equal indices lie together: past them there is nothing to find.
                j = select(i == me, j + 1, count);
            } else {
                j += 1;
            }
        }
        out[usize::cast_from(locate(ABSOLUTE_POS, &shape, &out_place))] = T::cast_from(value);
    }
}

#[cube]
fn nth(order: &Array<u32>, begin: usize, j: usize, #[comptime] sorted: bool) -> isize {
    if comptime!(sorted) { isize::cast_from(order[begin + j]) } else { isize::cast_from(j) }
}
