//! Reductions over any set of dimensions, and the place of an extreme along one.
//!
//! `out[o] = x[o, 0] ∘ x[o, 1] ∘ …`, where `o` runs over the kept dimensions and the second index over the reduced ones in
//! row-major order. The order of the combinations depends on the shape alone, never on timing, so the bits are the same
//! each time. A short reduction is one thread's loop; a long one is a cube's, thread `t` of 256 taking elements
//! `t, t + 256, …` and the threads meeting in a tree. Sums of floats carry what each addition rounds away (Knuth's two-sum,
//! TAOCP vol. 2, 4.2.2), and add it in the end: they are about as good as sums in twice the precision, which devices lack.
//!
//! CPU reference: `fold` over the reduced elements; NaN wins every maximum and minimum.

use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// Threads of a cube that reduces together.
pub const CUBE: u32 = 256;

/// What combines two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Combine {
    /// `a + b`, from 0.
    Sum,
    /// `a · b`, from 1.
    Prod,
    /// The larger; NaN if either is.
    Max,
    /// The smaller; NaN if either is.
    Min,
}

/// `a ∘ b`.
#[cube]
pub fn combine<A: Numeric>(a: A, b: A, #[comptime] op: Combine) -> A {
    match comptime!(op) {
        Combine::Sum => a + b,
        Combine::Prod => a * b,
        // `!(b == b)` is true for NaN alone; it is written so because a plain `!=` is an ordered comparison on some
        // compilers, false for NaN.
        Combine::Max => select(b > a || !(b == b), b, a),
        Combine::Min => select(b < a || !(b == b), b, a),
    }
}

/// Where a chain of combinations starts: the neutral element, or `first` where there is none.
#[cube]
pub fn start<A: Numeric>(first: A, #[comptime] op: Combine) -> A {
    match comptime!(op) {
        Combine::Sum => A::from_int(0),
        Combine::Prod => A::from_int(1),
        Combine::Max => first,
        Combine::Min => first,
    }
}

/// What `before + v`, which gave `after`, rounded away, if it is `exact`; else 0.
///
/// `one` is 1 as a number that only the launch knows: compilers of shaders take (a + b) − a for b, unless something stands
/// between.
#[cube]
fn rounded_away<A: Numeric>(before: A, v: A, after: A, one: A, #[comptime] exact: bool) -> A {
    if comptime!(exact) {
        let sum = after * one;
        let shown = (sum - before) * one;
        (before - (sum - shown) * one) + (v - shown)
    } else {
        A::from_int(0)
    }
}

/// The total with what was rounded away. Beyond the largest number nothing is left to add.
#[cube]
fn corrected<A: Numeric>(total: A, lost: A, #[comptime] exact: bool) -> A {
    if comptime!(exact) { select(lost == lost, total + lost, total) } else { total }
}

/// What becomes of each element before, and of the result after, the combinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shade {
    /// Nothing.
    Plain,
    /// Elements count as 0 or 1, as they are zero or not (`any` by the maximum, `all` by the minimum).
    Truth,
    /// The result is divided by the number of elements.
    Mean,
}

/// The element as it is combined.
#[cube]
fn shaded<In: Numeric, A: Numeric>(v: In, #[comptime] shade: Shade) -> A {
    match comptime!(shade) {
        Shade::Truth => select(v == In::from_int(0), A::from_int(0), A::from_int(1)),
        _ => A::cast_from(v),
    }
}

/// The result as it is written.
#[cube]
fn finished<A: Numeric, Out: Numeric>(total: A, divisor: A, #[comptime] shade: Shade) -> Out {
    match comptime!(shade) {
        Shade::Mean => Out::cast_from(total / divisor),
        _ => Out::cast_from(total),
    }
}

/// One thread for each output element; `count` ≥ 1 elements each.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn reduce_unit_kernel<In: Numeric, A: Numeric, Out: Numeric>(
    x: &Array<In>,
    out: &mut Array<Out>,
    kept: Sequence<usize>,
    kept_place: Place,
    reduced: Sequence<usize>,
    reduced_place: Place,
    outputs: usize,
    count: usize,
    divisor: InputScalar,
    one: InputScalar,
    #[comptime] op: Combine,
    #[comptime] shade: Shade,
    #[comptime] exact: bool,
    #[define(In, A, Out)] _types: [StorageType; 3],
) {
    if ABSOLUTE_POS < outputs {
        let base = locate(ABSOLUTE_POS, &kept, &kept_place);
        let first = shaded::<In, A>(x[usize::cast_from(base + locate(0, &reduced, &reduced_place))], shade);
        let mut total = start::<A>(first, op);
        let mut lost = A::from_int(0);
        let one = one.get::<A>();
        let mut r = 0usize;
        while r < count {
            let v = shaded::<In, A>(x[usize::cast_from(base + locate(r, &reduced, &reduced_place))], shade);
            let after = combine::<A>(total, v, op);
            lost += rounded_away::<A>(total, v, after, one, exact);
            total = after;
            r += 1;
        }
        out[ABSOLUTE_POS] = finished::<A, Out>(corrected::<A>(total, lost, exact), divisor.get::<A>(), shade);
    }
}

