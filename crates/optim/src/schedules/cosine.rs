//! Cosine annealing, with a warm-up before it.

use crate::demand::{demand, demand_size};
use crate::schedules::{Schedule, demand_steps, half_cosine, rising, start};
use gradus_core::Result;

/// A linear rise to the base rate, then half a cosine down to a lowest rate, which stays.
///
/// At step s ≥ w of `total`: low + (base − low)·(1 + cos(π·(s − w)/(total − w)))/2, with w the steps of warm-up; for the rise
/// see [`Warmup`](crate::Warmup). Source: Loshchilov & Hutter, *SGDR* (2017), without restarts. In PyTorch:
/// `CosineAnnealingLR`, which turns round at the end ([`returning`](Cosine::returning)) where this one stays, after `LinearLR`.
///
/// ```
/// use gradus_optim::{Cosine, Schedule};
/// let schedule = Cosine::warmup(100, 2_000);
/// assert_eq!(schedule.learning_rate(0.1, 100), 0.1);
/// assert_eq!(schedule.learning_rate(0.1, 2_000), 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    warmup: u64,
    total: u64,
    from: f64,
    low: f64,
    returns: bool,
}

impl Cosine {
    /// From the base rate down to 0 over `total` steps.
    pub fn new(total: u64) -> Cosine {
        Cosine::warmup(0, total)
    }
    /// Up to the base rate in `steps` steps, and down to 0 until step `total`, the warm-up's included.
    pub fn warmup(steps: u64, total: u64) -> Cosine {
        Cosine { warmup: steps, total, from: start(steps), low: 0.0, returns: false }
    }
    /// The part of the base rate at which the warm-up begins; 1/(steps + 1) unless set.
    pub fn from(self, from: f64) -> Cosine {
        Cosine { from, ..self }
    }
    /// Turns round at the end, and goes on along the cosine, up and down.
    pub fn returning(self) -> Cosine {
        Cosine { returns: true, ..self }
    }
    /// The rate to end at; 0 unless set.
    pub fn low(self, low: f64) -> Cosine {
        Cosine { low, ..self }
    }
}

impl Schedule for Cosine {
    fn name(&self) -> &'static str {
        "Cosine"
    }
    fn check(&self) -> Result<()> {
        demand_steps(self.name(), "the total of steps", self.total)?;
        demand(
            self.warmup < self.total,
            self.name(),
            "the warm-up",
            "shorter than the total of steps",
            self.warmup as f64,
        )?;
        demand_size(self.name(), "the part of the base rate to begin with", self.from)?;
        demand_size(self.name(), "the rate to end at", self.low)
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        match step.checked_sub(self.warmup) {
            None => base * rising(self.from, step, self.warmup),
            Some(_) if step >= self.total && !self.returns => self.low,
            Some(s) => half_cosine(base, self.low, s as f64 / (self.total - self.warmup) as f64),
        }
    }
}
