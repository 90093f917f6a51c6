//! The 2-norm of several tensors as if they were one, which the clipping of gradients asks for at each step.

use crate::composite::{Composite, first};
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Tensors, one};
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// √(Σ x²) over all elements of all inputs: any number of tensors of one floating-point dtype → a number. Its gradient is 0 where
/// the norm is 0.
#[derive(Clone, Copy, Debug)]
pub struct GlobalNorm;

impl Composite for GlobalNorm {
    fn name(&self) -> &'static str {
        "global_norm"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let fits = x.first().is_some_and(|first| first.dtype.is_float() && x.iter().all(|m| m.dtype == first.dtype));
        if !fits {
            return Err(Error::misuse("needs tensors, all of one floating-point dtype"));
        }
        Ok(one(x[0].dtype, Shape::SCALAR))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let norms = x.iter().map(|t| t.try_norm(2.0, &[], false)).collect::<Result<Vec<_>>>()?;
        Ok(smallvec![Tensor::try_stack(&norms.iter().collect::<Vec<_>>(), 0)?.try_norm(2.0, &[], false)?])
    }
}

impl Tensor {
    /// √(Σ x²) over all elements of all of these tensors, which have one device and floating-point dtype. In PyTorch:
    /// `torch.nn.utils.get_total_norm`.
    pub fn try_global_norm(tensors: &[&Tensor]) -> Result<Tensor> {
        first(GlobalNorm.name(), Tensor::try_compose(GlobalNorm, tensors))
    }
}
