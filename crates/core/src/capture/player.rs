//! A step being replayed: each call is compared with the record, and answered with its planned tensors.

use super::event::{Asked, Effect, Event};
use super::record::Record;
use super::session::Ask;
use crate::error::{Error, Result};
use crate::op::Tensors;

pub(crate) struct Player {
    pub(super) record: Record,
    /// The next call.
    at: usize,
    missed: Option<String>,
}

impl Player {
    pub(super) fn new(record: Record) -> Player {
        Player { record, at: 1, missed: None } // the first event stands for the step's inputs
    }

    /// The record, if every call so far was the recorded one; else why not.
    pub(super) fn done(self) -> Result<Record, String> {
        match self.missed {
            None => Ok(self.record),
            Some(why) => Err(why),
        }
    }

    pub(super) fn missed(&self) -> bool {
        self.missed.is_some()
    }

    pub(super) fn answer(&mut self, call: &Asked<'_>) -> Ask {
        let Some(event) = self.record.events.get(self.at) else {
            self.miss(format!("call {}: the recorded step has no more calls; now {:?} came", self.at, call.text));
            return Ask::Eager;
        };
        if let Some(why) = event.differs(call) {
            let message = format!("call {}, recorded as {}: {why}; now {:?}", self.at, event.text, call.text);
            self.miss(message);
            return Ask::Eager;
        }
        self.at += 1;
        if let Effect::Define = event.effect {
            return Ask::Define;
        }
        if let Effect::Upload = event.effect {
            return Ask::Done(Ok(event.given())); // its elements follow: `overwrite_last`
        }
        let run = self.record.replay.replay(event.kernels.clone());
        Ask::Done(run.map(|()| event.given()))
    }

    /// Which gradients the call that was just answered has found.
    pub(super) fn last_found(&self) -> Vec<bool> {
        match &self.record.events[self.at - 1].effect {
            Effect::Find(found) => found.clone(),
            _ => Vec::new(),
        }
    }

    /// Writes the host data of the call that was just answered.
    pub(super) fn overwrite_last(&mut self, bytes: &[u8]) -> Result<()> {
        let event = &self.record.events[self.at - 1];
        match (&event.effect, event.outputs.first()) {
            (Effect::Upload, Some(t)) => self.record.replay.overwrite(&t.value.buffer, t.dtype(), bytes),
            _ => Err(Error::misuse("host data came for a call that has none")),
        }
    }

    /// From here on the step runs eagerly: what the calls so far kept for backward is given back to their nodes.
    pub(super) fn miss(&mut self, why: String) {
        if self.missed.is_none() {
            self.missed = Some(match self.record.restore(self.at) {
                Ok(()) => why,
                Err(e) => format!("{why} ({e})"),
            });
        }
    }
}

impl Event {
    fn given(&self) -> Tensors {
        match &self.effect {
            Effect::Gather(leaves) => {
                for (g, grad) in leaves.iter().zip(&self.outputs) {
                    g.leaf.set_gathered(Some(grad.clone()));
                }
                Tensors::new()
            }
            Effect::Leaf => {
                self.outputs.iter().for_each(crate::Tensor::zero_grad);
                self.outputs.clone()
            }
            _ => self.outputs.clone(),
        }
    }
}
