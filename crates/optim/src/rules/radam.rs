//! RAdam, as PyTorch's `torch.optim.RAdam` has it.

use super::{descend, miscounted, operands, plus, settings, squares, store, times, told, towards};
use crate::demand::{demand_fraction, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::{Result, Tensor};

/// Adam whose adaptive step waits until its variance can be known: p ← p − η·m̂·r/(√v̂ + ε/√(1 − β₂ᵗ)) if ρₜ > 5, else
/// p ← p − η·m̂.
///
/// m, v, m̂ and v̂ as in [`Adam`](crate::Adam); ρ∞ = 2/(1 − β₂) − 1, ρₜ = ρ∞ − 2t·β₂ᵗ/(1 − β₂ᵗ), and
/// r = √((ρₜ − 4)(ρₜ − 2)ρ∞ / ((ρ∞ − 4)(ρ∞ − 2)ρₜ)). State: `exp_avg` and `exp_avg_sq`. Source: Liu et al., *On the variance of
/// the adaptive learning rate and beyond* (2020), in PyTorch's form. Its defaults: η 1e-3, β 0.9 and 0.999, ε 1e-8, λ 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RAdam {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    decoupled: bool,
    maximize: bool,
}

impl RAdam {
    /// The rule at this learning rate, with PyTorch's defaults for the rest.
    pub fn new(learning_rate: f64) -> RAdam {
        let (betas, eps) = ((0.9, 0.999), 1e-8);
        RAdam { learning_rate, betas, eps, weight_decay: 0.0, decoupled: false, maximize: false }
    }
}

settings! { RAdam {
    /// β₁ and β₂; 0.9 and 0.999.
    betas;
    /// ε: added to √v; 1e-8.
    eps: f64;
    /// λ: λ·p is added to the gradient, or taken from the weights if it is [`decoupled`](Self::decoupled); 0.
    weight_decay: f64;
    /// Takes η·λ of the weights themselves at each step, as [`AdamW`](crate::AdamW) does. In PyTorch: `decoupled_weight_decay`.
    flag decoupled;
    /// Climbs instead of descending.
    flag maximize;
} }

impl Rule for RAdam {
    told!("RAdam");
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }
    fn check(&self) -> Result<()> {
        demand_fraction(self.name(), "beta1", self.betas.0)?;
        demand_fraction(self.name(), "beta2", self.betas.1)?;
        demand_size(self.name(), "eps", self.eps)
    }
    /// 1 − β₁, the step's size, what √v + ε counts and what 1 counts in the denominator, 1 − η·λ. (One of the two is 1 and the
    /// other 0, so that a recorded step needs no branch.)
    fn numbers(&self, at: &At) -> Numbers {
        let (beta1, beta2) = (at.momentum.unwrap_or(self.betas.0), self.betas.1);
        let t = at.step as f64;
        let (bias1, bias2) = (1.0 - beta1.powf(t), 1.0 - beta2.powf(t));
        let limit = 2.0 / (1.0 - beta2) - 1.0;
        let rho = limit - 2.0 * t * beta2.powf(t) / bias2;
        let plain = at.learning_rate / bias1;
        let decay = 1.0 - at.learning_rate * at.weight_decay;
        if rho > 5.0 {
            let rectified = (rho - 4.0) * (rho - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * rho);
            Numbers::from_slice(&[1.0 - beta1, plain * rectified.sqrt() * bias2.sqrt(), 1.0, 0.0, decay])
        } else {
            Numbers::from_slice(&[1.0 - beta1, plain, 0.0, 1.0, decay])
        }
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let (mut p, g) = operands(&call, self.maximize, self.decoupled)?;
        let ([gain1, size, adaptive, plain, decay], [m, v]) = (call.numbers, call.state) else {
            return Err(miscounted(self.name()));
        };
        if self.decoupled && call.weight_decay != 0.0 {
            p = times(&p, decay)?;
        }
        store(m, &towards(m, &g, gain1)?)?;
        store(v, &squares(v, &g, self.betas.1)?)?;
        let denominator = plus(&times(&plus(&v.try_sqrt()?, self.eps)?, adaptive)?, plain)?;
        descend(call.param, p, &times(m, size)?.try_div(&denominator)?)
    }
}
