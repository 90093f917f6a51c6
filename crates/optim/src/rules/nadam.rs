//! NAdam, as PyTorch's `torch.optim.NAdam` has it.

use super::{descend, miscounted, operands, over, plus, settings, squares, store, times, told, towards};
use crate::demand::{demand_fraction, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::{Result, Tensor};

/// Adam with Nesterov's momentum: p ← p − η·((1 − μₜ)/(1 − Πμ)·g + μₜ₊₁/(1 − μₜ₊₁·Πμ)·m) / (√v̂ + ε).
///
/// m and v as in [`Adam`](crate::Adam), v̂ = v/(1 − β₂ᵗ), μₜ = β₁·(1 − 0.96^(t·ψ)/2) with ψ the momentum's decay, and Πμ = μ₁⋯μₜ.
/// State: `exp_avg` (m), `exp_avg_sq` (v), and `mu_product` (Πμ, a tensor without dimensions). Source: Dozat, *Incorporating
/// Nesterov momentum into Adam* (2016), in PyTorch's form. Its defaults: η 2e-3, β 0.9 and 0.999, ε 1e-8, ψ 4e-3, λ 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NAdam {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    momentum_decay: f64,
    decoupled: bool,
    maximize: bool,
}

impl NAdam {
    /// The rule at this learning rate, with PyTorch's defaults for the rest.
    pub fn new(learning_rate: f64) -> NAdam {
        NAdam {
            learning_rate,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            momentum_decay: 4e-3,
            decoupled: false,
            maximize: false,
        }
    }
}

settings! { NAdam {
    /// β₁ and β₂; 0.9 and 0.999.
    betas;
    /// ε: added to the denominator; 1e-8.
    eps: f64;
    /// λ: λ·p is added to the gradient, or taken from the weights if it is [`decoupled`](Self::decoupled); 0.
    weight_decay: f64;
    /// ψ: how fast the momentum grows to β₁; 4e-3.
    momentum_decay: f64;
    /// Takes η·λ of the weights themselves at each step, as [`AdamW`](crate::AdamW) does. In PyTorch: `decoupled_weight_decay`.
    flag decoupled;
    /// Climbs instead of descending.
    flag maximize;
} }

impl Rule for NAdam {
    told!("NAdam");
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq", "mu_product"]
    }
    fn check(&self) -> Result<()> {
        demand_fraction(self.name(), "beta1", self.betas.0)?;
        demand_fraction(self.name(), "beta2", self.betas.1)?;
        demand_size(self.name(), "eps", self.eps)?;
        demand_size(self.name(), "the momentum's decay", self.momentum_decay)
    }
    fn start(&self, slot: &str, param: &Tensor, _at: &At) -> Result<Tensor> {
        if slot == "mu_product" { super::one(param) } else { super::zeros(param) }
    }
    /// 1 − β₁, 1/√(1 − β₂ᵗ), μₜ, η·(1 − μₜ), μₜ₊₁, η·μₜ₊₁, 1 − η·λ.
    fn numbers(&self, at: &At) -> Numbers {
        let (beta1, t) = (at.momentum.unwrap_or(self.betas.0), at.step as f64);
        let mu = |t: f64| beta1 * (1.0 - 0.5 * 0.96f64.powf(t * self.momentum_decay));
        let (now, next) = (mu(t), mu(t + 1.0));
        let rsqrt_bias2 = 1.0 / (1.0 - self.betas.1.powf(t)).sqrt();
        let rate = at.learning_rate;
        Numbers::from_slice(&[
            1.0 - beta1,
            rsqrt_bias2,
            now,
            rate * (1.0 - now),
            next,
            rate * next,
            1.0 - rate * at.weight_decay,
        ])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let (mut p, g) = operands(&call, self.maximize, self.decoupled)?;
        let ([gain1, rsqrt_bias2, mu, of_gradient, mu_next, of_average, decay], [m, v, product]) =
            (call.numbers, call.state)
        else {
            return Err(miscounted(self.name()));
        };
        if self.decoupled && call.weight_decay != 0.0 {
            p = times(&p, decay)?;
        }
        store(product, &times(product, mu)?)?;
        store(m, &towards(m, &g, gain1)?)?;
        store(v, &squares(v, &g, self.betas.1)?)?;
        let denominator = plus(&times(&v.try_sqrt()?, rsqrt_bias2)?, self.eps)?;
        let gradient = over(of_gradient, &super::one_minus(product)?)?;
        let average = over(of_average, &super::one_minus(&times(product, mu_next)?)?)?;
        let step = g.try_mul(&gradient)?.try_add(&m.try_mul(&average)?)?;
        descend(call.param, p, &step.try_div(&denominator)?)
    }
}
