//! The one-cycle policy, by the formula of PyTorch's `OneCycleLR`.

use crate::demand::{demand, demand_positive};
use crate::schedules::{Schedule, demand_steps, half_cosine};
use gradus_core::Result;

/// Up from a low rate to the base rate, which is the peak, and down to almost nothing, with the momentum going the other way.
///
/// The rate begins at base/25, peaks after 30 % of the steps and ends at base/25/10⁴; the momentum (Adam: β₁) goes from 0.95
/// down to 0.85 and up again. After the last step it stays as it is. Source: Smith & Topin, *Super-convergence* (2018), in
/// the form of PyTorch's `OneCycleLR`, whose `max_lr` is the base rate here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycle {
    total: u64,
    peak_at: f64,
    start: f64,
    end: f64,
    momentum: Option<(f64, f64)>,
    linear: bool,
    three_phases: bool,
}

/// The rates (in parts of the peak) and the momenta between which a phase goes, and its last step.
struct Phase {
    end: f64,
    rates: (f64, f64),
    momenta: (f64, f64),
}

impl OneCycle {
    /// A cycle of so many steps.
    pub fn new(total: u64) -> OneCycle {
        let (start, end) = (1.0 / 25.0, 1e-4 / 25.0);
        OneCycle { total, peak_at: 0.3, start, end, momentum: Some((0.85, 0.95)), linear: false, three_phases: false }
    }
    /// The part of the steps after which the rate peaks; 0.3.
    pub fn peak_at(self, part: f64) -> OneCycle {
        OneCycle { peak_at: part, ..self }
    }
    /// By how much the rate is divided at the start (25), and by how much more at the end (10⁴).
    pub fn divided_by(self, start: f64, end: f64) -> OneCycle {
        OneCycle { start: 1.0 / start, end: 1.0 / start / end, ..self }
    }
    /// The lowest momentum, met at the peak, and the highest; 0.85 and 0.95.
    pub fn momentum(self, low: f64, high: f64) -> OneCycle {
        OneCycle { momentum: Some((low, high)), ..self }
    }
    /// Leaves the momentum to the rule.
    pub fn without_momentum(self) -> OneCycle {
        OneCycle { momentum: None, ..self }
    }
    /// Straight lines in place of half cosines.
    pub fn linear(self) -> OneCycle {
        OneCycle { linear: true, ..self }
    }
    /// Down to the first rate as fast as it went up, and only then to the last one.
    pub fn three_phases(self) -> OneCycle {
        OneCycle { three_phases: true, ..self }
    }

    fn phases(&self) -> impl Iterator<Item = Phase> {
        let (low, high) = self.momentum.unwrap_or_default();
        let up = self.peak_at * self.total as f64;
        let last = self.total as f64 - 1.0;
        let rise = Phase { end: up - 1.0, rates: (self.start, 1.0), momenta: (high, low) };
        let (middle, end) = if self.three_phases {
            let back = Phase { end: 2.0 * up - 2.0, rates: (1.0, self.start), momenta: (low, high) };
            (Some(back), Phase { end: last, rates: (self.start, self.end), momenta: (high, high) })
        } else {
            (None, Phase { end: last, rates: (1.0, self.end), momenta: (low, high) })
        };
        std::iter::once(rise).chain(middle).chain([end])
    }

    /// The phase that a step falls into, and how far into it, from 0 to 1.
    fn at(&self, step: u64) -> (Phase, f64) {
        let step = step.min(self.total.saturating_sub(1)) as f64;
        let mut start = 0.0;
        let mut found = None;
        for phase in self.phases() {
            let (from, end) = (start, phase.end);
            start = end;
            let part = if end > from { (step - from) / (end - from) } else { 1.0 };
            found = Some((phase, part));
            if step <= end {
                break;
            }
        }
        // There are always two phases or three.
        found.unwrap_or((Phase { end: 0.0, rates: (1.0, 1.0), momenta: (0.0, 0.0) }, 1.0))
    }
    fn between(&self, (from, to): (f64, f64), part: f64) -> f64 {
        if self.linear { (to - from) * part + from } else { half_cosine(from, to, part) }
    }
}

impl Schedule for OneCycle {
    fn name(&self) -> &'static str {
        "OneCycle"
    }
    fn check(&self) -> Result<()> {
        demand_steps(self.name(), "the total of steps", self.total)?;
        demand((0.0..=1.0).contains(&self.peak_at), self.name(), "the peak's place", "between 0 and 1", self.peak_at)?;
        let in_order = !self.three_phases || self.peak_at <= 0.5;
        demand(in_order, self.name(), "the peak's place", "at most 0.5 with three phases", self.peak_at)?;
        demand_positive(self.name(), "the start's part of the peak", self.start)?;
        demand_positive(self.name(), "the end's part of the peak", self.end)?;
        for m in self.momentum.iter().flat_map(|&(low, high)| [low, high]) {
            demand((0.0..1.0).contains(&m), self.name(), "a momentum", "at least 0 and less than 1", m)?;
        }
        Ok(())
    }
    fn learning_rate(&self, base: f64, step: u64) -> f64 {
        let (phase, part) = self.at(step);
        self.between((base * phase.rates.0, base * phase.rates.1), part)
    }
    fn momentum(&self, step: u64) -> Option<f64> {
        self.momentum?;
        let (phase, part) = self.at(step);
        Some(self.between(phase.momenta, part))
    }
}
