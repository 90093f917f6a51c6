//! Strided copy, cast, fill, and writing into a view.
//!
//! `copy`: `out[i] = Out(x[i])`, a strided view into a dense buffer. `store`: `y[i] = x[i]` or `y[i] += x[i]`, a strided
//! view into a strided view. `fill`: `out[i] = value`.
//!
//! CPU reference: Rust's `as`. A float becomes an integer by truncation, out-of-range values saturate and NaN gives 0; an
//! integer becomes a narrower one by wrapping; anything becomes a truth value by `x != 0`.

use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// How a value changes its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Convert {
    /// Both types hold the value, or the conversion wraps or rounds as the hardware does.
    Plain,
    /// A float to an integer: truncated and saturated, with 0 for NaN.
    FloatToInt,
    /// Anything to 0 or 1: `x != 0`.
    ToBool,
}

/// `out[pos] = Out(x[view(pos)])`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn copy_kernel<In: Numeric, Out: Numeric>(
    x: &Array<In>,
    out: &mut Array<Out>,
    shape: Sequence<usize>,
    place: Place,
    len: usize,
    lowest: InputScalar,
    highest: InputScalar,
    #[comptime] how: Convert,
    #[define(In, Out)] _types: [StorageType; 2],
) {
    if ABSOLUTE_POS < len {
        let v = x[usize::cast_from(locate(ABSOLUTE_POS, &shape, &place))];
        out[ABSOLUTE_POS] = match comptime!(how) {
            Convert::Plain => Out::cast_from(v),
            Convert::ToBool => Out::cast_from(!(v == In::from_int(0))),
            Convert::FloatToInt => {
                // `lowest` and `highest` are the integer type's bounds as floats: `highest` is one past the largest
                // value where the float cannot hold that, so both comparisons include equality.
                let inside = select(v == v, v, In::from_int(0));
                let lo = lowest.get::<In>();
                let hi = highest.get::<In>();
                let safe = select(inside >= hi || inside <= lo, In::from_int(0), inside);
                let low = select(inside <= lo, Out::min_value(), Out::cast_from(safe));
                select(inside >= hi, Out::max_value(), low)
            }
        };
    }
}

/// `y[to(pos)] = x[from(pos)]`, or `+=` when `add` is set.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn store_kernel<T: Numeric, F: Numeric>(
    x: &Array<T>,
    y: &mut Array<T>,
    shape: Sequence<usize>,
    from: Place,
    to: Place,
    len: usize,
    #[comptime] add: bool,
    #[define(T, F)] _types: [StorageType; 2],
) {
    if ABSOLUTE_POS < len {
        let v = x[usize::cast_from(locate(ABSOLUTE_POS, &shape, &from))];
        let at = usize::cast_from(locate(ABSOLUTE_POS, &shape, &to));
        if comptime!(add) {
            y[at] = T::cast_from(F::cast_from(y[at]) + F::cast_from(v));
        } else {
            y[at] = v;
        }
    }
}

/// `out[pos] = value`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn fill_kernel<T: Numeric>(out: &mut Array<T>, value: InputScalar, len: usize, #[define(T)] _type: StorageType) {
    if ABSOLUTE_POS < len {
        out[ABSOLUTE_POS] = value.get::<T>();
    }
}
