//! Adadelta, as PyTorch's `torch.optim.Adadelta` has it.

use super::{descend, miscounted, operands, plus, settings, squares, store, times, told};
use crate::demand::{demand, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::{Result, Tensor};

/// Steps in the units of the parameters: v ← ρ·v + (1 − ρ)·g²; δ = g·√(u + ε)/√(v + ε); u ← ρ·u + (1 − ρ)·δ²; p ← p − η·δ.
///
/// State: `square_avg` (v) and `acc_delta` (u). Source: Zeiler, *ADADELTA: an adaptive learning rate method* (2012), in PyTorch's
/// form. Its defaults: η 1, ρ 0.9, ε 1e-6, λ 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adadelta {
    learning_rate: f64,
    rho: f64,
    eps: f64,
    weight_decay: f64,
    maximize: bool,
}

impl Adadelta {
    /// The rule at this learning rate (PyTorch's default is 1), with PyTorch's defaults for the rest.
    pub fn new(learning_rate: f64) -> Adadelta {
        Adadelta { learning_rate, rho: 0.9, eps: 1e-6, weight_decay: 0.0, maximize: false }
    }
}

settings! { Adadelta {
    /// ρ: how much of the averages stays at each step; 0.9.
    rho: f64;
    /// ε: added to the squares; 1e-6.
    eps: f64;
    /// λ: λ·p is added to the gradient; 0.
    weight_decay: f64;
    /// Climbs instead of descending.
    flag maximize;
} }

impl Rule for Adadelta {
    told!("Adadelta");
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["square_avg", "acc_delta"]
    }
    fn check(&self) -> Result<()> {
        demand((0.0..=1.0).contains(&self.rho), self.name(), "rho", "between 0 and 1", self.rho)?;
        demand_size(self.name(), "eps", self.eps)
    }
    /// η.
    fn numbers(&self, at: &At) -> Numbers {
        Numbers::from_slice(&[at.learning_rate])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let (p, g) = operands(&call, self.maximize, false)?;
        let ([rate], [v, u]) = (call.numbers, call.state) else { return Err(miscounted(self.name())) };
        store(v, &squares(v, &g, self.rho)?)?;
        let root = |x: &Tensor| plus(x, self.eps)?.try_sqrt();
        let delta = root(u)?.try_div(&root(v)?)?.try_mul(&g)?;
        store(u, &squares(u, &delta, self.rho)?)?;
        descend(call.param, p, &times(&delta, rate)?)
    }
}
