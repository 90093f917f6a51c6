//! Rates that change once, at given steps, or along a line or a power.

use super::{Schedule, demand_steps};
use crate::demand::{demand, demand_size};
use gradus_core::Result;

/// base · gamma^(how many of the milestones have passed). In PyTorch: `MultiStepLR`.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiStep {
    milestones: Vec<u64>,
    gamma: f64,
}

impl MultiStep {
    /// Multiplies the rate with `gamma` at each of these steps, in any order; at a step that is named twice, twice.
    pub fn new(milestones: impl Into<Vec<u64>>, gamma: f64) -> MultiStep {
        let mut milestones = milestones.into();
        milestones.sort_unstable();
        MultiStep { milestones, gamma }
    }
}

impl Schedule for MultiStep {
    fn name(&self) -> &'static str {
        "MultiStep"
    }
    fn check(&self) -> Result<()> {
        demand_size(self.name(), "gamma", self.gamma)
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        let passed = self.milestones.partition_point(|&m| m <= step);
        base * self.gamma.powf(passed as f64)
    }
}

/// A part of the base rate for the first steps, and the base rate from then on. In PyTorch: `ConstantLR`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConstantFactor {
    factor: f64,
    steps: u64,
}

impl ConstantFactor {
    /// base · factor for so many steps.
    pub fn new(factor: f64, steps: u64) -> ConstantFactor {
        ConstantFactor { factor, steps }
    }
}

impl Schedule for ConstantFactor {
    fn name(&self) -> &'static str {
        "ConstantFactor"
    }
    fn check(&self) -> Result<()> {
        demand_size(self.name(), "the factor", self.factor)
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        if step < self.steps { base * self.factor } else { base }
    }
}

/// A straight line from one part of the base rate to another, which stays: base · (from + (to − from)·min(s, n)/n). In PyTorch:
/// `LinearLR`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearRamp {
    from: f64,
    to: f64,
    steps: u64,
}

impl LinearRamp {
    /// From `from` to `to`, in parts of the base rate, over so many steps.
    pub fn new(from: f64, to: f64, steps: u64) -> LinearRamp {
        LinearRamp { from, to, steps }
    }
}

impl Schedule for LinearRamp {
    fn name(&self) -> &'static str {
        "LinearRamp"
    }
    fn check(&self) -> Result<()> {
        demand_steps(self.name(), "the number of steps", self.steps)?;
        demand_size(self.name(), "the part of the base rate to begin with", self.from)?;
        demand_size(self.name(), "the part of the base rate to end at", self.to)
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        let part = step.min(self.steps) as f64 / self.steps.max(1) as f64;
        base * (self.from + (self.to - self.from) * part)
    }
}

/// base · (1 − min(s, n)/n)^power: down to 0 over n steps. In PyTorch: `PolynomialLR`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Polynomial {
    steps: u64,
    power: f64,
}

impl Polynomial {
    /// Down to 0 over so many steps; a straight line with power 1.
    pub fn new(steps: u64, power: f64) -> Polynomial {
        Polynomial { steps, power }
    }
}

impl Schedule for Polynomial {
    fn name(&self) -> &'static str {
        "Polynomial"
    }
    fn check(&self) -> Result<()> {
        demand_steps(self.name(), "the number of steps", self.steps)?;
        demand(self.power > 0.0 && self.power.is_finite(), self.name(), "the power", "finite and above 0", self.power)
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        base * (1.0 - step.min(self.steps) as f64 / self.steps.max(1) as f64).powf(self.power)
    }
}
