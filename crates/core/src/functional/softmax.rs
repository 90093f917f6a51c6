//! Softmax and its logarithm, without overflow.

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;

fn float(x: &Meta) -> Result<Metas> {
    if !x.dtype.is_float() {
        return Err(Error::misuse(format!("needs a floating-point tensor, not {}", x.dtype)));
    }
    Ok(one(x.dtype, x.shape))
}

/// The checks of a gradient's inputs: as many, and all of the first one's dtype and shape.
fn alike(x: &[Meta], n: usize) -> Result<Metas> {
    if x.len() != n || x.iter().any(|m| m != &x[0]) {
        return Err(Error::misuse(format!("needs {n} tensors of one dtype and shape")));
    }
    float(&x[0])
}

/// Input minus its largest along `dim`, which is taken as a constant: it cancels out of every result.
fn shifted(x: &Tensor, dim: isize) -> Result<Tensor> {
    if x.elements() == 0 {
        return Ok(x.clone());
    }
    // A row of −∞ alone must not become NaN − NaN before its time: PyTorch gives NaN there as well.
    x.try_sub(&x.detach().try_amax(&[dim], true)?)
}

/// softmax(x)ᵢ = e^xᵢ / Σⱼ e^xⱼ along a dimension.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    /// The dimension.
    pub dim: usize,
}

impl Composite for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        float(&x[0])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let e = shifted(x[0], self.dim as isize)?.try_exp()?;
        Ok(smallvec![e.try_div(&e.try_sum_dims(&[self.dim as isize], true)?)?])
    }
    fn saves(&self) -> Saves {
        Saves::OUTPUT
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        Some(smallvec![Tensor::compose(SoftmaxGrad { dim: self.dim }, &[&cx.grad(), &cx.y()]).pop()])
    }
}

/// The gradient of softmax: y·(g − Σ g·y), of the output's gradient and the output.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxGrad {
    /// The dimension.
    pub dim: usize,
}

impl Composite for SoftmaxGrad {
    fn name(&self) -> &'static str {
        "softmax_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        alike(x, 2)
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (g, y) = (x[0], x[1]);
        let inner = g.try_mul(y)?.try_sum_dims(&[self.dim as isize], true)?;
        Ok(smallvec![y.try_mul(&g.try_sub(&inner)?)?])
    }
}

/// log softmax(x)ᵢ = xᵢ − ln Σⱼ e^xⱼ along a dimension.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmax {
    /// The dimension.
    pub dim: usize,
}

impl Composite for LogSoftmax {
    fn name(&self) -> &'static str {
        "log_softmax"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        float(&x[0])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let z = shifted(x[0], self.dim as isize)?;
        let total = z.try_exp()?.try_sum_dims(&[self.dim as isize], true)?.try_log()?;
        Ok(smallvec![z.try_sub(&total)?])
    }
    fn saves(&self) -> Saves {
        Saves::OUTPUT
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        Some(smallvec![Tensor::compose(LogSoftmaxGrad { dim: self.dim }, &[&cx.grad(), &cx.y()]).pop()])
    }
}

/// The gradient of log-softmax: g − e^y·Σ g, of the output's gradient and the output.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmaxGrad {
    /// The dimension.
    pub dim: usize,
}

impl Composite for LogSoftmaxGrad {
    fn name(&self) -> &'static str {
        "log_softmax_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        alike(x, 2)
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (g, y) = (x[0], x[1]);
        let total = g.try_sum_dims(&[self.dim as isize], true)?;
        Ok(smallvec![g.try_sub(&y.try_exp()?.try_mul(&total)?)?])
    }
}

impl Tensor {
    crate::fallible! {
        /// e^xᵢ / Σⱼ e^xⱼ along `dim`. ∂ = y·(g − Σ g·y). In PyTorch: `torch.softmax`.
        pub fn softmax | try_softmax(&self, dim: isize) -> Tensor {
            if self.rank() == 0 {
                return self.try_reshape([1])?.try_softmax(0)?.try_reshape(());
            }
            Tensor::try_compose1(Softmax { dim: self.shape().dim(dim)? }, &[self])
        }
        /// xᵢ − ln Σⱼ e^xⱼ along `dim`. ∂ = g − e^y·Σ g. In PyTorch: `torch.log_softmax`.
        pub fn log_softmax | try_log_softmax(&self, dim: isize) -> Tensor {
            if self.rank() == 0 {
                return self.try_reshape([1])?.try_log_softmax(0)?.try_reshape(());
            }
            Tensor::try_compose1(LogSoftmax { dim: self.shape().dim(dim)? }, &[self])
        }
        /// e^−xᵢ / Σⱼ e^−xⱼ along `dim`. In PyTorch: `torch.nn.functional.softmin`.
        pub fn softmin | try_softmin(&self, dim: isize) -> Tensor { self.try_neg()?.try_softmax(dim) }
        /// ln Σ e^x over the named dimensions, without overflow; −∞ of no elements. ∂ = g·softmax. In PyTorch: `torch.logsumexp`.
        pub fn logsumexp | try_logsumexp(&self, dims: &[isize], keep: bool) -> Tensor {
            let set = crate::backend::Dims::of(dims, self.shape())?;
            if !self.dtype().is_float() {
                return self.try_to_dtype(crate::dtype::DType::F32)?.try_logsumexp(dims, keep);
            }
            if set.count(self.shape()) == 0 {
                return self.try_sum_dims(dims, keep)?.try_log();
            }
            let max = self.detach().try_amax(dims, true)?;
            // Where the largest is infinite it must not be subtracted from itself.
            let max = max.try_masked_fill(&max.try_is_finite()?.try_logical_not()?, 0.0)?;
            let sum = self.try_sub(&max)?.try_exp()?.try_sum_dims(dims, true)?.try_log()?.try_add(&max)?;
            if keep { Ok(sum) } else { sum.try_reshape(set.dropped(self.shape())) }
        }
    }
}
