//! Adagrad, as PyTorch's `torch.optim.Adagrad` has it.

use super::{descend, miscounted, operands, plus, settings, store, times, told};
use crate::demand::demand_size;
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::{Result, Tensor};

/// Steps divided by the root of all squared gradients so far: s ← s + g²; p ← p − η/(1 + (t − 1)·γ)·g / (√s + ε).
///
/// γ is the learning rate's decay. State: `sum` (s). Source: Duchi, Hazan & Singer, *Adaptive subgradient methods for online
/// learning and stochastic optimization* (2011), in PyTorch's form. Its defaults: η 1e-2, γ 0, ε 1e-10, s 0 at first, λ 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adagrad {
    learning_rate: f64,
    rate_decay: f64,
    initial: f64,
    eps: f64,
    weight_decay: f64,
    maximize: bool,
}

impl Adagrad {
    /// The rule at this learning rate, with PyTorch's defaults for the rest.
    pub fn new(learning_rate: f64) -> Adagrad {
        Adagrad { learning_rate, rate_decay: 0.0, initial: 0.0, eps: 1e-10, weight_decay: 0.0, maximize: false }
    }
}

settings! { Adagrad {
    /// γ: how fast the learning rate falls by itself; 0. In PyTorch: `lr_decay`.
    rate_decay: f64;
    /// The sum of squares before the first step; 0. In PyTorch: `initial_accumulator_value`.
    initial: f64;
    /// ε: added to the denominator; 1e-10.
    eps: f64;
    /// λ: λ·p is added to the gradient; 0.
    weight_decay: f64;
    /// Climbs instead of descending.
    flag maximize;
} }

impl Rule for Adagrad {
    told!("Adagrad");
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["sum"]
    }
    fn check(&self) -> Result<()> {
        demand_size(self.name(), "the learning rate's decay", self.rate_decay)?;
        demand_size(self.name(), "the first sum of squares", self.initial)?;
        demand_size(self.name(), "eps", self.eps)
    }
    fn start(&self, _slot: &str, param: &Tensor, _at: &At) -> Result<Tensor> {
        super::full(param, self.initial)
    }
    /// η/(1 + (t − 1)·γ).
    fn numbers(&self, at: &At) -> Numbers {
        Numbers::from_slice(&[at.learning_rate / (1.0 + (at.step as f64 - 1.0) * self.rate_decay)])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let (p, g) = operands(&call, self.maximize, false)?;
        let ([rate], [sum]) = (call.numbers, call.state) else { return Err(miscounted(self.name())) };
        store(sum, &sum.try_add(&g.try_square()?)?)?;
        let step = times(&g, rate)?.try_div(&plus(&sum.try_sqrt()?, self.eps)?)?;
        descend(call.param, p, &step)
    }
}
