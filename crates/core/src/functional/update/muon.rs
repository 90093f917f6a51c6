//! Muon's momentum and its step. Between them is its iteration: products, and [sums](crate::functional::newton_schulz).

use super::{counts, gradient, narrowed, times, widened};
use crate::error::Result;
use crate::op::Tensors;
use crate::scalar::Scalar;
use crate::tensor::{Tensor, Update};
use smallvec::smallvec;

/// b ← b + (g − b)·gain: an average that follows the gradients.
///
/// Target: b. Inputs: the gradient g and, maybe, its factor, which it is multiplied with first.
#[derive(Clone, Debug)]
pub struct MomentumUpdate {
    /// The part of the gradient that the average takes.
    pub gain: Scalar,
}

impl Update for MomentumUpdate {
    fn name(&self) -> &'static str {
        "momentum_update"
    }
    fn define(&self, targets: &[&Tensor], x: &[&Tensor]) -> Result<Tensors> {
        let &[buffer] = targets else { return Err(counts(self.name(), "1", targets)) };
        let (b, g) = (widened(buffer)?, gradient(self.name(), x, false)?);
        let b = b.try_add(&times(&g.try_sub(&b)?, &self.gain)?)?;
        Ok(smallvec![narrowed(b, buffer)?])
    }
}

/// p ← p·decay − (o·learning_rate)·scale: a step along an orthogonal direction.
///
/// Target: p. Input: o.
#[derive(Clone, Debug)]
pub struct MuonUpdate {
    /// What the direction is multiplied with.
    pub learning_rate: Scalar,
    /// And then: the scale of the matrix's sides.
    pub scale: f64,
    /// 1 − η·λ: what the parameter is multiplied with.
    pub decay: Scalar,
}

impl Update for MuonUpdate {
    fn name(&self) -> &'static str {
        "muon_update"
    }
    fn define(&self, targets: &[&Tensor], x: &[&Tensor]) -> Result<Tensors> {
        let &[param] = targets else { return Err(counts(self.name(), "1", targets)) };
        let (p, o) = (widened(param)?, gradient(self.name(), x, false)?);
        let step = times(&times(&o, &self.learning_rate)?, &self.scale.into())?;
        Ok(smallvec![narrowed(times(&p, &self.decay)?.try_sub(&step)?, param)?])
    }
}
