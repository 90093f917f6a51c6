//! A part of the way from one tensor to another: the averages of optimizers, above all.

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result, or_raise};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::ops::BinaryOp;
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// x + (end − x)·part. Inputs: x and end, alike, floating-point. ∂x = g − g·part, ∂end = g·part.
#[derive(Clone, Debug)]
pub struct Lerp {
    /// The part of the way: a cell's number is read anew at each replay.
    pub part: Scalar,
}

impl Composite for Lerp {
    fn name(&self) -> &'static str {
        "lerp"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        match *x {
            [x, end] if x == end && x.dtype.is_float() => Ok(one(x.dtype, x.shape)),
            _ => Err(Error::misuse("needs two tensors of one floating-point dtype and one shape")),
        }
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let way = x[1].try_sub(x[0])?;
        Ok(smallvec![x[0].try_add(&way.try_binary_scalar(BinaryOp::Mul, self.part.clone())?)?])
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let g = cx.grad();
        let of_end = or_raise(g.try_binary_scalar(BinaryOp::Mul, self.part.clone()));
        let of_x = cx.needs(0).then(|| or_raise(g.try_sub(&of_end)));
        Some([of_x, cx.needs(1).then_some(of_end)].into_iter().collect())
    }
}

impl Tensor {
    crate::fallible! {
        /// self + t·(end − self). In PyTorch: `torch.lerp`.
        pub fn lerp | try_lerp<S: Into<Scalar>>(&self, end: &Tensor, t: S) -> Tensor {
            if self.meta() == end.meta() && self.dtype().is_float() {
                return Tensor::try_compose1(Lerp { part: t.into() }, &[self, end]);
            }
            self.try_add(&end.try_sub(self)?.try_binary_scalar(BinaryOp::Mul, t)?)
        }
    }
}
