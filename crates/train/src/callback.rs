//! Callbacks: what happens beside training, at named events. Their state is part of every checkpoint.

use crate::history::Row;
use gradus_core::Result;
use gradus_nn::Module;
use serde_json::Value;
use std::path::Path;

/// Something that happened in a run.
#[non_exhaustive]
pub enum Event<'a> {
    /// [`fit`](crate::Trainer::fit) begins, for the first time or after a resume.
    FitStarted {
        /// The model.
        model: &'a dyn Module,
        /// The epoch that comes next, counted from 0.
        epoch: usize,
    },
    /// An epoch begins (not when one is resumed in its middle).
    EpochStarted {
        /// The epoch, counted from 0.
        epoch: usize,
    },
    /// The optimizer has made a step.
    Stepped {
        /// The model after the step.
        model: &'a dyn Module,
        /// Steps so far, this one included.
        step: u64,
        /// The learning rate of the step.
        lr: f64,
    },
    /// An epoch is over, and everything about it is measured.
    EpochEnded {
        /// The model.
        model: &'a dyn Module,
        /// What was measured; values set here appear in the history.
        row: &'a mut Row,
    },
    /// A checkpoint has been written.
    Saved {
        /// Its directory.
        path: &'a Path,
    },
    /// [`fit`](crate::Trainer::fit) is about to return.
    FitEnded {
        /// The model as it will be returned.
        model: &'a dyn Module,
    },
}

/// Whether training is to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Flow {
    /// It is.
    Continue,
    /// It ends after this epoch (or step), for the reason given.
    Stop(String),
}

/// Something that is told of a run's events. An error ends the run.
pub trait Callback: Send {
    /// Its name: unique in a run, the name of its state in checkpoints.
    fn name(&self) -> &str;
    /// An event. A stop takes effect at [`Stepped`](Event::Stepped) and [`EpochEnded`](Event::EpochEnded), and ends the run at
    /// the end of the epoch.
    fn on(&mut self, event: &mut Event<'_>) -> Result<Flow>;
    /// What it must remember to go on after a resume.
    fn state(&self) -> Value {
        Value::Null
    }
    /// Takes back what [`state`](Callback::state) gave.
    fn load_state(&mut self, _state: &Value) -> Result<()> {
        Ok(())
    }
}
