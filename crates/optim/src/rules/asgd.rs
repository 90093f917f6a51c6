//! Averaged stochastic gradient descent, as PyTorch's `torch.optim.ASGD` has it.

use super::{miscounted, operands, settings, store, times, told};
use crate::demand::demand_size;
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::{Result, Tensor};

/// Descent with a falling rate, and the average of the weights on the way: p ← (1 − Λ·ηₜ)·p − ηₜ·g; a ← a + μₜ·(p − a).
///
/// ηₜ = η/(1 + Λ·η·(t − 1))^α and μₜ = 1/max(1, t − 1 − t₀), so that a is p itself until step t₀. The average is what
/// [`Optimizer::evaluation_weights`](crate::Optimizer::evaluation_weights) gives. State: `ax` (a). (PyTorch keeps ηₜ and μₜ too,
/// which are functions of the step; a schedule's change of η acts here at once, there one step later.) Source: Polyak & Juditsky,
/// *Acceleration of stochastic approximation by averaging* (1992), in the form of Bottou's programs and PyTorch. Its defaults: η
/// 1e-2, Λ 1e-4, α 0.75, t₀ 10⁶, λ 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asgd {
    learning_rate: f64,
    lambd: f64,
    alpha: f64,
    t0: f64,
    weight_decay: f64,
    maximize: bool,
}

impl Asgd {
    /// The rule at this learning rate, with PyTorch's defaults for the rest.
    pub fn new(learning_rate: f64) -> Asgd {
        Asgd { learning_rate, lambd: 1e-4, alpha: 0.75, t0: 1e6, weight_decay: 0.0, maximize: false }
    }
}

settings! { Asgd {
    /// Λ: how fast weights and learning rate fall; 1e-4.
    lambd: f64;
    /// α: the power by which the learning rate falls; 0.75.
    alpha: f64;
    /// t₀: the step at which averaging begins; 10⁶.
    t0: f64;
    /// λ: λ·p is added to the gradient; 0.
    weight_decay: f64;
    /// Climbs instead of descending.
    flag maximize;
} }

impl Rule for Asgd {
    told!("Asgd");
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["ax"]
    }
    fn check(&self) -> Result<()> {
        demand_size(self.name(), "lambd", self.lambd)?;
        demand_size(self.name(), "alpha", self.alpha)?;
        demand_size(self.name(), "t0", self.t0)
    }
    /// ηₜ, 1 − Λ·ηₜ, μₜ, 1 − μₜ.
    fn numbers(&self, at: &At) -> Numbers {
        let (eta, before) = (at.learning_rate, at.step as f64 - 1.0);
        let eta = eta / (1.0 + self.lambd * eta * before).powf(self.alpha);
        let mu = 1.0 / (before - self.t0).max(1.0);
        Numbers::from_slice(&[eta, 1.0 - self.lambd * eta, mu, 1.0 - mu])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let (mut p, g) = operands(&call, self.maximize, false)?;
        let ([eta, decay, mu, stays], [average]) = (call.numbers, call.state) else {
            return Err(miscounted(self.name()));
        };
        p = times(&p, decay)?.try_sub(&times(&g, eta)?)?;
        // In this form the average is p to the bit while μ is 1.
        store(average, &times(average, stays)?.try_add(&times(&p, mu)?)?)?;
        store(call.param, &p)
    }
    fn evaluation_value(&self, _param: &Tensor, state: &[Tensor]) -> Result<Option<Tensor>> {
        Ok(state.first().map(Tensor::detach))
    }
}
