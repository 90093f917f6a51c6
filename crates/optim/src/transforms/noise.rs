//! Noise on the gradients.

use super::{NamedGrads, Notes, Transform};
use crate::demand::demand_size;
use gradus_core::{Key, Result, Scalar, Slot, Tensor};

/// Adds normal noise to every gradient, of variance η/(1 + t)^γ at step t (from 0): g ← g + σₜ·n.
///
/// A parameter's noise is a function of (seed, name, step), so a resumed run draws what an uninterrupted one would have drawn.
/// Source: Neelakantan et al., *Adding gradient noise improves learning for very deep networks* (2015). γ 0.55 unless set.
#[derive(Clone, Debug)]
pub struct GradientNoise {
    eta: f64,
    gamma: f64,
    key: Key,
    deviation: Slot,
    step: Slot,
}

impl GradientNoise {
    /// Noise of variance `eta` at first, drawn by `key` (a seed, or a [`Key`]).
    pub fn new(eta: f64, key: impl Into<Key>) -> GradientNoise {
        let key = key.into().fold("gradient noise");
        GradientNoise { eta, gamma: 0.55, key, deviation: Slot::new(0.0), step: Slot::new(0.0) }
    }
    /// γ: how fast the variance falls; 0.55. With 0 it stays.
    pub fn gamma(self, gamma: f64) -> GradientNoise {
        GradientNoise { gamma, ..self }
    }
}

impl Transform for GradientNoise {
    fn name(&self) -> &'static str {
        "GradientNoise"
    }
    fn check(&self, _names: &[&str]) -> Result<()> {
        demand_size(self.name(), "the variance", self.eta)?;
        demand_size(self.name(), "gamma", self.gamma)
    }
    fn prepare(&self, step: u64) {
        self.deviation.set((self.eta / (1.0 + step as f64).powf(self.gamma)).sqrt());
        self.step.set((step % (1 << 32)) as f64); // a key's step has 32 bits
    }
    fn apply(&self, grads: &mut NamedGrads, _notes: &mut Notes) -> Result<()> {
        for g in grads {
            let key = self.key.fold(&g.name).at_slot(&self.step);
            let noise = Tensor::try_randn(*g.grad.shape(), g.grad.place(), key)?;
            let noise = noise.try_binary_scalar(gradus_core::ops::BinaryOp::Mul, Scalar::from(&self.deviation))?;
            g.grad = g.grad.try_add(&noise)?;
        }
        Ok(())
    }
}
