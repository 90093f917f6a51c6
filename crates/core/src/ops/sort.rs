//! Orders: stable sorting by index, and the largest k.

use super::index::Index;
use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, View};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::op::{Meta, Metas, Op, Out, Outs, Saves, new, one};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// The stable order that sorts a dimension. NaN counts as the largest.
#[derive(Clone, Copy, Debug)]
pub struct Argsort {
    /// The dimension.
    pub dim: usize,
    /// Whether the largest comes first.
    pub descending: bool,
}

impl Op for Argsort {
    fn name(&self) -> &'static str {
        "argsort"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        Ok(one(DType::I64, x[0].shape))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        Ok(new(on.argsort(x[0], self.dim, self.descending)?))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        cx.no_gradient("it gives places, not values")
    }
}

/// The `k` largest (or smallest) of a dimension, in order, and their places: two outputs.
#[derive(Clone, Copy, Debug)]
pub struct TopK {
    /// How many.
    pub k: usize,
    /// The dimension.
    pub dim: usize,
    /// The largest (else the smallest).
    pub largest: bool,
}

impl Op for TopK {
    fn name(&self) -> &'static str {
        "topk"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let Meta { dtype, shape } = x[0];
        if self.k > shape[self.dim] {
            return Err(Error::misuse(format!(
                "k = {} is more than the {} elements of dimension {}",
                self.k, shape[self.dim], self.dim
            )));
        }
        let shape = shape.with(self.dim, self.k);
        Ok(smallvec![Meta::new(dtype, shape), Meta::new(DType::I64, shape)])
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        let order = on.argsort(x[0], self.dim, self.largest)?;
        let layout = Layout::dense(*x[0].shape()).slice(self.dim, 0, self.k, 1);
        let index = View { buffer: &order, layout: &layout, dtype: DType::I64 };
        let values = on.gather(x[0], index, Index::Along(self.dim))?;
        let places = on.copy(index)?;
        Ok(smallvec![Out::New(values), Out::New(places)])
    }
    fn saves(&self) -> Saves {
        Saves::OUTPUT
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let places = cx.y_of(1);
        let zeros = Tensor::zeros(cx.shape(0), cx.device().with(cx.meta(0).dtype));
        smallvec![cx.grad_of(0).map(|g| zeros.scatter_add(self.dim as isize, &places, &g))]
    }
}

impl Tensor {
    crate::fallible! {
        /// The stable order that sorts dimension `dim`; `i64`. NaN counts as the largest. In PyTorch: `torch.argsort(stable=True)`.
        pub fn argsort | try_argsort(&self, dim: isize, descending: bool) -> Tensor {
            let dim = self.shape().dim(dim)?;
            Tensor::try_apply1(Argsort { dim, descending }, &[self])
        }
        /// Dimension `dim` sorted, and the places its elements came from. ∂: g back to those places. In PyTorch: `torch.sort`.
        pub fn sort | try_sort(&self, dim: isize, descending: bool) -> (Tensor, Tensor) {
            let order = self.try_argsort(dim, descending)?;
            Ok((self.try_gather(dim, &order)?, order))
        }
        /// The `k` largest (or smallest) of dimension `dim` in order, and their places. ∂: g back to those places.
        /// In PyTorch: `torch.topk`.
        pub fn topk | try_topk(&self, k: usize, dim: isize, largest: bool) -> (Tensor, Tensor) {
            let dim = self.shape().dim(dim)?;
            let mut out = Tensor::try_apply(TopK { k, dim, largest }, &[self])?;
            match (out.pop(), out.pop()) {
                (Some(places), Some(values)) => Ok((values, places)),
                _ => Err(Error::misuse("topk gave fewer than two outputs")),
            }
        }
        /// The largest along `dim` and its place, the first of equals. ∂: g to that place alone. In PyTorch: `torch.max(x, dim)`.
        pub fn max_dim | try_max_dim(&self, dim: isize, keep: bool) -> (Tensor, Tensor) {
            let at = self.try_argmax(dim, true)?;
            picked(self, at, dim, keep)
        }
        /// The smallest along `dim` and its place, the first of equals. ∂: g to that place alone. In PyTorch: `torch.min(x, dim)`.
        pub fn min_dim | try_min_dim(&self, dim: isize, keep: bool) -> (Tensor, Tensor) {
            let at = self.try_argmin(dim, true)?;
            picked(self, at, dim, keep)
        }
        /// The median along `dim`, the lower of two, and its place; a NaN if there is one. ∂: g to that place. In PyTorch: `torch.median(x, dim)`.
        pub fn median | try_median(&self, dim: isize, keep: bool) -> (Tensor, Tensor) {
            let n = self.shape()[self.shape().dim(dim)?];
            if n == 0 {
                return Err(Error::misuse("there is no median of no elements").in_op("median", [(self.dtype(), *self.shape())]));
            }
            let mut at = self.try_argsort(dim, false)?.try_narrow(dim, (n - 1) / 2, 1)?;
            if self.dtype().is_float() {
                let nan = self.detach().try_is_nan()?;
                let first = nan.try_to_dtype(DType::U8)?.try_argmax(dim, true)?;
                at = first.try_where(&nan.try_any_dims(&[dim], true)?, &at)?;
            }
            picked(self, at, dim, keep)
        }
    }
}

#[track_caller]
fn picked(x: &Tensor, at: Tensor, dim: isize, keep: bool) -> Result<(Tensor, Tensor)> {
    let values = x.try_gather(dim, &at)?;
    if keep { Ok((values, at)) } else { Ok((values.try_squeeze(dim)?, at.try_squeeze(dim)?)) }
}
