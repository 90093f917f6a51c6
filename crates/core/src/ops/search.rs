//! Places in sorted rows, by bisection: whole tensors of queries at a time, in log₂ n steps, on any device.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

impl Tensor {
    crate::fallible! {
        /// For each query the number of elements of its sorted row that lie before it: `[.., n]` and `[.., m]` give `[.., m]`;
        /// one row `[n]` serves queries of any shape. Equal elements lie before it if `right`, else behind. `i64`; there is no
        /// gradient. NaN counts as the largest. In PyTorch: `torch.searchsorted`.
        pub fn searchsorted | try_searchsorted(&self, queries: &Tensor, right: bool) -> Tensor {
            let given = || [(self.dtype(), *self.shape()), (queries.dtype(), *queries.shape())];
            let lead = self.rank().saturating_sub(1);
            let fits = self.rank() == 1 || self.rank() == queries.rank() && self.dims()[..lead] == queries.dims()[..lead];
            if self.rank() == 0 || !fits {
                let e = Error::misuse("needs rows [.., n] and queries [.., m] with the same leading dimensions, or one row [n]");
                return Err(e.in_op("searchsorted", given()));
            }
            let dtype = self.dtype().promote(queries.dtype());
            let (row, mut q) = (self.detach().try_to_dtype(dtype)?, queries.detach().try_to_dtype(dtype)?);
            if self.rank() == 1 {
                q = q.try_reshape([q.elements()])?;
            }
            bisected(&row, &q, right)?.try_reshape(*queries.shape())
        }
        /// As [`searchsorted`](Self::searchsorted), of rows that `sorter` (as [`argsort`](Self::argsort) gives it) brings in order.
        pub fn searchsorted_by | try_searchsorted_by(&self, sorter: &Tensor, queries: &Tensor, right: bool) -> Tensor {
            if sorter.shape() != self.shape() {
                let e = Error::misuse("the order must have the shape of the rows");
                return Err(e.in_op("searchsorted", [(self.dtype(), *self.shape()), (sorter.dtype(), *sorter.shape())]));
            }
            self.detach().try_gather(-1, sorter)?.try_searchsorted(queries, right)
        }
        /// For each element its bucket: how many of the ascending `boundaries` `[n]` lie before it. In PyTorch: `torch.bucketize`.
        pub fn bucketize | try_bucketize(&self, boundaries: &Tensor, right: bool) -> Tensor {
            if boundaries.rank() != 1 {
                let e = Error::misuse("the boundaries must be a vector");
                return Err(e.in_op("bucketize", [(self.dtype(), *self.shape()), (boundaries.dtype(), *boundaries.shape())]));
            }
            boundaries.try_searchsorted(self, right)
        }
    }
}

/// The last dimension's rows bisected for the queries.
fn bisected(row: &Tensor, q: &Tensor, right: bool) -> Result<Tensor> {
    let n = row.dim(-1);
    let mut low = Tensor::try_zeros(*q.shape(), q.device().with(DType::I64))?;
    if n == 0 || q.elements() == 0 {
        return Ok(low);
    }
    let mut high = low.full_like(n as i64);
    let nan = if q.dtype().is_float() { Some(q.try_is_nan()?) } else { None };
    // Each step halves the range, and leaves one that is decided as it is.
    for _ in 0..=n.ilog2() {
        let open = low.try_lt(&high)?;
        let middle = (&low + &high).try_shift_right(&low.ones_like())?;
        let element = row.try_gather(-1, &middle.try_minimum(&low.full_like(n as i64 - 1))?)?;
        let mut before = if right { element.try_le(q)? } else { element.try_lt(q)? };
        if let Some(nan) = &nan {
            // Every number lies before NaN, and an equal NaN if `right`.
            let of_nan =
                if right { nan.clone() } else { element.try_is_nan()?.try_logical_not()?.try_logical_and(nan)? };
            before = before.try_logical_or(&of_nan)?;
        }
        low = (&middle + 1i64).try_where(&open.try_logical_and(&before)?, &low)?;
        high = middle.try_where(&open.try_logical_and(&before.try_logical_not()?)?, &high)?;
    }
    Ok(low)
}
