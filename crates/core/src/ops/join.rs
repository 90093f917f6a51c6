//! Joining tensors along a dimension, and going round it.

use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, View, WriteMode};
use crate::error::{Error, Result, or_raise};
use crate::layout::Layout;
use crate::op::{Meta, Metas, Op, Outs, Saves, new, one};
use crate::tensor::Tensor;

/// Tensors one after another along a dimension.
#[derive(Clone, Copy, Debug)]
pub struct Cat {
    /// The dimension.
    pub dim: usize,
}

impl Op for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let mut shape = x[0].shape;
        let mut len = 0usize;
        for m in x {
            let fits = m.dtype == x[0].dtype
                && m.shape.rank() == shape.rank()
                && m.shape.with(self.dim, 0) == shape.with(self.dim, 0);
            if !fits {
                return Err(Error::misuse(format!(
                    "all must have one dtype and, but for dimension {}, the shape of the first",
                    self.dim
                )));
            }
            len = len
                .checked_add(m.shape[self.dim])
                .ok_or_else(|| Error::misuse("the joined dimension is longer than an address can count"))?;
        }
        shape[self.dim] = len;
        Ok(one(x[0].dtype, shape))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        let len = x.iter().map(|v| v.shape()[self.dim]).sum();
        let whole = Layout::dense(x[0].shape().with(self.dim, len));
        let mut out = on.empty(whole.elements(), x[0].dtype)?;
        let mut at = 0;
        for v in x {
            let n = v.shape()[self.dim];
            on.write(&mut out, &whole.slice(self.dim, at, n, 1), *v, WriteMode::Store)?;
            at += n;
        }
        Ok(new(out))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let (g, mut at) = (cx.grad(), 0);
        (0..cx.inputs())
            .map(|i| {
                let n = cx.shape(i)[self.dim];
                at += n;
                cx.needs(i).then(|| g.narrow(self.dim as isize, at - n, n))
            })
            .collect()
    }
}

impl Tensor {
    /// Tensors one after another along `dim`; their dtypes promote. ∂: each gets its part of g. In PyTorch: `torch.cat`.
    ///
    /// Panics at the caller's line on misuse.
    #[track_caller]
    pub fn cat(tensors: &[&Tensor], dim: isize) -> Tensor {
        or_raise(Tensor::try_cat(tensors, dim))
    }

    /// As [`cat`](Self::cat), with misuse returned as an error.
    #[track_caller]
    pub fn try_cat(tensors: &[&Tensor], dim: isize) -> Result<Tensor> {
        let Some(first) = tensors.first() else {
            return Err(Error::misuse("cat: needs at least one tensor"));
        };
        let dim = first.shape().dim(dim)?;
        let dtype = tensors.iter().fold(first.dtype(), |d, t| d.promote(t.dtype()));
        let cast = tensors.iter().map(|t| t.try_to_dtype(dtype)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::try_apply(Cat { dim }, &cast.iter().collect::<Vec<_>>())?.swap_remove(0))
    }

    /// Tensors of one shape along a new dimension before `dim`. In PyTorch: `torch.stack`.
    ///
    /// Panics at the caller's line on misuse.
    #[track_caller]
    pub fn stack(tensors: &[&Tensor], dim: isize) -> Tensor {
        or_raise(Tensor::try_stack(tensors, dim))
    }

    /// As [`stack`](Self::stack), with misuse returned as an error.
    #[track_caller]
    pub fn try_stack(tensors: &[&Tensor], dim: isize) -> Result<Tensor> {
        let new = tensors.iter().map(|t| t.try_unsqueeze(dim)).collect::<Result<Vec<_>>>()?;
        Tensor::try_cat(&new.iter().collect::<Vec<_>>(), dim)
    }

    crate::fallible! {
        /// Moved `by` places along `dim`; what falls off one end comes in at the other. In PyTorch: `torch.roll`.
        pub fn roll | try_roll(&self, by: isize, dim: isize) -> Tensor {
            let d = self.shape().dim(dim)?;
            let n = self.dims()[d];
            if n == 0 {
                return Ok(self.clone());
            }
            let cut = (n as isize - by.rem_euclid(n as isize)) as usize % n;
            Tensor::try_cat(&[&self.try_narrow(dim, cut, n - cut)?, &self.try_narrow(dim, 0, cut)?], dim)
        }
    }
}
