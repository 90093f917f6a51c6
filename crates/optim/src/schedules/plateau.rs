//! A learning rate that falls when a measured value stops improving.

use crate::demand::{demand, demand_size};
use crate::optimizer::Optimizer;
use gradus_core::{Error, Result};
use std::collections::BTreeMap;

/// Multiplies an optimizer's base rate with a factor when a value has not improved for some time. In PyTorch:
/// `ReduceLROnPlateau`.
///
/// It is no [`Schedule`](crate::Schedule), because it needs to be told what was measured; the rate that it sets is what a
/// schedule goes on from. Its own state is a few numbers ([`state`](Self::state)).
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::Param;
/// use gradus_optim::{Plateau, Rule, Sgd};
/// let model = vec![Param::new(Tensor::ones([1], gradus_cpu::device()))];
/// let mut optimizer = Sgd::new(0.1).optimizer().build(&model)?;
/// let mut plateau = Plateau::lower().patience(1).factor(0.5);
/// for loss in [1.0, 0.9, 0.9, 0.9] {
///     plateau.observe(loss, &mut optimizer)?;
/// }
/// assert_eq!(optimizer.learning_rate(), 0.05);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plateau {
    higher: bool,
    factor: f64,
    patience: u64,
    threshold: f64,
    absolute: bool,
    cooldown: u64,
    low: f64,
    eps: f64,
    best: f64,
    bad: u64,
    cooling: u64,
}

impl Plateau {
    /// Waits for lower values, with PyTorch's defaults: factor 0.1 after 10 without an improvement by 1e-4 of the best.
    pub fn lower() -> Plateau {
        Plateau {
            higher: false,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            absolute: false,
            cooldown: 0,
            low: 0.0,
            eps: 1e-8,
            best: f64::INFINITY,
            bad: 0,
            cooling: 0,
        }
    }
    /// Waits for higher values.
    pub fn higher() -> Plateau {
        Plateau { higher: true, best: f64::NEG_INFINITY, ..Plateau::lower() }
    }
    /// What the rate is multiplied with; 0.1.
    pub fn factor(self, factor: f64) -> Plateau {
        Plateau { factor, ..self }
    }
    /// How many values in a row need not improve; 10.
    pub fn patience(self, patience: u64) -> Plateau {
        Plateau { patience, ..self }
    }
    /// The part of the best value by which another must be better; 1e-4.
    pub fn threshold(self, threshold: f64) -> Plateau {
        Plateau { threshold, absolute: false, ..self }
    }
    /// By how much a value must be better than the best. In PyTorch: `threshold_mode="abs"`.
    pub fn absolute_threshold(self, threshold: f64) -> Plateau {
        Plateau { threshold, absolute: true, ..self }
    }
    /// How many values are not counted after the rate has fallen; 0.
    pub fn cooldown(self, cooldown: u64) -> Plateau {
        Plateau { cooldown, ..self }
    }
    /// The lowest rate; 0.
    pub fn low(self, low: f64) -> Plateau {
        Plateau { low, ..self }
    }

    /// Takes a measured value into account. Says whether the optimizer's rate has fallen.
    pub fn observe(&mut self, value: f64, optimizer: &mut Optimizer) -> Result<bool> {
        self.check()?;
        if value.is_nan() {
            return Err(Error::data("Plateau: the value is NaN"));
        }
        let improved = match (self.higher, self.absolute) {
            (false, false) => value < self.best * (1.0 - self.threshold),
            (false, true) => value < self.best - self.threshold,
            (true, false) => value > self.best * (1.0 + self.threshold),
            (true, true) => value > self.best + self.threshold,
        };
        if improved {
            (self.best, self.bad) = (value, 0);
        } else {
            self.bad += 1;
        }
        if self.cooling > 0 {
            (self.cooling, self.bad) = (self.cooling - 1, 0);
        }
        if self.bad <= self.patience {
            return Ok(false);
        }
        (self.cooling, self.bad) = (self.cooldown, 0);
        let old = optimizer.base;
        let new = (old * self.factor).max(self.low);
        let falls = old - new > self.eps;
        if falls {
            optimizer.set_learning_rate(new)?;
        }
        Ok(falls)
    }

    fn check(&self) -> Result<()> {
        let name = "Plateau";
        demand((0.0..1.0).contains(&self.factor), name, "the factor", "at least 0 and less than 1", self.factor)?;
        demand_size(name, "the threshold", self.threshold)?;
        demand_size(name, "the lowest rate", self.low)
    }

    /// What it must remember to go on: `best`, `bad`, `cooling`. The best value is infinite before the first.
    pub fn state(&self) -> BTreeMap<String, f64> {
        let all = [("best", self.best), ("bad", self.bad as f64), ("cooling", self.cooling as f64)];
        all.into_iter().map(|(name, x)| (name.to_owned(), x)).collect()
    }
    /// Takes back what [`state`](Self::state) gave. An error, and nothing changed, if something is missing.
    pub fn load_state(&mut self, state: &BTreeMap<String, f64>) -> Result<()> {
        let get = |name: &str| {
            let missing = || Error::data(format!("Plateau: the state has no number called {name}"));
            state.get(name).copied().ok_or_else(missing)
        };
        let (best, bad, cooling) = (get("best")?, get("bad")?, get("cooling")?);
        (self.best, self.bad, self.cooling) = (best, bad as u64, cooling as u64);
        Ok(())
    }
}
