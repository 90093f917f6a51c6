//! Changing the element type.

use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, View};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Op, Outs, Saves, new, one};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// The same numbers in another dtype.
#[derive(Clone, Copy, Debug)]
pub struct Cast(pub DType);

impl Op for Cast {
    fn name(&self) -> &'static str {
        "to_dtype"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        Ok(one(self.0, x[0].shape))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        if !on.supports(self.0) {
            return Err(Error::unsupported(format!("{} has no tensors of {}", on.name(), self.0)));
        }
        Ok(new(on.cast(x[0], self.0)?))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        smallvec![Some(cx.grad().to_dtype(cx.meta(0).dtype))]
    }
}

impl Tensor {
    crate::fallible! {
        /// The same numbers in another dtype; itself if it has it already. Floats round to the nearest, integers take the
        /// part before the point, `bool` is x ≠ 0. ∂ = g in the old dtype. In PyTorch: `Tensor.to(dtype)`.
        pub fn to_dtype | try_to_dtype(&self, dtype: DType) -> Tensor {
            if dtype == self.dtype() { Ok(self.clone()) } else { Tensor::try_apply1(Cast(dtype), &[self]) }
        }
    }
}
