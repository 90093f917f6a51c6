//! The 2-norm of several tensors as if they were one, which the clipping of gradients asks for at each step.

use crate::composite::{Composite, first};
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Tensors, one};
use crate::ops::BinaryOp;
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// √(Σ (x·factor)²) over all elements of all inputs: any number of tensors of one floating-point dtype → a number. Its gradient is 0
/// where the norm is 0.
///
/// The factor is there for gradients that still have a loss's scale: their squares may overflow where those of the gradients do not.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GlobalNorm {
    /// What every element is multiplied with; 1 changes no bit.
    pub factor: f64,
}

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
        let norm = |t: &&Tensor| match self.factor {
            1.0 => t.try_norm(2.0, &[], false),
            factor => t.try_binary_scalar(BinaryOp::Mul, factor)?.try_norm(2.0, &[], false),
        };
        let norms = x.iter().map(norm).collect::<Result<Vec<_>>>()?;
        Ok(smallvec![Tensor::try_stack(&norms.iter().collect::<Vec<_>>(), 0)?.try_norm(2.0, &[], false)?])
    }
}

impl Tensor {
    /// √(Σ x²) over all elements of all of these tensors, which have one device and floating-point dtype. In PyTorch:
    /// `torch.nn.utils.get_total_norm`.
    pub fn try_global_norm(tensors: &[&Tensor]) -> Result<Tensor> {
        Tensor::try_scaled_global_norm(tensors, 1.0)
    }

    /// As [`try_global_norm`](Self::try_global_norm), of every element times a factor.
    pub fn try_scaled_global_norm(tensors: &[&Tensor], factor: f64) -> Result<Tensor> {
        let op = GlobalNorm { factor };
        first(op.name(), Tensor::try_compose(op, tensors))
    }
}
