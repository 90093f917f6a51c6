//! Comparisons, logic, and choosing by a truth value.
//!
//! `compare`: `out[i] = a[i] ∘ b[i]` as 0 or 1, by IEEE 754: every comparison with NaN is false but `≠`.
//! `select`: `out[i] = a[i]` where `condition[i]` is not 0, else `b[i]`. CPU reference: Rust's operators.

use crate::binary::Scalars;
use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the comparison that its name says
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    LogicalAnd,
    LogicalOr,
    LogicalXor,
}

/// `out[pos] = a[view_a(pos)] ∘ b[view_b(pos)]`, compared as `A`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn compare_kernel<In: Numeric, A: Numeric, Out: Numeric>(
    a: &Array<In>,
    b: &Array<In>,
    out: &mut Array<Out>,
    shape: Sequence<usize>,
    at_a: Place,
    at_b: Place,
    scalar: InputScalar,
    len: usize,
    #[comptime] op: Comparison,
    #[comptime] scalars: Scalars,
    #[define(In, A, Out)] _types: [StorageType; 3],
) {
    if ABSOLUTE_POS < len {
        let x = match comptime!(scalars) {
            Scalars::Left => scalar.get::<A>(),
            _ => A::cast_from(a[usize::cast_from(locate(ABSOLUTE_POS, &shape, &at_a))]),
        };
        let y = match comptime!(scalars) {
            Scalars::Right => scalar.get::<A>(),
            _ => A::cast_from(b[usize::cast_from(locate(ABSOLUTE_POS, &shape, &at_b))]),
        };
        // `!(a == b)` rather than `a != b`, which is an ordered comparison on some compilers.
        let x_is_zero = x == A::from_int(0);
        let y_is_zero = y == A::from_int(0);
        let holds = match comptime!(op) {
            Comparison::Eq => x == y,
            Comparison::Ne => !(x == y),
            Comparison::Lt => x < y,
            Comparison::Le => x <= y,
            Comparison::Gt => x > y,
            Comparison::Ge => x >= y,
            Comparison::LogicalAnd => !x_is_zero && !y_is_zero,
            Comparison::LogicalOr => !x_is_zero || !y_is_zero,
            Comparison::LogicalXor => (x_is_zero && !y_is_zero) || (!x_is_zero && y_is_zero),
        };
        out[ABSOLUTE_POS] = select(holds, Out::from_int(1), Out::from_int(0));
    }
}

/// `out[pos] = condition ? a : b`, each read through its own view.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn select_kernel<C: Numeric, T: Numeric>(
    condition: &Array<C>,
    a: &Array<T>,
    b: &Array<T>,
    out: &mut Array<T>,
    shape: Sequence<usize>,
    at_condition: Place,
    at_a: Place,
    at_b: Place,
    len: usize,
    #[define(C, T)] _types: [StorageType; 2],
) {
    if ABSOLUTE_POS < len {
        let c = condition[usize::cast_from(locate(ABSOLUTE_POS, &shape, &at_condition))];
        if c == C::from_int(0) {
            out[ABSOLUTE_POS] = b[usize::cast_from(locate(ABSOLUTE_POS, &shape, &at_b))];
        } else {
            out[ABSOLUTE_POS] = a[usize::cast_from(locate(ABSOLUTE_POS, &shape, &at_a))];
        }
    }
}
