//! Stochastic gradient descent, as PyTorch's `torch.optim.SGD` has it.

use super::miscounted;
use crate::demand::{demand, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::functional::update::SgdUpdate;
use gradus_core::{Result, Scalar, Tensor};

/// Stochastic gradient descent: b ← μ·b + (1 − dampening)·g; p ← p − η·b, with g the gradient and the L2 penalty's.
///
/// The first b is g itself. With Nesterov's momentum, p ← p − η·(g + μ·b). Without momentum (the default) there is no b.
/// State: `momentum_buffer`. Source: Sutskever et al., *On the importance of initialization and momentum in deep learning*
/// (2013), in PyTorch's form, in which a change of η acts at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    learning_rate: f64,
    momentum: f64,
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
    maximize: bool,
}

impl Sgd {
    /// Plain descent at this learning rate.
    pub fn new(learning_rate: f64) -> Sgd {
        Sgd { learning_rate, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false, maximize: false }
    }
    /// μ: how much of the buffer stays at each step; 0 without momentum.
    pub fn momentum(self, momentum: f64) -> Sgd {
        Sgd { momentum, ..self }
    }
    /// How much less than the whole gradient the buffer takes from the second step on.
    pub fn dampening(self, dampening: f64) -> Sgd {
        Sgd { dampening, ..self }
    }
    /// λ: λ·p is added to the gradient.
    pub fn weight_decay(self, weight_decay: f64) -> Sgd {
        Sgd { weight_decay, ..self }
    }
    /// Looks ahead along the buffer. Needs momentum, and no dampening.
    pub fn nesterov(self) -> Sgd {
        Sgd { nesterov: true, ..self }
    }
    /// Climbs instead of descending.
    pub fn maximize(self) -> Sgd {
        Sgd { maximize: true, ..self }
    }
}

impl Rule for Sgd {
    fn name(&self) -> &'static str {
        "Sgd"
    }
    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        if self.momentum != 0.0 { &["momentum_buffer"] } else { &[] }
    }
    fn check(&self) -> Result<()> {
        demand_size(self.name(), "momentum", self.momentum)?;
        demand(self.dampening.is_finite(), self.name(), "dampening", "finite", self.dampening)?;
        if self.nesterov {
            demand(self.momentum > 0.0, self.name(), "momentum", "above 0 for Nesterov's", self.momentum)?;
            demand(self.dampening == 0.0, self.name(), "dampening", "0 for Nesterov's momentum", self.dampening)?;
        }
        Ok(())
    }
    fn takes_factor(&self) -> bool {
        true
    }
    fn numbers(&self, at: &At) -> Numbers {
        let gain = if at.step <= 1 { 1.0 } else { 1.0 - self.dampening };
        Numbers::from_slice(&[at.learning_rate, at.momentum.unwrap_or(self.momentum), gain])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let [learning_rate, momentum, gain] = call.numbers else { return Err(miscounted(self.name())) };
        let x = call.inputs();
        // Without a buffer the momentum's numbers are unused: their cells need no holder more.
        let mut op = SgdUpdate {
            learning_rate: learning_rate.clone(),
            momentum: Scalar::Int(0),
            gain: Scalar::Int(1),
            weight_decay: call.weight_decay,
            nesterov: self.nesterov,
            maximize: self.maximize,
        };
        match call.state {
            [buffer] => {
                (op.momentum, op.gain) = (momentum.clone(), gain.clone());
                Tensor::update(&op, &mut [call.param, buffer], &x)
            }
            _ => Tensor::update(&op, &mut [call.param], &x),
        }
    }
}
