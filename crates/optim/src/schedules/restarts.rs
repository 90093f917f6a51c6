//! Cosine annealing that starts again and again.

use super::{Schedule, demand_steps, half_cosine};
use crate::demand::demand_size;
use gradus_core::Result;

/// Half a cosine from the base rate to a lowest one, and again from the base rate, each time over `growth` times as many steps.
///
/// Source: Loshchilov & Hutter, *SGDR: stochastic gradient descent with warm restarts* (2017). In PyTorch:
/// `CosineAnnealingWarmRestarts`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineRestarts {
    first: u64,
    growth: u64,
    low: f64,
}

impl CosineRestarts {
    /// Restarts after each `first` steps.
    pub fn new(first: u64) -> CosineRestarts {
        CosineRestarts { first, growth: 1, low: 0.0 }
    }
    /// By how much the time to the next restart grows at each; 1 unless set.
    pub fn growth(self, growth: u64) -> CosineRestarts {
        CosineRestarts { growth, ..self }
    }
    /// The rate before a restart; 0 unless set.
    pub fn low(self, low: f64) -> CosineRestarts {
        CosineRestarts { low, ..self }
    }
    /// How many steps ago the last restart was before this step, and how many it is from that one to the next.
    fn place(&self, step: u64) -> (u64, u64) {
        let (first, growth) = (self.first.max(1), self.growth.max(1));
        if growth == 1 {
            return (step % first, first);
        }
        let (mut since, mut length) = (step, first);
        while since >= length {
            since -= length;
            length = length.saturating_mul(growth);
        }
        (since, length)
    }
}

impl Schedule for CosineRestarts {
    fn name(&self) -> &'static str {
        "CosineRestarts"
    }
    fn check(&self) -> Result<()> {
        demand_steps(self.name(), "the steps to the first restart", self.first)?;
        demand_steps(self.name(), "the growth", self.growth)?;
        demand_size(self.name(), "the lowest rate", self.low)
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        let (since, length) = self.place(step);
        half_cosine(base, self.low, since as f64 / length as f64)
    }
}
