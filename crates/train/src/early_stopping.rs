//! Early stopping: training ends when a measured value has not improved for some epochs.

use crate::callback::{Callback, Event, Flow};
use crate::exact::Exact;
use crate::goal::Goal;
use gradus_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Stops after `patience` epochs in a row in which a measured value was not better than the best before.
#[derive(Clone, Debug)]
pub struct EarlyStopping {
    on: String,
    goal: Goal,
    patience: usize,
    margin: f64,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct State {
    best: Option<Exact>,
    epochs_without: usize,
}

impl EarlyStopping {
    /// Watches the value called `name` (`val/loss`), with a patience of 5 epochs. Whether smaller or larger is better follows
    /// from the name ([`Goal::of`]).
    pub fn on(name: &str) -> EarlyStopping {
        EarlyStopping { on: name.to_owned(), goal: Goal::of(name), patience: 5, margin: 0.0, state: State::default() }
    }
    /// How many epochs without improvement end the run; at least 1.
    pub fn patience(mut self, epochs: usize) -> EarlyStopping {
        self.patience = epochs.max(1);
        self
    }
    /// By how much a value must be better than the best to count as better.
    pub fn margin(mut self, margin: f64) -> EarlyStopping {
        self.margin = margin;
        self
    }
    /// Whether small or large values are wanted, where the name does not say.
    pub fn goal(mut self, goal: Goal) -> EarlyStopping {
        self.goal = goal;
        self
    }
    /// Takes an epoch's value.
    fn observe(&mut self, epoch: usize, value: f64) -> Flow {
        if self.state.best.is_none_or(|best| self.goal.improves(value, best.0, self.margin)) {
            self.state = State { best: Some(Exact(value)), epochs_without: 0 };
            return Flow::Continue;
        }
        self.state.epochs_without += 1;
        if self.state.epochs_without < self.patience {
            return Flow::Continue;
        }
        let best = self.state.best.map_or(f64::NAN, |b| b.0);
        Flow::Stop(format!(
            "{} has not been better than {best:.6} for {} epochs (epoch {epoch})",
            self.on, self.patience
        ))
    }
}

impl Callback for EarlyStopping {
    fn name(&self) -> &str {
        "early_stopping"
    }
    fn on(&mut self, event: &mut Event<'_>) -> Result<Flow> {
        match event {
            Event::EpochEnded { row, .. } => {
                let value = row.need(&self.on, "early stopping")?;
                Ok(self.observe(row.epoch, value))
            }
            _ => Ok(Flow::Continue),
        }
    }
    fn state(&self) -> Value {
        serde_json::to_value(self.state).unwrap_or_default() // numbers always serialize
    }
    fn load_state(&mut self, state: &Value) -> Result<()> {
        self.state = State::deserialize(state)
            .map_err(|e| Error::data("early stopping: its saved state cannot be read").caused_by(e))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_its_patience_and_starts_anew_after_an_improvement() {
        let mut stop = EarlyStopping::on("val/loss").patience(2).margin(0.01);
        let flows: Vec<bool> = [1.0, 0.5, 0.6, 0.4, 0.395, f64::NAN]
            .iter()
            .enumerate()
            .map(|(i, &x)| stop.observe(i + 1, x) == Flow::Continue)
            .collect();
        assert_eq!(flows, [true, true, true, true, true, false]);
    }

    #[test]
    fn its_state_comes_back() {
        let mut a = EarlyStopping::on("val/accuracy").patience(3);
        [0.5, 0.4, 0.4].iter().for_each(|&x| drop(a.observe(1, x)));
        let mut b = EarlyStopping::on("val/accuracy").patience(3);
        b.load_state(&a.state()).unwrap();
        assert!(matches!(b.observe(4, 0.5), Flow::Stop(why) if why.contains("0.5") && why.contains("val/accuracy")));
        assert!(b.load_state(&Value::Bool(true)).is_err());
    }
}
