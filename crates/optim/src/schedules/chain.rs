//! Schedules made of schedules, and of factors of one's own.

use super::Schedule;
use crate::demand::demand;
use gradus_core::{Error, Result};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// One schedule after another, each for its time; the last stays. Each counts its steps from its own beginning. In PyTorch:
/// `SequentialLR`.
///
/// ```
/// use gradus_optim::{Cosine, LinearRamp, Schedule, SequentialSchedule};
/// let schedule = SequentialSchedule::new(LinearRamp::new(0.01, 1.0, 10)).then(10, Cosine::new(90));
/// assert_eq!(schedule.learning_rate(0.1, 0), 0.001);
/// assert_eq!(schedule.learning_rate(0.1, 10), 0.1);
/// ```
#[derive(Debug)]
pub struct SequentialSchedule {
    /// Schedules, and the steps at which they begin.
    parts: Vec<(u64, Box<dyn Schedule>)>,
}

impl SequentialSchedule {
    /// Begins with this schedule.
    pub fn new(first: impl Schedule) -> SequentialSchedule {
        SequentialSchedule { parts: vec![(0, Box::new(first))] }
    }
    /// Another schedule from step `from` on, which must be later than the one before it.
    pub fn then(mut self, from: u64, schedule: impl Schedule) -> SequentialSchedule {
        self.parts.push((from, Box::new(schedule)));
        self
    }
    fn at(&self, step: u64) -> (&dyn Schedule, u64) {
        let begun = self.parts.partition_point(|(from, _)| *from <= step).max(1);
        let (from, schedule) = &self.parts[begun - 1];
        (&**schedule, step - from)
    }
}

impl Schedule for SequentialSchedule {
    fn name(&self) -> &'static str {
        "SequentialSchedule"
    }
    fn check(&self) -> Result<()> {
        for pair in self.parts.windows(2) {
            let (before, after) = (pair[0].0, pair[1].0);
            let must = format!("after the one before it, at {before}");
            demand(after > before, self.name(), "a schedule's first step", &must, after as f64)?;
        }
        self.parts.iter().try_for_each(|(_, s)| s.check())
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        let (schedule, step) = self.at(step);
        schedule.learning_rate(base, step)
    }
    fn momentum(&self, step: u64) -> Option<f64> {
        let (schedule, step) = self.at(step);
        schedule.momentum(step)
    }
}

/// Several schedules at once: each is given the rate that the one before it gives. In PyTorch: `ChainedScheduler`, for schedules
/// that multiply the rate.
#[derive(Debug)]
pub struct ChainedSchedule {
    parts: Vec<Box<dyn Schedule>>,
}

impl ChainedSchedule {
    /// Begins with this schedule.
    pub fn new(first: impl Schedule) -> ChainedSchedule {
        ChainedSchedule { parts: vec![Box::new(first)] }
    }
    /// Changes the rate by another schedule too.
    pub fn and(mut self, schedule: impl Schedule) -> ChainedSchedule {
        self.parts.push(Box::new(schedule));
        self
    }
}

impl Schedule for ChainedSchedule {
    fn name(&self) -> &'static str {
        "ChainedSchedule"
    }
    fn check(&self) -> Result<()> {
        self.parts.iter().try_for_each(|s| s.check())
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        self.parts.iter().fold(base, |rate, s| s.learning_rate(rate, step))
    }
    fn momentum(&self, step: u64) -> Option<f64> {
        self.parts.iter().rev().find_map(|s| s.momentum(step))
    }
}

/// base · f(1) · f(2) ⋯ f(step), with a function of one's own. In PyTorch: `MultiplicativeLR`.
#[derive(Clone)]
pub struct Multiplicative {
    factor: Arc<dyn Fn(u64) -> f64 + Send + Sync>,
    /// The last step that was asked for, and the product up to it.
    last: Arc<Mutex<(u64, f64)>>,
}

impl Multiplicative {
    /// Multiplies the rate with `factor(step)` at each step from 1 on. It must be a pure function.
    pub fn new(factor: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Multiplicative {
        Multiplicative { factor: Arc::new(factor), last: Arc::new(Mutex::new((0, 1.0))) }
    }
}

impl fmt::Debug for Multiplicative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Multiplicative(..)")
    }
}

impl Schedule for Multiplicative {
    fn name(&self) -> &'static str {
        "Multiplicative"
    }
    fn check(&self) -> Result<()> {
        let first = (self.factor)(1);
        if first.is_finite() {
            Ok(())
        } else {
            Err(Error::misuse(format!("Multiplicative: the factor of step 1 is {first}")))
        }
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        // Steps are asked for in order, mostly: the product goes on from the last. It only saves time, and changes no bit.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, product) = if last.0 <= step { *last } else { (0, 1.0) };
        let product = (from + 1..=step).fold(product, |p, s| p * (self.factor)(s));
        *last = (step, product);
        base * product
    }
}
