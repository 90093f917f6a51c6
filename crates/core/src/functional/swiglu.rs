//! The gate of Llama's feed-forward blocks (Shazeer, "GLU variants improve transformer", 2020).

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Tensors, one};
use crate::ops::{UnaryGrad, UnaryOp};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// silu(gate)·up, with silu(x) = x/(1 + e^−x). Inputs: gate and up, alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwiGlu;

/// The gradients of [`SwiGlu`] with respect to gate and up. Inputs: g, gate and up, alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwiGluGrad;

fn check(x: &[Meta]) -> Result<()> {
    if !x[0].dtype.is_float() || x.iter().any(|m| *m != x[0]) {
        let (a, b) = (x[x.len() - 2], x[x.len() - 1]);
        return Err(Error::misuse(format!(
            "a gate and what it lets through must be alike, floating-point, not {} {} and {} {}",
            a.dtype, a.shape, b.dtype, b.shape
        )));
    }
    Ok(())
}

impl Composite for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check(x)?;
        Ok(one(x[0].dtype, x[0].shape))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        Ok(smallvec![x[0].try_silu()?.try_mul(x[1])?])
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let grads = Tensor::compose(SwiGluGrad, &[&cx.grad(), &cx.x(0), &cx.x(1)]);
        Some(grads.into_iter().map(Some).collect())
    }
}

impl Composite for SwiGluGrad {
    fn name(&self) -> &'static str {
        "swiglu_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check(x)?;
        Ok(smallvec![x[1], x[2]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (g, gate, up) = (x[0], x[1], x[2]);
        let of_gate = Tensor::try_compose1(UnaryGrad(UnaryOp::Silu), &[&g.try_mul(up)?, gate])?;
        Ok(smallvec![of_gate, g.try_mul(&gate.try_silu()?)?])
    }
}

impl Tensor {
    crate::fallible! {
        /// silu(self)·up: self is a gate, and up what it lets through, alike. ∂ by the fused backward. In PyTorch:
        /// `torch.nn.functional.silu(gate) * up`.
        pub fn swiglu | try_swiglu(&self, up: &Tensor) -> Tensor {
            Tensor::try_compose1(SwiGlu, &[self, up])
        }
    }
}