/// One cube for each chunk of each output element's reduction: `out[o · chunks + c]` is the part of chunk `c`; if there are
/// several and they are `exact`, two numbers stand there for one, the total and what it lost.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn reduce_cube_kernel<In: Numeric, A: Numeric, Out: Numeric>(
    x: &Array<In>,
    out: &mut Array<Out>,
    kept: Sequence<usize>,
    kept_place: Place,
    reduced: Sequence<usize>,
    reduced_place: Place,
    outputs: usize,
    count: usize,
    chunks: usize,
    chunk: usize,
    divisor: InputScalar,
    one: InputScalar,
    #[comptime] op: Combine,
    #[comptime] shade: Shade,
    #[comptime] exact: bool,
    #[define(In, A, Out)] _types: [StorageType; 3],
) {
    let mut shared = SharedMemory::<A>::new(256usize);
    let mut lost = SharedMemory::<A>::new(256usize);
    let o = CUBE_POS / chunks;
    let me = UNIT_POS as usize;
    // Whole cubes are in or out, so the barriers below are met by all threads of a cube or by none.
    if o < outputs {
        let begin = (CUBE_POS % chunks) * chunk;
        let end = min(begin + chunk, count);
        let base = locate(o, &kept, &kept_place);
        let first = shaded::<In, A>(x[usize::cast_from(base + locate(begin, &reduced, &reduced_place))], shade);
        let mut total = start::<A>(first, op);
        let mut rest = A::from_int(0);
        let one = one.get::<A>();
        let mut r = begin + me;
        while r < end {
            let v = shaded::<In, A>(x[usize::cast_from(base + locate(r, &reduced, &reduced_place))], shade);
            let after = combine::<A>(total, v, op);
            rest += rounded_away::<A>(total, v, after, one, exact);
            total = after;
            r += 256;
        }
        shared[me] = total;
        lost[me] = rest;
        sync_cube();
        #[unroll]
        for i in 0..8u32 {
            let half = comptime!(128usize >> i);
            if me < half {
                let (mine, other) = (shared[me], shared[me + half]);
                let after = combine::<A>(mine, other, op);
                lost[me] = lost[me] + lost[me + half] + rounded_away::<A>(mine, other, after, one, exact);
                shared[me] = after;
            }
            sync_cube();
        }
        if me == 0 {
            if comptime!(exact) {
                if chunks > 1 {
                    out[2 * CUBE_POS] = Out::cast_from(shared[0]);
                    out[2 * CUBE_POS + 1] = Out::cast_from(select(lost[0] == lost[0], lost[0], A::from_int(0)));
                } else {
                    let sum = corrected::<A>(shared[0], lost[0], exact);
                    out[CUBE_POS] = finished::<A, Out>(sum, divisor.get::<A>(), shade);
                }
            } else {
                out[CUBE_POS] = finished::<A, Out>(shared[0], divisor.get::<A>(), shade);
            }
        }
    }
}

/// `out[o] = ` the first index along the dimension whose element no other beats; NaN beats every number.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn arg_unit_kernel<In: Numeric, A: Numeric, Out: Numeric>(
    x: &Array<In>,
    out: &mut Array<Out>,
    kept: Sequence<usize>,
    kept_place: Place,
    step: isize,
    outputs: usize,
    count: usize,
    #[comptime] largest: bool,
    #[define(In, A, Out)] _types: [StorageType; 3],
) {
    if ABSOLUTE_POS < outputs {
        let mut at = locate(ABSOLUTE_POS, &kept, &kept_place);
        let mut best = A::cast_from(x[usize::cast_from(at)]);
        let mut place = 0usize;
        let mut r = 1usize;
        while r < count {
            at += step;
            let v = A::cast_from(x[usize::cast_from(at)]);
            if beats::<A>(v, best, largest) {
                best = v;
                place = r;
            }
            r += 1;
        }
        out[ABSOLUTE_POS] = Out::cast_from(place);
    }
}

/// As [`arg_unit_kernel()`], one cube for each output element.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn arg_cube_kernel<In: Numeric, A: Numeric, Out: Numeric>(
    x: &Array<In>,
    out: &mut Array<Out>,
    kept: Sequence<usize>,
    kept_place: Place,
    step: isize,
    outputs: usize,
    count: usize,
    #[comptime] largest: bool,
    #[define(In, A, Out)] _types: [StorageType; 3],
) {
    let mut values = SharedMemory::<A>::new(256usize);
    let mut places = SharedMemory::<u32>::new(256usize);
    let me = UNIT_POS as usize;
    if CUBE_POS < outputs {
        let base = locate(CUBE_POS, &kept, &kept_place);
        // A thread without elements of its own starts, like the others, from element 0: the winner is not changed by it.
        let mut best = A::cast_from(x[usize::cast_from(base)]);
        let mut place = 0usize;
        let mut r = me;
        while r < count {
            let v = A::cast_from(x[usize::cast_from(base + isize::cast_from(r) * step)]);
            if beats::<A>(v, best, largest) {
                best = v;
                place = r;
            }
            r += 256;
        }
        values[me] = best;
        places[me] = u32::cast_from(place);
        sync_cube();
        #[unroll]
        for i in 0..8u32 {
            let half = comptime!(128usize >> i);
            if me < half {
                let v = values[me + half];
                let p = places[me + half];
                let mine = values[me];
                let wins = beats::<A>(v, mine, largest);
                let ties = !wins && !beats::<A>(mine, v, largest) && p < places[me];
                if wins || ties {
                    values[me] = v;
                    places[me] = p;
                }
            }
            sync_cube();
        }
        if me == 0 {
            out[CUBE_POS] = Out::cast_from(places[0]);
        }
    }
}

/// Whether `a` is the better extreme, strictly: larger (or smaller), or NaN against a number.
#[cube]
fn beats<A: Numeric>(a: A, b: A, #[comptime] largest: bool) -> bool {
    let nan_wins = !(a == a) && b == b;
    if comptime!(largest) { a > b || nan_wins } else { a < b || nan_wins }
}
