//! Lion: the sign of an interpolated momentum.

use super::{miscounted, settings, told};
use crate::demand::demand_fraction;
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::functional::update::LionUpdate;
use gradus_core::{Result, Tensor};

/// p ← (1 − η·λ)·p − η·sign(β₁·m + (1 − β₁)·g); m ← β₂·m + (1 − β₂)·g.
///
/// Every weight moves by η; rates are three to ten times smaller than Adam's, and decays as many times larger. State: `exp_avg`
/// (m). Source: Chen et al., *Symbolic discovery of optimization algorithms* (2023), algorithm 2. Its defaults: η 1e-4, β 0.9 and
/// 0.99, λ 0. (PyTorch has no such optimizer.)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    learning_rate: f64,
    betas: (f64, f64),
    weight_decay: f64,
    maximize: bool,
}

impl Lion {
    /// The rule at this learning rate, with the paper's defaults for the rest.
    pub fn new(learning_rate: f64) -> Lion {
        Lion { learning_rate, betas: (0.9, 0.99), weight_decay: 0.0, maximize: false }
    }
}

settings! { Lion {
    /// β₁: how much of the momentum the step has; β₂: how much of it stays; 0.9 and 0.99.
    betas;
    /// λ: the weights shrink by η·λ of themselves at each step; 0.
    weight_decay: f64;
    /// Climbs instead of descending.
    flag maximize;
} }

impl Rule for Lion {
    told!("Lion");
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["exp_avg"]
    }
    fn check(&self) -> Result<()> {
        demand_fraction(self.name(), "beta1", self.betas.0)?;
        demand_fraction(self.name(), "beta2", self.betas.1)
    }
    fn takes_factor(&self) -> bool {
        true
    }
    /// η, 1 − β₁, 1 − η·λ.
    fn numbers(&self, at: &At) -> Numbers {
        let beta1 = at.momentum.unwrap_or(self.betas.0);
        Numbers::from_slice(&[at.learning_rate, 1.0 - beta1, 1.0 - at.learning_rate * at.weight_decay])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let x = call.inputs();
        let ([rate, gain1, decay], [m]) = (call.numbers, call.state) else { return Err(miscounted(self.name())) };
        let op = LionUpdate {
            learning_rate: rate.clone(),
            gain1: gain1.clone(),
            gain2: 1.0 - self.betas.1,
            decay: decay.clone(),
            maximize: self.maximize,
        };
        Tensor::update(&op, &mut [call.param, m], &x)
    }
}
