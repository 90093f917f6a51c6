//! Writing a run's checkpoints, and going on from one.

use crate::callback::Event;
use crate::checkpoints::{StateDict, newest};
use crate::exact::Exact;
use crate::state::RunState;
use crate::trainer::Trainer;
use gradus_core::{Device, Error, Result};
use gradus_nn::Module;
use gradus_optim::OptimizerState;
use std::path::{Path, PathBuf};

/// From where a run goes on.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// The checkpoint.
    pub path: PathBuf,
    /// Whole epochs done.
    pub epochs: usize,
    /// Batches of the next epoch done.
    pub batches: usize,
    /// Optimizer steps done.
    pub steps: u64,
    /// Newer checkpoints that could not be used, and why.
    pub damaged: Vec<String>,
}

impl<M: Module> Trainer<M> {
    /// Takes model, optimizer and position from the newest sound checkpoint in `dir`; [`fit`](Self::fit) goes on from there,
    /// with the bits of a run that was never interrupted if its settings are the same. `None`, and nothing changed, if there
    /// is no checkpoint yet.
    ///
    /// Leftovers of a killed process are removed, hashes are verified, and damaged checkpoints passed over (they are named in
    /// the result). Errors: all checkpoints are damaged; the checkpoint is of another architecture (every mismatch is
    /// listed, and model and optimizer stay as they are).
    pub fn resume(&mut self, dir: impl AsRef<Path>) -> Result<Option<Resumed>> {
        let device = device_of(&self.model)?;
        let Some(loaded) = newest(dir.as_ref(), device)? else { return Ok(None) };
        let place = format!("checkpoint {}", loaded.path.display());
        let optimizer = OptimizerState {
            tensors: loaded.optimizer,
            numbers: loaded.state.optimizer.iter().map(|(name, x)| (name.clone(), x.0)).collect(),
        };
        self.take(&loaded.model, &optimizer).map_err(|e| e.context(&place))?;
        self.running.load_state(&loaded.state.means);
        self.best_weights = loaded.best;
        let s = loaded.state;
        let resumed =
            Resumed { path: loaded.path, epochs: s.epoch, batches: s.batch, steps: s.step, damaged: loaded.damaged };
        self.state = Some(s);
        self.resumed = true;
        Ok(Some(resumed))
    }

    /// Takes the values of a checkpoint: both, or neither.
    fn take(&mut self, model: &StateDict, optimizer: &OptimizerState) -> Result<()> {
        let before = self.model.state_dict();
        self.model.load_state_dict(model)?;
        let taken = self.parts().and_then(|(model, o)| o.load_state_dict(model, optimizer));
        if taken.is_err() {
            self.model.load_state_dict(&before)?;
        }
        taken
    }

    /// Writes a checkpoint of the run as it stands.
    pub(crate) fn save(&mut self) -> Result<()> {
        let Some(checkpoints) = self.checkpoints.clone() else { return Ok(()) };
        self.running.read()?; // a loss that is not finite must not be saved
        let optimizer = self.optimizer()?.state_dict();
        let (means, callbacks) =
            (self.running.state(), self.callbacks.iter().map(|c| (c.name().to_owned(), c.state())).collect());
        let state = self.position()?;
        state.optimizer = optimizer.numbers.iter().map(|(name, &x)| (name.clone(), Exact(x))).collect();
        (state.means, state.callbacks) = (means, callbacks);
        let state = state.clone();
        let path =
            checkpoints.save(&state, &self.model.state_dict(), &optimizer.tensors, self.best_weights.as_ref())?;
        self.tell(|_| Event::Saved { path: &path })?;
        Ok(())
    }

    /// Where the run stands.
    pub(crate) fn position(&mut self) -> Result<&mut RunState> {
        self.state.as_mut().ok_or_else(|| Error::misuse("the run has not begun"))
    }
}

/// The device that a model is on.
fn device_of(model: &dyn Module) -> Result<Device> {
    let parameters = model.named_parameters();
    let first = parameters.first().map(|(_, p)| p.device());
    first.ok_or_else(|| Error::misuse("the model has no parameters, so there is nothing to train"))
}
