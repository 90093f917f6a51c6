//! The primitives, a file a family. Each is evaluated by a family of the [`Backend`](crate::Backend) trait, and its gradient
//! is written in tensors.

mod advanced_index;
mod binary;
mod cast;
mod compare;
mod data_dependent;
mod index;
mod join;
mod matmul;
mod pad;
mod reduce;
mod scan;
mod scatter_reduce;
mod search;
mod sort;
mod split;
mod unary;
mod view;

pub(crate) use binary::broadcast;
pub use binary::{Binary, BinaryOp, BinaryScalar};
pub use cast::Cast;
pub use compare::{Compare, CompareOp, CompareScalar, Where};
pub use index::{Gather, Index, Scatter, ScatterOp};
pub use join::Cat;
pub use matmul::Matmul;
pub use pad::{Pad, PadMode};
pub use reduce::{ArgReduce, ArgReduceOp, Reduce, ReduceOp};
pub use scan::{Scan, ScanOp};
pub use scatter_reduce::ScatterReduceOp;
pub use sort::{Argsort, TopK};
pub use split::Split;
pub use unary::{Unary, UnaryGrad, UnaryKind, UnaryOp};
pub use view::{Put, Reshape, ViewOp, ViewSpec};

/// The tables' rows, for the catalog.
pub(crate) mod rows {
    pub(crate) use super::binary::rows as binary;
    pub(crate) use super::compare::rows as compare;
    pub(crate) use super::reduce::rows as reduce;
    pub(crate) use super::unary::rows as unary;
}
