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
        /// The `k`-th smallest along `dim` (counted from 1) and its place; NaN counts as the largest. ∂: g to that place. In PyTorch:
        /// `torch.kthvalue`.
        pub fn kthvalue | try_kthvalue(&self, k: usize, dim: isize, keep: bool) -> (Tensor, Tensor) {
            let n = self.shape()[self.shape().dim(dim)?];
            if k == 0 || k > n {
                return Err(Error::misuse(format!("k = {k} is none of the {n} elements of dimension {dim}, counted from 1"))
                    .in_op("kthvalue", [(self.dtype(), *self.shape())]));
            }
            let at = self.try_argsort(dim, false)?.try_narrow(dim, k - 1, 1)?;
            picked(self, at, dim, keep)
        }
        /// The most frequent along `dim`, the smallest of equally frequent ones, and the last place that it has. ∂: g to that place.
        /// In PyTorch: `torch.mode`.
        pub fn mode | try_mode(&self, dim: isize, keep: bool) -> (Tensor, Tensor) {
            let d = self.shape().dim(dim)?;
            if self.dims()[d] == 0 {
                return Err(Error::misuse("there is no most frequent of no elements").in_op("mode", [(self.dtype(), *self.shape())]));
            }
            let x = self.detach().try_movedim(dim, -1)?.try_contiguous()?;
            let order = x.try_argsort(-1, false)?;
            let sorted = x.try_gather(-1, &order)?;
            let after = sorted.try_searchsorted(&sorted, true)?;
            let longest = after.try_sub(&sorted.try_searchsorted(&sorted, false)?)?.try_argmax(-1, true)?;
            // Sorting is stable: the last of a run of equals comes from the last place.
            let last = after.try_gather(-1, &longest)? - 1i64;
            let at = order.try_gather(-1, &last)?.try_movedim(-1, dim)?;
            picked(self, at, dim, keep)
        }
        /// The `q`-quantiles (0 to 1) along `dim`, linearly between the two nearest elements; NaN where there is one. One for each `q`,
        /// along a new first dimension. ∂: to the two. In PyTorch: `torch.quantile`.
        pub fn quantile | try_quantile(&self, q: &[f64], dim: isize, keep: bool) -> Tensor {
            let n = self.shape()[self.shape().dim(dim)?];
            let named = |m: String| Error::misuse(m).in_op("quantile", [(self.dtype(), *self.shape())]);
            if n == 0 || !self.dtype().is_float() || q.is_empty() {
                return Err(named("needs floating-point elements, and at least one quantile".into()));
            }
            if let Some(bad) = q.iter().find(|q| !(0.0..=1.0).contains(*q)) {
                return Err(named(format!("a quantile lies between 0 and 1; got {bad}")));
            }
            let (sorted, _) = self.try_sort(dim, false)?;
            let nan = self.detach().try_is_nan()?.try_any_dims(&[dim], true)?;
            let one = |q: &f64| {
                let at = q * (n - 1) as f64;
                let low = at.floor() as usize;
                let (a, b) = (sorted.try_narrow(dim, low, 1)?, sorted.try_narrow(dim, (low + 1).min(n - 1), 1)?);
                let y = a.try_lerp(&b, at - low as f64)?.try_masked_fill(&nan, f64::NAN)?;
                if keep { Ok(y) } else { y.try_squeeze(dim) }
            };
            let all = q.iter().map(one).collect::<Result<Vec<_>>>()?;
            Tensor::try_stack(&all.iter().collect::<Vec<_>>(), 0)
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
