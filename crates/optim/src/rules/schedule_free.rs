//! AdamW that needs no schedule: it averages the weights instead.

use super::{miscounted, operands, plus, settings, squares, store, times, told, towards};
use crate::demand::{demand, demand_fraction, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::{Result, Tensor};

/// Schedule-free AdamW: gradients are taken at y, steps are made from z, and x, their average, is what the model is worth.
///
/// With ĝ = g/(√v̂ + ε) + λ·y, v̂ as in [`Adam`](crate::Adam), and c = w/Σw where w is the square of the largest learning rate so
/// far: y ← y + c·(z − y) + η·(β₁·(1 − c) − 1)·ĝ; z ← z − η·ĝ. The model's parameters are y. Evaluate and save x = y + (1 −
/// 1/β₁)·(z − y): [`Optimizer::evaluation_weights`](crate::Optimizer::evaluation_weights) gives it. Warm up with
/// [`Warmup`](crate::Warmup), and let no other schedule act.
///
/// State: `z`, `exp_avg_sq` (v), `weight_sum` (Σw) and `lr_max` (both without dimensions). Source: Defazio et al., *The road less
/// scheduled* (2024), as its authors' program has it. Its defaults: η 2.5e-3, β 0.9 and 0.999, ε 1e-8, λ 0. (PyTorch has no such
/// optimizer.)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleFreeAdamW {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    maximize: bool,
}

impl ScheduleFreeAdamW {
    /// The rule at this learning rate, with the authors' defaults for the rest.
    pub fn new(learning_rate: f64) -> ScheduleFreeAdamW {
        ScheduleFreeAdamW { learning_rate, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, maximize: false }
    }
}

settings! { ScheduleFreeAdamW {
    /// β₁: how near y is to x; β₂: how much of the squares' average stays; 0.9 and 0.999.
    betas;
    /// ε: added to the denominator; 1e-8.
    eps: f64;
    /// λ: λ·y is added to the step; 0.
    weight_decay: f64;
    /// Climbs instead of descending.
    flag maximize;
} }

impl Rule for ScheduleFreeAdamW {
    told!("ScheduleFreeAdamW");
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["z", "exp_avg_sq", "weight_sum", "lr_max"]
    }
    fn check(&self) -> Result<()> {
        demand_fraction(self.name(), "beta1", self.betas.0)?;
        demand(self.betas.0 > 0.0, self.name(), "beta1", "above 0", self.betas.0)?;
        demand_fraction(self.name(), "beta2", self.betas.1)?;
        demand_size(self.name(), "eps", self.eps)
    }
    fn start(&self, slot: &str, param: &Tensor, _at: &At) -> Result<Tensor> {
        match slot {
            "z" => {
                let mut z = super::zeros(param)?; // memory of its own, to be written in place
                store(&mut z, &param.detach())?;
                Ok(z)
            }
            "exp_avg_sq" => super::zeros(param),
            _ => Tensor::try_zeros((), param.device().with(super::state_dtype(param))),
        }
    }
    /// η, 1/√(1 − β₂ᵗ).
    fn numbers(&self, at: &At) -> Numbers {
        Numbers::from_slice(&[at.learning_rate, 1.0 / (1.0 - self.betas.1.powf(at.step as f64)).sqrt()])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let (mut y, g) = operands(&call, self.maximize, true)?;
        let ([rate, rsqrt_bias2], [z, v, sum, largest]) = (call.numbers, call.state) else {
            return Err(miscounted(self.name()));
        };
        store(largest, &largest.try_maximum(&plus(&largest.zeros_like(), rate)?)?)?;
        let weight = largest.try_square()?;
        store(sum, &sum.try_add(&weight)?)?;
        // While the learning rate is 0, nothing has a weight.
        let c = weight.try_div(&sum.try_clamp(Some(f64::from(f32::MIN_POSITIVE)), None)?)?;
        store(v, &squares(v, &g, self.betas.1)?)?;
        let mut step = g.try_div(&plus(&times(&v.try_sqrt()?, rsqrt_bias2)?, self.eps)?)?;
        if call.weight_decay != 0.0 {
            step = step.try_add(&times(&y, call.weight_decay)?)?;
        }
        // β₁·(1 − c) − 1 = (β₁ − 1) − β₁·c
        let pull = plus(&times(&c, -self.betas.0)?, self.betas.0 - 1.0)?;
        y = y.try_add(&z.try_sub(&y)?.try_mul(&c)?)?.try_add(&step.try_mul(&times(&pull, rate)?)?)?;
        store(z, &z.try_sub(&times(&step, rate)?)?)?;
        store(call.param, &y)
    }
    fn evaluation_value(&self, param: &Tensor, state: &[Tensor]) -> Result<Option<Tensor>> {
        let Some(z) = state.first() else { return Ok(None) };
        towards(&super::widened(param)?, z, 1.0 - 1.0 / self.betas.0).map(Some)
    }
}
