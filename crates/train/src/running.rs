//! Means over an epoch of what stays on the device until somebody must see it.
//!
//! Reading a loss back makes the host wait for the device, so on devices with a queue of their own some steps gather before
//! they are read. They are added up in the order of the steps either way, so the means have the same bits.

use crate::state::MeanState;
use gradus_core::{Device, Error, Result, Tensor};
use gradus_metrics::Mean;
use std::collections::BTreeMap;

/// The name of the loss among the means.
pub(crate) const LOSS: &str = "loss";
/// The name of the gradients' norm among the means.
pub(crate) const GRADIENT_NORM: &str = "grad_norm";

struct Waiting {
    name: String,
    value: Tensor,
    weight: f64,
    epoch: usize,
    step: u64,
}

/// Means by name, some of whose values may still be on the device.
#[derive(Default)]
pub(crate) struct Running {
    means: BTreeMap<String, Mean>,
    waiting: Vec<Waiting>,
    last_loss: f64,
}

impl Running {
    /// Takes a value of one element into account. `epoch` and `step` count from 1 and are for messages.
    pub fn add(&mut self, name: &str, value: &Tensor, weight: f64, epoch: usize, step: u64) -> Result<()> {
        if value.elements() != 1 {
            return Err(Error::misuse(format!(
                "epoch {epoch}, step {step}: the {name} must be one number for the batch; it has shape {} (take its mean)",
                value.shape()
            )));
        }
        let value = value.detach();
        self.waiting.push(Waiting { name: name.to_owned(), value, weight, epoch, step });
        Ok(())
    }

    /// Reads what is waiting if enough of it is: everything at each step on a CPU, where nobody waits.
    pub fn read_some(&mut self, device: Device) -> Result<()> {
        let enough = if device.name().starts_with("cpu") { 1 } else { 32 };
        if self.waiting.len() >= enough { self.read() } else { Ok(()) }
    }

    /// Reads all that is waiting. A loss that is not finite is an error that names where it occurred.
    pub fn read(&mut self) -> Result<()> {
        for w in self.waiting.drain(..) {
            let value: f64 = w.value.item()?;
            if w.name == LOSS {
                if !value.is_finite() {
                    return Err(Error::data(format!(
                        "the loss is {value} in epoch {}, step {}: training stops here (a smaller learning rate, or clipped gradients, may help)",
                        w.epoch, w.step
                    )));
                }
                self.last_loss = value;
            }
            self.means.entry(w.name).or_default().add(value, w.weight);
        }
        Ok(())
    }

    /// The loss that was read last.
    pub fn last_loss(&self) -> f64 {
        self.last_loss
    }
    /// The means of what was read.
    pub fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        self.means.iter().map(|(name, mean)| (name.as_str(), mean.value()))
    }
    /// Forgets everything.
    pub fn reset(&mut self) {
        self.means.clear();
        self.waiting.clear();
    }

    /// What was read, for a checkpoint.
    pub fn state(&self) -> BTreeMap<String, MeanState> {
        self.means.iter().map(|(name, mean)| (name.clone(), (*mean).into())).collect()
    }
    /// Takes back what [`state`](Self::state) gave.
    pub fn load_state(&mut self, state: &BTreeMap<String, MeanState>) {
        self.reset();
        self.means = state.iter().map(|(name, mean)| (name.clone(), (*mean).into())).collect();
    }
}
