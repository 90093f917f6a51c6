//! Cutting a tensor apart along a dimension: one op with many outputs, so that its backward is one join of their gradients.
//! (As many slices, each would put its gradient among zeros of the whole tensor's size.)

use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, View};
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Op, Out, Outs, Saves};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// Parts of these sizes along a dimension, as views.
#[derive(Clone, Debug)]
pub struct Split {
    /// The dimension.
    pub dim: usize,
    /// The sizes, which add up to its length.
    pub sizes: Box<[usize]>,
}

impl Op for Split {
    fn name(&self) -> &'static str {
        "split"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        Ok(self.sizes.iter().map(|&n| Meta::new(x[0].dtype, x[0].shape.with(self.dim, n))).collect())
    }
    fn eval(&self, _on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        let mut at = 0;
        let part = |&n: &usize| {
            at += n;
            Out::View(0, Box::new(x[0].layout.slice(self.dim, at - n, n, 1)))
        };
        Ok(self.sizes.iter().map(part).collect())
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let parts: Vec<Tensor> = (0..self.sizes.len()).map(|i| cx.grad_or_zeros(i)).collect();
        smallvec![Some(Tensor::cat(&parts.iter().collect::<Vec<_>>(), self.dim as isize))]
    }
}

impl Tensor {
    crate::fallible! {
        /// Cut along `dim` into parts of `size`; the last may be shorter. In PyTorch: `torch.split`.
        pub fn split | try_split(&self, size: usize, dim: isize) -> Vec<Tensor> {
            let d = self.shape().dim(dim)?;
            if size == 0 {
                return Err(Error::misuse("parts of size 0 never end").in_op("split", [(self.dtype(), *self.shape())]));
            }
            let n = self.dims()[d];
            self.try_split_sizes(&(0..n.max(1)).step_by(size).map(|at| size.min(n - at)).collect::<Vec<_>>(), d as isize)
        }
        /// Cut along `dim` into parts of the given sizes, which must add up. In PyTorch: `torch.split(x, sizes)`.
        pub fn split_sizes | try_split_sizes(&self, sizes: &[usize], dim: isize) -> Vec<Tensor> {
            let d = self.shape().dim(dim)?;
            if sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) != Some(self.dims()[d]) {
                return Err(Error::misuse(format!("the sizes {sizes:?} do not add up to {}", self.dims()[d])).in_op("split", [(self.dtype(), *self.shape())]));
            }
            if sizes.is_empty() {
                return Ok(Vec::new());
            }
            let op = Split { dim: d, sizes: sizes.into() };
            Ok(Tensor::try_apply(op, &[self])?.into_vec())
        }
        /// Cut along `dim` into at most `n` parts of equal size; the last may be shorter. In PyTorch: `torch.chunk`.
        pub fn chunk | try_chunk(&self, n: usize, dim: isize) -> Vec<Tensor> {
            let d = self.shape().dim(dim)?;
            if n == 0 {
                return Err(Error::misuse("cannot cut into 0 parts").in_op("chunk", [(self.dtype(), *self.shape())]));
            }
            self.try_split(self.dims()[d].div_ceil(n).max(1), dim)
        }
        /// Every place of dimension `dim`, each without that dimension. ∂: the gradients stacked. In PyTorch: `torch.unbind`.
        pub fn unbind | try_unbind(&self, dim: isize) -> Vec<Tensor> {
            let d = self.shape().dim(dim)?;
            let n = self.dims()[d];
            if n == 0 {
                return Ok(Vec::new());
            }
            self.try_split(1, d as isize)?.iter().map(|part| part.try_squeeze(d as isize)).collect()
        }
    }
}
