//! Stochastic gradient descent.

use super::{counts, gradient, narrowed, times, widened};
use crate::error::Result;
use crate::op::Tensors;
use crate::scalar::Scalar;
use crate::tensor::{Tensor, Update};
use smallvec::smallvec;

/// A step of stochastic gradient descent, with momentum (Sutskever et al., 2013) if there is a buffer for it; PyTorch's form.
///
/// Targets: p, or p and the momentum buffer b (zeros before the first step). Inputs: the gradient g and, maybe, its factor c. In
/// this order:
///
/// ```text
/// g ← g·c                    if there is a factor
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
        let (p, buffer) = match *targets {
            [p] => (widened(p)?, None),
            [p, b] => (widened(p)?, Some(widened(b)?)),
            _ => return Err(counts(self.name(), "1 or 2", targets)),
        };
        let mut g = gradient(self.name(), x, self.maximize)?;
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
