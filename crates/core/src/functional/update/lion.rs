//! Lion.

use super::{counts, gradient, narrowed, times, widened};
use crate::error::Result;
use crate::op::Tensors;
use crate::scalar::Scalar;
use crate::tensor::{Tensor, Update};
use smallvec::smallvec;

/// A step of Lion (Chen et al., 2023).
///
/// Targets: p and `exp_avg` m (zeros before the first step). Inputs: the gradient g and, maybe, its factor c. In this order:
///
/// ```text
/// g ← g·c                      if there is a factor
/// g ← −g                       if maximize
/// d ← sign(m + (g − m)·gain1)
/// m ← m + (g − m)·gain2
/// p ← p·decay − d·learning_rate
/// ```
#[derive(Clone, Debug)]
pub struct LionUpdate {
    /// What every weight moves by.
    pub learning_rate: Scalar,
    /// 1 − β₁: the part of the gradient that the direction takes.
    pub gain1: Scalar,
    /// 1 − β₂: the part of it that `exp_avg` takes.
    pub gain2: f64,
    /// 1 − η·λ: what the parameter is multiplied with.
    pub decay: Scalar,
    /// Whether to climb instead of descend.
    pub maximize: bool,
}

impl Update for LionUpdate {
    fn name(&self) -> &'static str {
        "lion_update"
    }
    fn define(&self, targets: &[&Tensor], x: &[&Tensor]) -> Result<Tensors> {
        let &[param, average] = targets else { return Err(counts(self.name(), "2", targets)) };
        let (p, m, g) = (widened(param)?, widened(average)?, gradient(self.name(), x, self.maximize)?);
        let towards = g.try_sub(&m)?;
        let d = m.try_add(&times(&towards, &self.gain1)?)?.try_sign()?;
        let m = m.try_add(&times(&towards, &self.gain2.into())?)?;
        let p = times(&p, &self.decay)?.try_sub(&times(&d, &self.learning_rate)?)?;
        Ok(smallvec![narrowed(p, param)?, narrowed(m, average)?])
    }
}
