//! Cyclical learning rates, by the formulas of PyTorch's `CyclicLR`.

use super::{Schedule, demand_steps};
use crate::demand::{demand, demand_size};
use gradus_core::Result;

/// How the height of a cycle changes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Height {
    Same,
    Halved,
    Falling(f64),
}

/// Straight lines from a low rate to the base rate and back, again and again, with the momentum going the other way if asked for.
///
/// Source: Smith, *Cyclical learning rates for training neural networks* (2017). In PyTorch: `CyclicLR`, whose `max_lr` is the
/// base rate here, and whose momentum cycles unless told not to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cyclic {
    low: f64,
    up: u64,
    down: u64,
    height: Height,
    momentum: Option<(f64, f64)>,
}

impl Cyclic {
    /// From the rate `low` up to the base rate in so many steps, and down again in as many. In PyTorch: `mode="triangular"`.
    pub fn new(low: f64, up: u64) -> Cyclic {
        Cyclic { low, up, down: up, height: Height::Same, momentum: None }
    }
    /// The steps on the way down, if they are not those on the way up.
    pub fn down(self, down: u64) -> Cyclic {
        Cyclic { down, ..self }
    }
    /// Each cycle is half as high as the one before. In PyTorch: `mode="triangular2"`.
    pub fn halved(self) -> Cyclic {
        Cyclic { height: Height::Halved, ..self }
    }
    /// The height is multiplied with `gamma` at each step. In PyTorch: `mode="exp_range"`.
    pub fn falling(self, gamma: f64) -> Cyclic {
        Cyclic { height: Height::Falling(gamma), ..self }
    }
    /// Cycles the momentum (Adam: β₁) too: from `high` down to `low`, which is met at the highest rate.
    pub fn momentum(self, low: f64, high: f64) -> Cyclic {
        Cyclic { momentum: Some((low, high)), ..self }
    }
    /// How far up a step is, from 0 to 1.
    fn at(&self, step: u64) -> f64 {
        let total = (self.up + self.down).max(1) as f64;
        let cycles = step as f64 / total;
        let cycle = (1.0 + cycles).floor();
        let (part, rise) = (1.0 + cycles - cycle, self.up as f64 / total);
        let way = if part <= rise { part / rise } else { (part - 1.0) / (rise - 1.0) };
        way * match self.height {
            Height::Same => 1.0,
            Height::Halved => 0.5f64.powf(cycle - 1.0),
            Height::Falling(gamma) => gamma.powf(step as f64),
        }
    }
}

impl Schedule for Cyclic {
    fn name(&self) -> &'static str {
        "Cyclic"
    }
    fn check(&self) -> Result<()> {
        demand_size(self.name(), "the lowest rate", self.low)?;
        demand_steps(self.name(), "the steps on the way up", self.up)?;
        demand_steps(self.name(), "the steps on the way down", self.down)?;
        if let Height::Falling(gamma) = self.height {
            demand((0.0..=1.0).contains(&gamma), self.name(), "gamma", "between 0 and 1", gamma)?;
        }
        for m in self.momentum.iter().flat_map(|&(low, high)| [low, high]) {
            demand((0.0..1.0).contains(&m), self.name(), "a momentum", "at least 0 and less than 1", m)?;
        }
        Ok(())
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        self.low + (base - self.low) * self.at(step)
    }
    fn momentum(&self, step: u64) -> Option<f64> {
        self.momentum.map(|(low, high)| high - (high - low) * self.at(step))
    }
}
