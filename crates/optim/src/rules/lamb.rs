//! LAMB: Adam's step, scaled layer by layer to the size of the weights.

use super::{descend, miscounted, operands, plus, settings, squares, store, times, told, towards};
use crate::demand::{demand_fraction, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::{Result, Tensor};

/// p ← p − η·(‖p‖/‖r‖)·r with r = m̂/(√v̂ + ε) + λ·p; the ratio is 1 where either norm is 0.
///
/// m̂ and v̂ as in [`Adam`](crate::Adam); the norms are each parameter's own. For batches of thousands. State: `exp_avg` and
/// `exp_avg_sq`. Source: You et al., *Large batch optimization for deep learning: training BERT in 76 minutes* (2020), algorithm
/// 2 with φ the identity. Its defaults: η 1e-3, β 0.9 and 0.999, ε 1e-6, λ 0.01. (PyTorch has no such optimizer.)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lamb {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    maximize: bool,
}

impl Lamb {
    /// The rule at this learning rate, with the paper's defaults for the rest.
    pub fn new(learning_rate: f64) -> Lamb {
        Lamb { learning_rate, betas: (0.9, 0.999), eps: 1e-6, weight_decay: 0.01, maximize: false }
    }
}

settings! { Lamb {
    /// β₁ and β₂; 0.9 and 0.999.
    betas;
    /// ε: added to the denominator; 1e-6.
    eps: f64;
    /// λ: λ·p is added to the step before it is scaled; 0.01.
    weight_decay: f64;
    /// Climbs instead of descending.
    flag maximize;
} }

impl Rule for Lamb {
    told!("Lamb");
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }
    fn check(&self) -> Result<()> {
        demand_fraction(self.name(), "beta1", self.betas.0)?;
        demand_fraction(self.name(), "beta2", self.betas.1)?;
        demand_size(self.name(), "eps", self.eps)
    }
    /// η, 1 − β₁, 1/(1 − β₁ᵗ), 1/√(1 − β₂ᵗ).
    fn numbers(&self, at: &At) -> Numbers {
        let (beta1, t) = (at.momentum.unwrap_or(self.betas.0), at.step as f64);
        let bias2 = 1.0 - self.betas.1.powf(t);
        Numbers::from_slice(&[at.learning_rate, 1.0 - beta1, 1.0 / (1.0 - beta1.powf(t)), 1.0 / bias2.sqrt()])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let (p, g) = operands(&call, self.maximize, true)?;
        let ([rate, gain1, by_bias1, rsqrt_bias2], [m, v]) = (call.numbers, call.state) else {
            return Err(miscounted(self.name()));
        };
        store(m, &towards(m, &g, gain1)?)?;
        store(v, &squares(v, &g, self.betas.1)?)?;
        let denominator = plus(&times(&v.try_sqrt()?, rsqrt_bias2)?, self.eps)?;
        let mut r = times(m, by_bias1)?.try_div(&denominator)?;
        if call.weight_decay != 0.0 {
            r = r.try_add(&times(&p, call.weight_decay)?)?;
        }
        let (weights, step) = (p.try_norm(2.0, &[], false)?, r.try_norm(2.0, &[], false)?);
        let zero = weights.try_mul(&step)?.try_eq_scalar(0.0)?;
        let ratio = weights.try_div(&step)?.try_masked_fill(&zero, 1.0)?;
        descend(call.param, p, &r.try_mul(&times(&ratio, rate)?)?)
    }
}
