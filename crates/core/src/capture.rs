//! Capture and replay: a step's kernels recorded once and run again on the same memory, without the work of deciding them.
//!
//! [`Captured::run`] runs the step once eagerly (so that lazily made state exists), then records it, then replays. Inputs are
//! copied into memory that the record owns. What the step updates in place (parameters, optimizer state) must be held by nobody
//! else when a replay begins: else someone would see their value change, so the step is recorded anew instead.

use crate::backend::{Replay, WriteMode};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::op::Meta;
use crate::tensor::{Tensor, Value};
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::{Arc, Weak};

thread_local! {
    /// While a step is recorded: what it has updated in place.
    static UPDATED: Cell<Option<Vec<Weak<Value>>>> = const { Cell::new(None) };
}

/// Notes an update in place, if a step is being recorded.
pub(crate) fn note_update(value: &Arc<Value>) {
    if let Some(mut updated) = UPDATED.take() {
        updated.push(Arc::downgrade(value));
        UPDATED.set(Some(updated));
    }
}

/// A step that is recorded at its second run and replayed from the third on.
///
/// This is the flat form: between replays nothing but the inputs' elements and [`Slot`](crate::Slot)s may vary. Inputs of another
/// shape or dtype record anew.
#[derive(Default)]
pub struct Captured {
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    New,
    Warm,
    Recorded(Box<Record>),
}

struct Record {
    metas: Vec<Meta>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    /// What the step updates in place.
    updated: Vec<Weak<Value>>,
    replay: Box<dyn Replay>,
}

impl Captured {
    /// A step that has not run yet.
    pub fn new() -> Captured {
        Captured::default()
    }

    /// Whether the next run with such inputs would be a replay.
    pub fn is_recorded(&self) -> bool {
        matches!(self.state, State::Recorded(_))
    }

    /// How many kernels a replay runs; 0 before the recording.
    pub fn kernels(&self) -> usize {
        match &self.state {
            State::Recorded(r) => r.replay.kernels(),
            _ => 0,
        }
    }

    /// Runs the step. The outputs are copies: they stay as they are when the step runs again.
    ///
    /// An error of the step, or of a device that cannot record, leaves the step unrecorded.
    pub fn run(
        &mut self,
        inputs: &[&Tensor],
        step: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let Some(device) = inputs.first().map(|t| t.device()) else {
            return Err(Error::misuse("a captured step needs at least one input, which says on which device it runs"));
        };
        let metas: Vec<Meta> = inputs.iter().map(|t| t.meta()).collect();
        match std::mem::take(&mut self.state) {
            State::Recorded(record) if record.metas == metas => self.replay(*record, device, inputs, step),
            State::New => {
                let owned: Vec<Tensor> = inputs.iter().map(|t| t.detach()).collect();
                let outputs = step(&owned)?;
                self.state = State::Warm;
                Ok(outputs)
            }
            State::Warm | State::Recorded(_) => self.record(device, inputs, step),
        }
    }

    fn replay(
        &mut self,
        mut record: Record,
        device: Device,
        inputs: &[&Tensor],
        step: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        if !record.is_exclusive() || !record.load(inputs)? {
            // Before the step runs again: what it updates is not held alone while the record watches it.
            drop(record);
            return self.record(device, inputs, step);
        }
        record.replay.replay()?;
        let outputs = record.outputs()?;
        self.state = State::Recorded(Box::new(record));
        Ok(outputs)
    }

    fn record(
        &mut self,
        device: Device,
        inputs: &[&Tensor],
        step: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let record = Record::make(device, inputs, step)?;
        let outputs = record.outputs()?;
        self.state = State::Recorded(Box::new(record));
        Ok(outputs)
    }
}

impl Record {
    fn make(device: Device, inputs: &[&Tensor], step: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>) -> Result<Record> {
        let backend = device.backend();
        let mut own = Vec::with_capacity(inputs.len());
        for t in inputs {
            own.push(Tensor::from_buffer(backend.copy(t.view())?, *t.shape(), t.place()));
        }
        backend.begin_capture()?;
        UPDATED.set(Some(Vec::new()));
        let outputs = step(&own);
        let updated = UPDATED.take().unwrap_or_default();
        let replay = backend.end_capture();
        let outputs: Vec<Tensor> = outputs?.iter().map(Tensor::detach).collect();
        let replay = replay?;
        let buffers: HashSet<_> = outputs.iter().map(|t| Arc::as_ptr(&t.value.buffer).addr()).collect();
        if replay.held() > buffers.len() {
            return Err(Error::misuse(format!(
                "{} tensors made in the captured step are still held after it, and a replay would change them: return them, or drop them in the step (gradients: `take_grad`, `zero_grad`)",
                replay.held() - buffers.len()
            )));
        }
        Ok(Record { metas: inputs.iter().map(|t| t.meta()).collect(), inputs: own, outputs, updated, replay })
    }

    /// Whether everything that the step updates in place still exists, and nobody else holds it.
    fn is_exclusive(&self) -> bool {
        self.updated.iter().all(|weak| {
            weak.strong_count() == 1 && weak.upgrade().is_some_and(|value| Arc::strong_count(&value.buffer) == 1)
        })
    }

    /// Copies new inputs into the record's memory; `false` if somebody kept a hold of that memory.
    fn load(&mut self, inputs: &[&Tensor]) -> Result<bool> {
        for (own, new) in self.inputs.iter_mut().zip(inputs) {
            let device = own.device();
            let Some((buffer, layout)) = own.held_alone() else { return Ok(false) };
            device.backend().write(buffer, &layout, new.view(), WriteMode::Store)?;
        }
        Ok(true)
    }

    fn outputs(&self) -> Result<Vec<Tensor>> {
        let copy = |t: &Tensor| Ok(Tensor::from_buffer(t.device().backend().copy(t.view())?, *t.shape(), t.place()));
        self.outputs.iter().map(copy).collect()
    }
}
