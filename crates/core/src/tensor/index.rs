//! Slicing with Rust's ranges: `x.slice((1..3, .., s(-1)))`, or `x.i((0, .., 2))` for single places.
//!
//! A tuple names the leading dimensions in order; the rest is taken whole. An integer picks one place and drops the dimension,
//! negative numbers count from the end, and [`SliceSpec::by`] steps (backwards too).

use super::Tensor;
use crate::error::Error;
use crate::fallible;
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// What to take of one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceSpec {
    /// One place; the dimension is dropped.
    At(isize),
    /// From a place up to, not including, another, in steps. `None` is the end that the step comes from or goes to.
    Range {
        /// The first place.
        start: Option<isize>,
        /// The place before which it ends.
        end: Option<isize>,
        /// The distance between places; negative goes backwards.
        step: isize,
    },
    /// A new dimension of length 1 before this one.
    New,
}

impl SliceSpec {
    /// Everything.
    pub const ALL: SliceSpec = SliceSpec::Range { start: None, end: None, step: 1 };
    /// The same range in steps of `step`; a single place stays as it is.
    ///
    /// ```
    /// use gradus::prelude::*;
    /// let x = Tensor::arange(0, 6, 1, Device::cpu());
    /// assert_eq!(x.i(SliceSpec::from(..).by(-2)).to_vec::<f32>().unwrap(), [5.0, 3.0, 1.0]);
    /// ```
    pub fn by(self, step: isize) -> SliceSpec {
        match self {
            SliceSpec::Range { start, end, .. } => SliceSpec::Range { start, end, step },
            other => other,
        }
    }
}

macro_rules! spec_from_int {
    ($($t:ty)*) => {$(
        impl From<$t> for SliceSpec { fn from(i: $t) -> SliceSpec { SliceSpec::At(i as isize) } }
        impl From<Range<$t>> for SliceSpec {
            fn from(r: Range<$t>) -> SliceSpec { range(Bound::Included(r.start as isize), Bound::Excluded(r.end as isize)) }
        }
        impl From<RangeInclusive<$t>> for SliceSpec {
            fn from(r: RangeInclusive<$t>) -> SliceSpec { range(Bound::Included(*r.start() as isize), Bound::Included(*r.end() as isize)) }
        }
        impl From<RangeFrom<$t>> for SliceSpec {
            fn from(r: RangeFrom<$t>) -> SliceSpec { range(Bound::Included(r.start as isize), Bound::Unbounded) }
        }
        impl From<RangeTo<$t>> for SliceSpec {
            fn from(r: RangeTo<$t>) -> SliceSpec { range(Bound::Unbounded, Bound::Excluded(r.end as isize)) }
        }
        impl From<RangeToInclusive<$t>> for SliceSpec {
            fn from(r: RangeToInclusive<$t>) -> SliceSpec { range(Bound::Unbounded, Bound::Included(r.end as isize)) }
        }
    )*};
}
spec_from_int!(isize usize i32 i64);

impl From<RangeFull> for SliceSpec {
    fn from(_: RangeFull) -> SliceSpec {
        SliceSpec::ALL
    }
}

fn range(start: Bound<isize>, end: Bound<isize>) -> SliceSpec {
    let start = match start {
        Bound::Included(i) => Some(i),
        Bound::Excluded(i) => Some(i + 1),
        Bound::Unbounded => None,
    };
    let end = match end {
        Bound::Included(-1) | Bound::Unbounded => None, // up to and with the last one
        Bound::Included(i) => Some(i + 1),
        Bound::Excluded(i) => Some(i),
    };
    SliceSpec::Range { start, end, step: 1 }
}

/// What can be given to [`Tensor::i`]: one spec, or a tuple, array or slice of them for the leading dimensions.
pub trait IntoSlice {
    /// The specs, outermost dimension first.
    fn into_slice(self) -> Vec<SliceSpec>;
}
impl<T: Into<SliceSpec>> IntoSlice for T {
    fn into_slice(self) -> Vec<SliceSpec> {
        vec![self.into()]
    }
}
impl IntoSlice for &[SliceSpec] {
    fn into_slice(self) -> Vec<SliceSpec> {
        self.to_vec()
    }
}
impl<const N: usize> IntoSlice for [SliceSpec; N] {
    fn into_slice(self) -> Vec<SliceSpec> {
        self.to_vec()
    }
}
macro_rules! into_slice_tuple {
    ($($($t:ident)*;)*) => {$(
        impl<$($t: Into<SliceSpec>),*> IntoSlice for ($($t,)*) {
            #[allow(non_snake_case)]
            fn into_slice(self) -> Vec<SliceSpec> { let ($($t,)*) = self; vec![$($t.into()),*] }
        }
    )*};
}
into_slice_tuple! { A; A B; A B C; A B C D; A B C D E; A B C D E F; }

impl Tensor {
    fallible! {
        /// A view of some places: `x.i((0, 1..3, ..))`. A tuple names the leading dimensions in
        /// order; an integer picks one place and drops the dimension, negative numbers count from the end ([`SliceSpec`]).
        ///
        /// ```
        /// use gradus::prelude::*;
        /// let x = Tensor::arange(0, 12, 1, Device::cpu()).reshape([3, 4]);
        /// assert_eq!(x.i((1, 1..3)).to_vec::<f32>().unwrap(), [5.0, 6.0]);
        /// assert_eq!(x.i((.., -1)).to_vec::<f32>().unwrap(), [3.0, 7.0, 11.0]);
        /// ```
        pub fn i | try_i<I: IntoSlice>(&self, at: I) -> Tensor {
            let (mut out, mut dim) = (self.clone(), 0isize);
            let specs = at.into_slice();
            for spec in &specs {
                if !matches!(spec, SliceSpec::New) && dim as usize >= out.rank() {
                    return Err(Error::misuse(format!(
                        "{} places are named, but the tensor of shape {} has {} dimensions", specs.len(), self.shape(), self.rank()
                    )).in_op("index", [(self.dtype(), *self.shape())]));
                }
                match *spec {
                    SliceSpec::New => {
                        out = out.try_unsqueeze(dim)?;
                        dim += 1;
                    }
                    SliceSpec::At(i) => out = out.try_select(dim, i)?,
                    SliceSpec::Range { start: None, end: None, step: 1 } => dim += 1,
                    SliceSpec::Range { start, end, step } => {
                        out = out.try_slice(dim, start, end, step)?;
                        dim += 1;
                    }
                }
            }
            Ok(out)
        }
    }
}
