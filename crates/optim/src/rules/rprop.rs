//! Rprop, as PyTorch's `torch.optim.Rprop` has it.

use super::{descend, miscounted, operands, settings, store};
use crate::demand::{demand, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::{Result, Tensor};

/// A step of its own for each weight, by the sign of its gradient alone: s ← clamp(s·η⁺) where the gradient kept its sign,
/// s ← clamp(s·η⁻) and no step where it changed; p ← p − s·sign(g).
///
/// For gradients of the whole data set: a batch's noise changes signs. The learning rate is the first s; schedules do not act
/// after that. State: `prev` (the gradient before, 0 where no step was made) and `step_size` (s). Source: Riedmiller & Braun, *A
/// direct adaptive method for faster backpropagation learning: the RPROP algorithm* (1993), in PyTorch's form. Its defaults: η
/// 1e-2, η⁻ 0.5, η⁺ 1.2, s between 1e-6 and 50.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rprop {
    learning_rate: f64,
    etas: (f64, f64),
    step_sizes: (f64, f64),
    maximize: bool,
}

impl Rprop {
    /// The rule with this first step, with PyTorch's defaults for the rest.
    pub fn new(learning_rate: f64) -> Rprop {
        Rprop { learning_rate, etas: (0.5, 1.2), step_sizes: (1e-6, 50.0), maximize: false }
    }
    /// η⁻ and η⁺: what a step is multiplied with where the gradient changed its sign, and where it kept it; 0.5 and 1.2.
    pub fn etas(self, minus: f64, plus: f64) -> Rprop {
        Rprop { etas: (minus, plus), ..self }
    }
    /// The smallest step and the largest; 1e-6 and 50.
    pub fn step_sizes(self, smallest: f64, largest: f64) -> Rprop {
        Rprop { step_sizes: (smallest, largest), ..self }
    }
}

settings! { Rprop {
    /// Climbs instead of descending.
    flag maximize;
} }

impl Rule for Rprop {
    fn name(&self) -> &'static str {
        "Rprop"
    }
    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["prev", "step_size"]
    }
    fn check(&self) -> Result<()> {
        let ((minus, plus), (smallest, largest)) = (self.etas, self.step_sizes);
        demand(minus > 0.0 && minus < 1.0, self.name(), "the factor of a changed sign", "between 0 and 1", minus)?;
        demand(plus > 1.0 && plus.is_finite(), self.name(), "the factor of a kept sign", "above 1", plus)?;
        demand_size(self.name(), "the smallest step", smallest)?;
        demand(largest >= smallest, self.name(), "the largest step", "at least the smallest", largest)
    }
    fn start(&self, slot: &str, param: &Tensor, at: &At) -> Result<Tensor> {
        super::full(param, if slot == "step_size" { at.learning_rate } else { 0.0 })
    }
    fn numbers(&self, _at: &At) -> Numbers {
        Numbers::new()
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let (p, mut g) = operands(&call, self.maximize, false)?;
        let [prev, size] = call.state else { return Err(miscounted(self.name())) };
        let sign = g.try_mul(prev)?.try_sign()?;
        let changed = sign.try_lt_scalar(0.0)?;
        let factor = sign.ones_like().try_masked_fill(&sign.try_gt_scalar(0.0)?, self.etas.1)?;
        let factor = factor.try_masked_fill(&changed, self.etas.0)?;
        let (smallest, largest) = self.step_sizes;
        store(size, &size.try_mul(&factor)?.try_clamp(Some(smallest), Some(largest))?)?;
        g = g.try_masked_fill(&changed, 0.0)?;
        store(prev, &g)?;
        descend(call.param, p, &g.try_sign()?.try_mul(size)?)
    }
}
