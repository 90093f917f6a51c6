//! How the learning rate goes on: the [`Schedule`] trait, and its simple forms.
//!
//! A schedule is a pure function of the number of steps done, so it has no state of its own: the optimizer's count of steps
//! is all that a checkpoint needs. It is given the base rate (the rule's, times the group's factor) and changes it.

mod chain;
mod cosine;
mod cyclic;
mod decay;
mod one_cycle;
mod plateau;
mod restarts;

pub use chain::{ChainedSchedule, Multiplicative, SequentialSchedule};
pub use cosine::Cosine;
pub use cyclic::Cyclic;
pub use decay::{ConstantFactor, LinearRamp, MultiStep, Polynomial};
pub use one_cycle::OneCycle;
pub use plateau::Plateau;
pub use restarts::CosineRestarts;

use crate::demand::{demand, demand_positive, demand_size};
use gradus_core::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// The learning rate, and perhaps the momentum, of each step.
pub trait Schedule: fmt::Debug + Send + Sync + 'static {
    /// Its name, for messages.
    fn name(&self) -> &'static str;
    /// An error that names the setting and its value if one is out of range.
    fn check(&self) -> Result<()> {
        Ok(())
    }
    /// The learning rate of the update that `step` updates went before: 0 at the first.
    fn learning_rate(&self, base: f64, step: u64) -> f64;
    /// The momentum (Adam: β₁) of that update, if the schedule cycles it. Rules without momentum stay without.
    fn momentum(&self, _step: u64) -> Option<f64> {
        None
    }
}

impl Schedule for Box<dyn Schedule> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn check(&self) -> Result<()> {
        (**self).check()
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        (**self).learning_rate(base, step)
    }
    fn momentum(&self, step: u64) -> Option<f64> {
        (**self).momentum(step)
    }
}

/// The base rate throughout.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Constant;

impl Schedule for Constant {
    fn name(&self) -> &'static str {
        "Constant"
    }
    fn learning_rate(&self, base: f64, _step: u64) -> f64 {
        base
    }
}

/// base · gamma^⌊step / every⌋. In PyTorch: `StepLR`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepDecay {
    every: u64,
    gamma: f64,
}

impl StepDecay {
    /// Multiplies the rate with `gamma` after each `every` steps.
    pub fn new(every: u64, gamma: f64) -> StepDecay {
        StepDecay { every, gamma }
    }
}

impl Schedule for StepDecay {
    fn name(&self) -> &'static str {
        "StepDecay"
    }
    fn check(&self) -> Result<()> {
        demand(self.every > 0, self.name(), "every", "at least 1 step", self.every as f64)?;
        demand_size(self.name(), "gamma", self.gamma)
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        base * self.gamma.powf((step / self.every.max(1)) as f64)
    }
}

/// base · gamma^step. In PyTorch: `ExponentialLR`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponential {
    gamma: f64,
}

impl Exponential {
    /// Multiplies the rate with `gamma` after each step.
    pub fn new(gamma: f64) -> Exponential {
        Exponential { gamma }
    }
}

impl Schedule for Exponential {
    fn name(&self) -> &'static str {
        "Exponential"
    }
    fn check(&self) -> Result<()> {
        demand_size(self.name(), "gamma", self.gamma)
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        base * self.gamma.powf(step as f64)
    }
}

/// A linear rise to the base rate, and then another schedule, whose steps count from the end of the rise.
///
/// At step s of n: base · (from + (1 − from)·s/n). `from` is 1/(n + 1) unless set, so that the steps are even and none is
/// wasted at rate 0. In PyTorch: `LinearLR`, or `SequentialLR` of one and the schedule that follows.
#[derive(Debug)]
pub struct Warmup {
    steps: u64,
    from: f64,
    then: Box<dyn Schedule>,
}

impl Warmup {
    /// A rise over so many steps, and the base rate from then on.
    pub fn new(steps: u64) -> Warmup {
        Warmup { steps, from: start(steps), then: Box::new(Constant) }
    }
    /// The part of the base rate to begin with.
    pub fn from(self, from: f64) -> Warmup {
        Warmup { from, ..self }
    }
    /// What follows the rise.
    pub fn then(self, schedule: impl Schedule) -> Warmup {
        Warmup { then: Box::new(schedule), ..self }
    }
}

impl Schedule for Warmup {
    fn name(&self) -> &'static str {
        "Warmup"
    }
    fn check(&self) -> Result<()> {
        demand_size(self.name(), "the part of the base rate to begin with", self.from)?;
        self.then.check()
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        match step.checked_sub(self.steps) {
            Some(step) => self.then.learning_rate(base, step),
            None => base * rising(self.from, step, self.steps),
        }
    }
    fn momentum(&self, step: u64) -> Option<f64> {
        self.then.momentum(step.saturating_sub(self.steps))
    }
}

/// The part of the base rate at which an even rise over so many steps begins.
pub(crate) fn start(steps: u64) -> f64 {
    1.0 / (steps as f64 + 1.0)
}

/// The part of the base rate at step `s` of a rise over `n`.
pub(crate) fn rising(from: f64, s: u64, n: u64) -> f64 {
    from + (1.0 - from) * (s as f64 / n as f64)
}

/// base · f(step), with a function of one's own. In PyTorch: `LambdaLR`.
#[derive(Clone)]
pub struct Lambda(Arc<dyn Fn(u64) -> f64 + Send + Sync>);

impl Lambda {
    /// Multiplies the base rate with `factor(step)`, which must be finite and not negative: a step at which it is not is
    /// refused.
    pub fn new(factor: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Lambda {
        Lambda(Arc::new(factor))
    }
}

impl fmt::Debug for Lambda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lambda(..)")
    }
}

impl Schedule for Lambda {
    fn name(&self) -> &'static str {
        "Lambda"
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        base * (self.0)(step)
    }
}

/// A rate that an update can use, or an error that names the schedule and the step.
pub(crate) fn demand_rate(schedule: &dyn Schedule, rate: f64, step: u64) -> Result<f64> {
    if rate.is_finite() && rate >= 0.0 {
        return Ok(rate);
    }
    let name = schedule.name();
    Err(Error::misuse(format!("{name}: the learning rate must be finite and at least 0; at step {step} it is {rate}")))
}

/// Linear interpolation by a half cosine: `from` at `part` 0, `to` at 1.
pub(crate) fn half_cosine(from: f64, to: f64, part: f64) -> f64 {
    to + (from - to) / 2.0 * ((std::f64::consts::PI * part).cos() + 1.0)
}

/// As `demand_positive`, for a count of steps.
pub(crate) fn demand_steps(owner: &str, number: &str, steps: u64) -> Result<()> {
    demand_positive(owner, number, steps as f64)
}
