//! Adamax, as PyTorch's `torch.optim.Adamax` has it.

use super::{descend, miscounted, operands, plus, settings, store, times, told, towards};
use crate::demand::{demand_fraction, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::{Result, Tensor};

/// Adam with the largest gradient in place of the mean of squares: m ← β₁·m + (1 − β₁)·g; u ← max(β₂·u, |g| + ε);
/// p ← p − η/(1 − β₁ᵗ)·m/u.
///
/// State: `exp_avg` (m) and `exp_inf` (u). Source: Kingma & Ba, *Adam* (2015), section 7.1, in PyTorch's form. Its defaults:
/// η 2e-3, β 0.9 and 0.999, ε 1e-8, λ 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adamax {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    maximize: bool,
}

impl Adamax {
    /// The rule at this learning rate, with PyTorch's defaults for the rest.
    pub fn new(learning_rate: f64) -> Adamax {
        Adamax { learning_rate, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, maximize: false }
    }
}

settings! { Adamax {
    /// β₁ and β₂; 0.9 and 0.999.
    betas;
    /// ε: added to |g|; 1e-8.
    eps: f64;
    /// λ: λ·p is added to the gradient; 0.
    weight_decay: f64;
    /// Climbs instead of descending.
    flag maximize;
} }

impl Rule for Adamax {
    told!("Adamax");
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["exp_avg", "exp_inf"]
    }
    fn check(&self) -> Result<()> {
        demand_fraction(self.name(), "beta1", self.betas.0)?;
        demand_fraction(self.name(), "beta2", self.betas.1)?;
        demand_size(self.name(), "eps", self.eps)
    }
    /// 1 − β₁, η/(1 − β₁ᵗ).
    fn numbers(&self, at: &At) -> Numbers {
        let beta1 = at.momentum.unwrap_or(self.betas.0);
        Numbers::from_slice(&[1.0 - beta1, at.learning_rate / (1.0 - beta1.powf(at.step as f64))])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let (p, g) = operands(&call, self.maximize, false)?;
        let ([gain1, size], [m, u]) = (call.numbers, call.state) else { return Err(miscounted(self.name())) };
        store(m, &towards(m, &g, gain1)?)?;
        store(u, &times(u, self.betas.1)?.try_maximum(&plus(&g.try_abs()?, self.eps)?)?)?;
        descend(call.param, p, &times(m, size)?.try_div(u)?)
    }
}
