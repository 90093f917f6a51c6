//! The updates of optimizers that are worth a fused kernel: one pass over parameter, gradient and state.
//!
//! They live here, and not with the optimizers, so that a backend can register kernels without knowing the crate of the
//! optimizers. Numbers that vary by step arrive as [`Scalar`]s computed on the host in `f64` (bias corrections are folded
//! into `step_size` and `rsqrt_bias2`): a recorded step reads them anew through their slots.
//!
//! A fused kernel computes the definition's lines in the definition's order, without fused multiply-adds, each scalar first
//! rounded to the dtype of the arithmetic; then both give the same bits. Halves are computed in `f32` and rounded once, at
//! the end.

use crate::error::{Error, Result};
use crate::op::Tensors;
use crate::ops::BinaryOp;
use crate::scalar::Scalar;
use crate::tensor::{Tensor, Update};
use smallvec::smallvec;

/// A step of stochastic gradient descent, with momentum (Sutskever et al., 2013) if there is a buffer for it; PyTorch's form.
///
/// Targets: p, or p and the momentum buffer b (zeros before the first step). Input: the gradient g. In this order:
///
/// ```text
/// g ← −g                     if maximize
/// g ← g + p·weight_decay     if weight_decay ≠ 0
/// b ← b·momentum + g·gain    if there is a buffer
/// g ← g + b·momentum         if there is a buffer, and nesterov
/// g ← b                      if there is a buffer, and not nesterov
/// p ← p − g·learning_rate
/// ```
#[derive(Clone, Debug)]
pub struct SgdUpdate {
    /// What the step is multiplied with.
    pub learning_rate: Scalar,
    /// μ: how much of the buffer stays. Unused without a buffer.
    pub momentum: Scalar,
    /// How much of the gradient the buffer takes: 1 at a parameter's first step, 1 − dampening afterwards.
    pub gain: Scalar,
    /// λ: the L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// Whether to look ahead along the buffer (Nesterov).
    pub nesterov: bool,
    /// Whether to climb instead of descend.
    pub maximize: bool,
}

impl Update for SgdUpdate {
    fn name(&self) -> &'static str {
        "sgd_update"
    }
    fn define(&self, targets: &[&Tensor], x: &[&Tensor]) -> Result<Tensors> {
        let &[grad] = x else { return Err(inputs(self.name(), x)) };
        let (p, buffer) = match *targets {
            [p] => (widened(p)?, None),
            [p, b] => (widened(p)?, Some(widened(b)?)),
            _ => return Err(counts(self.name(), "1 or 2", targets)),
        };
        let mut g = gradient(grad, self.maximize)?;
        if self.weight_decay != 0.0 {
            g = g.try_add(&times(&p, &self.weight_decay.into())?)?;
        }
        let Some(b) = buffer else {
            let p = p.try_sub(&times(&g, &self.learning_rate)?)?;
            return Ok(smallvec![narrowed(p, targets[0])?]);
        };
        let b = times(&b, &self.momentum)?.try_add(&times(&g, &self.gain)?)?;
        let step = if self.nesterov { g.try_add(&times(&b, &self.momentum)?)? } else { b.clone() };
        let p = p.try_sub(&times(&step, &self.learning_rate)?)?;
        Ok(smallvec![narrowed(p, targets[0])?, narrowed(b, targets[1])?])
    }
}

