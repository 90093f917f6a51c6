//! Adam and AdamW.

use super::{counts, gradient, narrowed, times, widened};
use crate::error::Result;
use crate::op::Tensors;
use crate::ops::BinaryOp;
use crate::scalar::Scalar;
use crate::tensor::{Tensor, Update};
use smallvec::smallvec;

/// A step of Adam (Kingma & Ba, 2015) or AdamW (Loshchilov & Hutter, 2019); PyTorch's form.
///
/// Targets: p, `exp_avg` m, `exp_avg_sq` v (zeros before the first step), and, for AMSGrad (Reddi et al., 2018), the largest
/// v so far, n. Inputs: the gradient g and, maybe, its factor c. In this order, with s the `step_size`:
///
/// ```text
/// g ← g·c                         if there is a factor
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
        let (p, m, v, largest) = match *targets {
            [p, m, v] => (p, m, v, None),
            [p, m, v, n] => (p, m, v, Some(n)),
            _ => return Err(counts(self.name(), "3 or 4", targets)),
        };
        let (mut p, m, v) = (widened(p)?, widened(m)?, widened(v)?);
        let mut g = gradient(self.name(), x, self.maximize)?;
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
