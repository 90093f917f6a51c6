//! All that a run must remember beside its tensors, as the `state.json` of a checkpoint.

use crate::exact::Exact;
use crate::goal::Goal;
use crate::history::History;
use gradus_core::{Error, Result};
use gradus_metrics::Mean;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of `state.json` that this library writes, and the only one it reads.
const FORMAT: u32 = 1;

/// Where a run stands. Nothing in it depends on how long anything took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunState {
    format: u32,
    /// The epoch that is running or comes next, counted from 0.
    pub epoch: usize,
    /// The batch of it that comes next.
    pub batch: usize,
    /// Optimizer steps so far.
    pub step: u64,
    /// The seed of everything random in the model's passes.
    pub seed: u64,
    /// What the training data are and how they are batched, in words; another run's must be the same.
    pub data: String,
    /// Batches that make one optimizer step.
    pub accumulate: usize,
    /// The optimizer's counts and base learning rate.
    pub optimizer: BTreeMap<String, Exact>,
    /// Means over the epoch so far, by name.
    pub means: BTreeMap<String, MeanState>,
    /// The epochs so far.
    pub history: History,
    /// The callbacks' states, by name.
    pub callbacks: BTreeMap<String, Value>,
    /// What the plateau remembers, where there is one.
    #[serde(default)]
    pub plateau: BTreeMap<String, Exact>,
    /// The scaling of the loss, where there is one.
    #[serde(default)]
    pub loss_scale: BTreeMap<String, Exact>,
    /// The best epoch so far, where best weights are kept.
    pub best: Option<Best>,
    /// The checkpoints that are kept for their values.
    pub kept: Vec<Kept>,
    /// Why the run ended before its last epoch, if it did.
    pub stopped: Option<String>,
}

/// A [`Mean`], in full.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct MeanState {
    sum: Exact,
    compensation: Exact,
    weight: Exact,
}

impl From<Mean> for MeanState {
    fn from(m: Mean) -> MeanState {
        MeanState { sum: Exact(m.sum), compensation: Exact(m.compensation), weight: Exact(m.weight) }
    }
}

impl From<MeanState> for Mean {
    fn from(m: MeanState) -> Mean {
        Mean { sum: m.sum.0, compensation: m.compensation.0, weight: m.weight.0 }
    }
}

/// The best epoch by some value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    pub metric: String,
    pub value: Exact,
    /// Counted from 1.
    pub epoch: usize,
}

/// A checkpoint that is kept for its value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub step: u64,
    pub value: Exact,
}

impl RunState {
    /// The beginning of a run.
    pub fn new(seed: u64, accumulate: usize, data: String) -> RunState {
        RunState {
            format: FORMAT,
            epoch: 0,
            batch: 0,
            step: 0,
            seed,
            data,
            accumulate,
            optimizer: BTreeMap::new(),
            means: BTreeMap::new(),
            history: History::default(),
            callbacks: BTreeMap::new(),
            plateau: BTreeMap::new(),
            loss_scale: BTreeMap::new(),
            best: None,
            kept: Vec::new(),
            stopped: None,
        }
    }

    /// The text of `state.json`.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::data("the run's state cannot be written as JSON").caused_by(e))?;
        Ok(text + "\n")
    }

    /// Reads `state.json`.
    pub fn from_json(text: &str) -> Result<RunState> {
        // The version first: another one may have other fields.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let bad = |e| Error::data("state.json is not the state of a run").caused_by(e);
        let version: Version = serde_json::from_str(text).map_err(bad)?;
        if version.format != FORMAT {
            return Err(Error::data(format!(
                "state.json has format {}; this version reads format {FORMAT}",
                version.format
            )));
        }
        serde_json::from_str(text).map_err(bad)
    }

    /// An error unless a run with these settings goes on from here with the same bits.
    pub fn check_same_run(&self, seed: u64, data: &str, accumulate: usize) -> Result<()> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, then: String, now: String| {
            if then != now {
                differences.push(format!("\n  {what}: {then} then, {now} now"));
            }
        };
        compare("seed", self.seed.to_string(), seed.to_string());
        compare("training data", self.data.clone(), data.to_owned());
        compare("batches in a step", self.accumulate.to_string(), accumulate.to_string());
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::misuse(format!("the checkpoint is of a run with other settings:{}", differences.concat())))
    }

    /// Takes note of a value for the `count` best checkpoints; whether this step's is now among them.
    pub fn keep(&mut self, value: f64, goal: Goal, count: usize) -> bool {
        if value.is_nan() || count == 0 {
            return false;
        }
        let step = self.step;
        // After those that are as good: the earlier of equals is kept.
        let at = self.kept.iter().position(|k| goal.improves(value, k.value.0, 0.0)).unwrap_or(self.kept.len());
        self.kept.insert(at, Kept { step, value: Exact(value) });
        self.kept.truncate(count);
        self.kept.iter().any(|k| k.step == step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_and_the_earlier_of_equals() {
        let mut s = RunState::new(0, 1, String::new());
        let mut keep = |step, value| {
            s.step = step;
            let kept = s.keep(value, Goal::Larger, 2);
            (kept, s.kept.iter().map(|k| k.step).collect::<Vec<_>>())
        };
        assert_eq!(keep(1, 0.5), (true, vec![1]));
        assert_eq!(keep(2, 0.7), (true, vec![2, 1]));
        assert_eq!(keep(3, 0.5), (false, vec![2, 1]));
        assert_eq!(keep(4, f64::NAN), (false, vec![2, 1]));
        assert_eq!(keep(5, 0.6), (true, vec![2, 5]));
    }

    #[test]
    fn a_state_comes_back_and_another_format_is_refused() {
        let mut s = RunState::new(u64::MAX, 2, String::new());
        let mut mean = Mean::default();
        (0..10).for_each(|i| mean.add(0.1 * i as f64, 3.0));
        s.means.insert("train/loss".into(), mean.into());
        let text = s.to_json().unwrap();
        let back = RunState::from_json(&text).unwrap();
        assert_eq!(back.to_json().unwrap(), text);
        assert_eq!(Mean::from(back.means["train/loss"]), mean);
        let e = RunState::from_json(&text.replace("\"format\": 1", "\"format\": 9")).unwrap_err().to_string();
        assert!(e.contains("format 9") && e.contains("reads format 1"), "{e}");
        assert!(RunState::from_json("{").is_err());
    }

    #[test]
    fn other_settings_are_listed_at_once() {
        let s = RunState::new(1, 1, "64".into());
        assert!(s.check_same_run(1, "64", 1).is_ok());
        let e = s.check_same_run(2, "32", 1).unwrap_err().to_string();
        assert!(e.contains("seed: 1 then, 2 now") && e.contains("training data: 64 then, 32 now"), "{e}");
    }
}
