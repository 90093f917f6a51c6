//! RMSprop, as PyTorch's `torch.optim.RMSprop` has it.

use super::{descend, miscounted, operands, plus, settings, squares, store, times, told, towards};
use crate::demand::{demand, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::{Result, Tensor};

/// Steps divided by a running root mean square: v ← α·v + (1 − α)·g²; p ← p − η·g / (√v + ε).
///
/// Centred, √(v − a²) stands for √v, with a ← α·a + (1 − α)·g. With momentum μ: b ← μ·b + g/(√v + ε); p ← p − η·b. State:
/// `square_avg` (v), and where they are used `momentum_buffer` (b) and `grad_avg` (a). Source: Hinton, *Neural networks for
/// machine learning*, lecture 6 (2012); centred: Graves, *Generating sequences with recurrent neural networks* (2013); in
/// PyTorch's form. Its defaults: η 1e-2, α 0.99, ε 1e-8, μ 0, λ 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    learning_rate: f64,
    alpha: f64,
    eps: f64,
    weight_decay: f64,
    momentum: f64,
    centered: bool,
    maximize: bool,
}

impl RmsProp {
    /// The rule at this learning rate, with PyTorch's defaults for the rest.
    pub fn new(learning_rate: f64) -> RmsProp {
        let (alpha, eps) = (0.99, 1e-8);
        RmsProp { learning_rate, alpha, eps, weight_decay: 0.0, momentum: 0.0, centered: false, maximize: false }
    }
}

settings! { RmsProp {
    /// α: how much of the averages stays at each step; 0.99.
    alpha: f64;
    /// ε: added to the denominator; 1e-8.
    eps: f64;
    /// λ: λ·p is added to the gradient; 0.
    weight_decay: f64;
    /// μ: how much of the buffer stays at each step; 0 without momentum.
    momentum: f64;
    /// Divides by the standard deviation in place of the root mean square.
    flag centered;
    /// Climbs instead of descending.
    flag maximize;
} }

impl Rule for RmsProp {
    told!("RmsProp");
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        match (self.momentum > 0.0, self.centered) {
            (false, false) => &["square_avg"],
            (true, false) => &["square_avg", "momentum_buffer"],
            (false, true) => &["square_avg", "grad_avg"],
            (true, true) => &["square_avg", "momentum_buffer", "grad_avg"],
        }
    }
    fn check(&self) -> Result<()> {
        demand((0.0..=1.0).contains(&self.alpha), self.name(), "alpha", "between 0 and 1", self.alpha)?;
        demand_size(self.name(), "eps", self.eps)?;
        demand_size(self.name(), "momentum", self.momentum)
    }
    /// η, μ.
    fn numbers(&self, at: &At) -> Numbers {
        Numbers::from_slice(&[at.learning_rate, at.momentum.unwrap_or(self.momentum)])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let (p, g) = operands(&call, self.maximize, false)?;
        let ([rate, momentum], [v, rest @ ..]) = (call.numbers, call.state) else {
            return Err(miscounted(self.name()));
        };
        let (buffer, average) = match (rest, self.momentum > 0.0, self.centered) {
            ([], false, false) => (None, None),
            ([b], true, false) => (Some(b), None),
            ([a], false, true) => (None, Some(a)),
            ([b, a], true, true) => (Some(b), Some(a)),
            _ => return Err(miscounted(self.name())),
        };
        store(v, &squares(v, &g, self.alpha)?)?;
        let square = match average {
            Some(a) => {
                store(a, &towards(a, &g, 1.0 - self.alpha)?)?;
                v.try_sub(&a.try_square()?)?
            }
            None => v.detach(),
        };
        let mut step = g.try_div(&plus(&square.try_sqrt()?, self.eps)?)?;
        if let Some(b) = buffer {
            store(b, &times(b, momentum)?.try_add(&step)?)?;
            step = b.detach();
        }
        descend(call.param, p, &times(&step, rate)?)
    }
}