/// A step of Adam (Kingma & Ba, 2015) or AdamW (Loshchilov & Hutter, 2019); PyTorch's form.
///
/// Targets: p, `exp_avg` m, `exp_avg_sq` v (zeros before the first step), and, for AMSGrad (Reddi et al., 2018), the largest
/// v so far, n. Input: the gradient g. In this order, with s the `step_size`:
///
/// ```text
/// g ← −g                          if maximize
/// g ← g + p·weight_decay          if weight_decay ≠ 0
/// p ← p·decay                     if there is a decay
/// m ← m + (g − m)·one_minus_beta1
/// v ← v·beta2 + (g·(1 − beta2))·g
/// n ← max(n, v), NaN wins         if there is an n; below, n stands for v
/// p ← p − (m·s) / (√v·rsqrt_bias2 + eps)
/// ```
#[derive(Clone, Debug)]
pub struct AdamUpdate {
    /// 1 − β₁: the part of the gradient that `exp_avg` takes.
    pub one_minus_beta1: Scalar,
    /// β₂: the part of `exp_avg_sq` that stays.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// η / (1 − β₁ᵗ), with η the learning rate and t the parameter's count of steps, from 1.
    pub step_size: Scalar,
    /// 1 / √(1 − β₂ᵗ).
    pub rsqrt_bias2: Scalar,
    /// λ: the L2 penalty added to the gradient (Adam).
    pub weight_decay: f64,
    /// 1 − η·λ: what the parameter is multiplied with (AdamW); `None` without decay.
    pub decay: Option<Scalar>,
    /// Whether to climb instead of descend.
    pub maximize: bool,
}

impl Update for AdamUpdate {
    fn name(&self) -> &'static str {
        "adam_update"
    }
    fn define(&self, targets: &[&Tensor], x: &[&Tensor]) -> Result<Tensors> {
        let &[grad] = x else { return Err(inputs(self.name(), x)) };
        let (p, m, v, largest) = match *targets {
            [p, m, v] => (p, m, v, None),
            [p, m, v, n] => (p, m, v, Some(n)),
            _ => return Err(counts(self.name(), "3 or 4", targets)),
        };
        let (mut p, m, v) = (widened(p)?, widened(m)?, widened(v)?);
        let mut g = gradient(grad, self.maximize)?;
        if self.weight_decay != 0.0 {
            g = g.try_add(&times(&p, &self.weight_decay.into())?)?;
        }
        if let Some(decay) = &self.decay {
            p = times(&p, decay)?;
        }
        let m = m.try_add(&times(&g.try_sub(&m)?, &self.one_minus_beta1)?)?;
        let v = times(&v, &self.beta2.into())?.try_add(&times(&g, &(1.0 - self.beta2).into())?.try_mul(&g)?)?;
        let n = largest.map(|n| widened(n)?.try_maximum(&v)).transpose()?;
        let root = n.as_ref().unwrap_or(&v).try_sqrt()?;
        let denominator = times(&root, &self.rsqrt_bias2)?.try_binary_scalar(BinaryOp::Add, self.eps)?;
        let p = p.try_sub(&times(&m, &self.step_size)?.try_div(&denominator)?)?;
        let mut new: Tensors = smallvec![narrowed(p, targets[0])?, narrowed(m, targets[1])?, narrowed(v, targets[2])?];
        if let (Some(n), Some(of)) = (n, largest) {
            new.push(narrowed(n, of)?);
        }
        Ok(new)
    }
}

/// The values in the dtype that the arithmetic is done in: `f32` for halves.
fn widened(x: &Tensor) -> Result<Tensor> {
    if x.dtype().is_half() { x.try_to_dtype(crate::DType::F32) } else { Ok(x.clone()) }
}

/// The values in the dtype of the tensor that they replace.
fn narrowed(x: Tensor, of: &Tensor) -> Result<Tensor> {
    if x.dtype() == of.dtype() { Ok(x) } else { x.try_to_dtype(of.dtype()) }
}

/// x·scalar. (The operators would panic where a device fails.)
fn times(x: &Tensor, scalar: &Scalar) -> Result<Tensor> {
    x.try_binary_scalar(BinaryOp::Mul, scalar.clone())
}

fn gradient(g: &Tensor, negated: bool) -> Result<Tensor> {
    let g = widened(g)?;
    if negated { g.try_neg() } else { Ok(g) }
}

fn inputs(name: &str, x: &[&Tensor]) -> Error {
    Error::misuse(format!("{name}: takes one input, the gradient; got {}", x.len()))
}

fn counts(name: &str, want: &str, targets: &[&Tensor]) -> Error {
    Error::misuse(format!("{name}: takes {want} targets; got {}", targets.len()))
}
