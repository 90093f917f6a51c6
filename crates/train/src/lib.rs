//! The trainer of Gradus: the loop around a model and an optimizer, callbacks, checkpoints, logs.
//!
//! A run is a pure function of its settings and seed: checkpoints hold all that it must remember, and a run that was killed
//! at any instant and resumed ends with the same bits as one that was never interrupted.
//!
//! | for | see |
//! |---|---|
//! | the loop | [`Trainer`], [`Step`], [`Summary`] |
//! | measuring a model | [`evaluate`], [`Evaluation`] |
//! | checkpoints and resuming | [`Checkpoints`], [`Trainer::resume`] |
//! | what was measured, as CSV or a chart | [`History`], [`Row`] |
//! | several devices at once | [`Trainer::devices`] |
//! | acting at events | [`Callback`], [`Event`], [`EarlyStopping`] |
//! | what a terminal shows | [`Progress`] |

mod callback;
mod checkpoints;
mod curve;
mod early_stopping;
mod evaluate;
mod exact;
mod fit;
mod goal;
mod history;
mod progress;
mod replicas;
mod resume;
mod running;
mod state;
mod step;
mod trainer;
mod training_step;

pub use callback::{Callback, Event, Flow};
pub use checkpoints::Checkpoints;
pub use early_stopping::EarlyStopping;
pub use evaluate::{Evaluation, evaluate};
pub use goal::Goal;
pub use history::{History, Row};
pub use progress::Progress;
pub use resume::Resumed;
/// A callback's state, as checkpoints hold it.
pub use serde_json::Value;
pub use step::Step;
pub use trainer::{Audit, Summary, Trainer};

/// What most programs need of this crate.
pub mod prelude {
    pub use crate::{
        Callback, Checkpoints, EarlyStopping, Evaluation, Event, Flow, Goal, History, Progress, Step, Summary, Trainer,
        evaluate,
    };
}
