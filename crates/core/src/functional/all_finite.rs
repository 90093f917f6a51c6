//! Whether all numbers of several tensors are finite, which the scaling of a loss asks for at each step.

use crate::composite::{Composite, first};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// Whether no element of any input is infinite or NaN: any number of tensors of one floating-point dtype → a `bool`.
///
/// Each number is looked at by itself. A sum or a norm of finite numbers may overflow, and would tell of an infinity that is in none.
#[derive(Clone, Copy, Debug)]
pub struct AllFinite;

impl Composite for AllFinite {
    fn name(&self) -> &'static str {
        "all_finite"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let fits = x.first().is_some_and(|first| first.dtype.is_float() && x.iter().all(|m| m.dtype == first.dtype));
        if !fits {
            return Err(Error::misuse("needs tensors, all of one floating-point dtype"));
        }
        Ok(one(DType::Bool, Shape::SCALAR))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let each = x.iter().map(|t| t.try_is_finite()?.try_all()).collect::<Result<Vec<_>>>()?;
        Ok(smallvec![Tensor::try_stack(&each.iter().collect::<Vec<_>>(), 0)?.try_all()?])
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
}

impl Tensor {
    /// Whether no element of any of these tensors, which have one device and floating-point dtype, is infinite or NaN: a `bool`
    /// without dimensions. In PyTorch: what `torch.amp.GradScaler` asks of gradients.
    pub fn try_all_finite(tensors: &[&Tensor]) -> Result<Tensor> {
        let detached: Vec<Tensor> = tensors.iter().map(|t| t.detach()).collect();
        first(AllFinite.name(), Tensor::try_compose(AllFinite, &detached.iter().collect::<Vec<_>>()))
    }
}
