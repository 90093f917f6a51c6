//! Capture and replay: a step recorded once and run again on the same memory, without the work of deciding it.
//!
//! [`Captured::run`] runs a step once eagerly (so that lazily made state exists), then records it, then replays. *Guarded*, which
//! is the default, the step's own code still runs: each call that it makes is compared with the record (op, attributes, inputs,
//! modes) and, if it is the same, answered with the planned tensors, into which its kernels have written anew. A backward walk
//! and an update are one call each, and run as flat lists of kernels. The first call that differs ends the replay: the rest
//! of that step runs eagerly, with the right result, and a later step is recorded anew. So whatever the step's code does, a
//! guarded run gives what an eager one gives, bit for bit. Why it is so: `docs/adr/0009-guarded-replay.md`.
//!
//! What varies by step without making it another step lives in [`Slot`](crate::Slot)s: learning rates, the step of a random key.
//!
//! | for | see |
//! |---|---|
//! | the user's face, and when to record | here |
//! | where calls meet the record | `session.rs` |
//! | a recorded call, and how a call is compared with it | `event.rs` |
//! | recording, and what a record needs to know | `recorder.rs`, `record.rs` |
//! | replaying | `player.rs` |

mod event;
mod player;
mod record;
mod recorder;
mod session;

pub(crate) use event::Effect;
pub use session::is_running;
pub(crate) use session::{
    Ask, Exchange, Note, ask, ask_as, ask_passing, exchange, is_active, is_off, is_replaying, last_found, leave,
    leave_also_inside, note_leaf, overwrite_last, refuse_shared,
};

use crate::autodiff::Node;
use crate::backend::WriteMode;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::op::Meta;
use crate::tensor::Tensor;
use player::Player;
use record::Record;
use recorder::Recorder;
use session::Running;
use smallvec::{SmallVec, smallvec};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many records a step has at most: one for each set of inputs' shapes.
const RECORDS: usize = 4;
/// After so many records in a row that were of no use, recording waits, each time twice as many steps.
const PATIENCE: u32 = 3;

/// What the records of a step may take together, unless told otherwise: larger steps spend their time in kernels, where a replay
/// gains next to nothing, and their memory is scarce.
const MEMORY: usize = 64 << 20;

/// What tells a step's records apart: its inputs'.
type Metas = SmallVec<[Meta; 2]>;

static REPLACED: AtomicU64 = AtomicU64::new(0);

/// Says that a tensor that a model holds was replaced by another: records that skip the step's code must look anew.
#[inline]
pub fn note_replaced() {
    REPLACED.fetch_add(1, Ordering::Relaxed);
}

/// A step that is run eagerly once, then recorded, and replayed from then on. See the [module](self).
///
/// ```
/// use gradus::prelude::*;
/// use gradus::capture::Captured;
///
/// let mut w = Tensor::ones([3], Device::cpu()).requires_grad();
/// let mut step = Captured::new();
/// for i in 0..10 {
///     let x = Tensor::full([3], i as f32, Device::cpu());
///     let loss = step.run(&[&x], |x| {
///         let loss = (&w * &x[0]).square().mean();
///         loss.backward();
///         let g = w.take_grad().unwrap();
///         let new = w.detach() - g * 0.01;
///         w.write_value(&new)?;
///         Ok(vec![loss])
///     })?;
///     assert!(loss[0].item::<f32>()? >= 0.0);
/// }
/// assert!(step.replays() > 0);
/// # Ok::<(), gradus::Error>(())
/// ```
pub struct Captured {
    flat: bool,
    memory: usize,
    warm: bool,
    /// Least recently used first.
    records: Vec<Entry>,
    replays: u64,
    useless: u32,
    wait: u64,
    reason: Option<String>,
    /// Inputs with which the step is too large to be recorded.
    too_large: Vec<Metas>,
    /// Whether the device cannot record, or too many inputs are too large.
    refused: bool,
}

struct Entry {
    metas: Metas,
    inputs: Vec<Tensor>,
    record: Record,
    /// Of the flat form.
    outputs: Vec<Tensor>,
    bytes: usize,
    replaced: u64,
    hooks: u64,
    used: bool,
}

impl Default for Captured {
    fn default() -> Captured {
        Captured {
            flat: false,
            memory: MEMORY,
            warm: false,
            records: Vec::new(),
            replays: 0,
            useless: 0,
            wait: 0,
            reason: None,
            too_large: Vec::new(),
            refused: false,
        }
    }
}

impl Captured {
    /// A step that has not run yet, guarded.
    pub fn new() -> Captured {
        Captured::default()
    }

    /// A step that has not run yet, whose replays run the recorded kernels alone: the step's code is not called. It saves what
    /// that costs, and it is the caller's promise that nothing but the inputs' elements and [`Slot`](crate::Slot)s varies between
    /// replays; numbers and decisions of the step's code stay as they were when it was recorded. That parameters were replaced or
    /// loaded, or are held by somebody else, is noticed. Reading back and host data in the step are errors that name their line.
    pub fn unchecked() -> Captured {
        Captured { flat: true, memory: usize::MAX, ..Captured::default() }
    }

    /// The same, with so many bytes for all its records together; 64 MiB unless told otherwise (unchecked: without limit). A step
    /// that needs more runs eagerly: a guarded record keeps all that its calls gave, where an eager step frees most of it on its way. (An
    /// unchecked one takes as much as an eager step.)
    pub fn memory(mut self, bytes: usize) -> Captured {
        self.memory = bytes;
        self
    }

    /// Whether there is a record.
    pub fn is_recorded(&self) -> bool {
        !self.records.is_empty()
    }

    /// How many kernels (on a GPU: calls of the backend) the record used last has; 0 without one.
    pub fn kernels(&self) -> usize {
        self.records.last().map_or(0, |e| e.record.replay.kernels())
    }

    /// How many runs were replays from beginning to end.
    pub fn replays(&self) -> u64 {
        self.replays
    }

    /// Why the last run that could have been a replay or a recording was none.
    pub fn why_eager(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Forgets all records, and gives their memory back.
    pub fn forget(&mut self) {
        self.records.clear();
    }

    /// Runs the step on the inputs' elements. The outputs are the caller's: they stay as they are when the step runs again.
    ///
    /// Between runs the inputs' shapes may change (each has a record of its own, up to four), and so may anything that the step
    /// does; only where it does the same as before is it replayed. The step's calls are those of this thread.
    ///
    /// Errors: the step's; of [`unchecked`](Self::unchecked) steps also reading back, host data, and devices that cannot record. What
    /// else cannot be recorded is run eagerly ([`why_eager`](Self::why_eager)).
    pub fn run(
        &mut self,
        inputs: &[&Tensor],
        step: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let Some(device) = inputs.first().map(|t| t.device()) else {
            return Err(Error::misuse("a captured step needs at least one input, which says on which device it runs"));
        };
        let metas: Metas = inputs.iter().map(|t| t.meta()).collect();
        self.run_keyed(device, metas, inputs, step)
    }

    /// As [`run`](Self::run), for a step that has no inputs but those that it makes itself, of host data. `shape` tells apart what
    /// has a record of its own: the number of samples.
    pub fn run_on<T>(&mut self, device: Device, shape: &[usize], step: impl FnOnce() -> Result<T>) -> Result<T> {
        let meta = Meta::new(crate::DType::Bool, crate::Shape::try_new(shape)?);
        let mut given = None;
        self.run_keyed(device, smallvec![meta], &[], |_| {
            given = Some(step()?);
            Ok(Vec::new())
        })?;
        given.ok_or_else(|| {
            Error::misuse("a replay without the step's code gives nothing: a step without inputs must be guarded")
        })
    }

    fn run_keyed(
        &mut self,
        device: Device,
        metas: Metas,
        inputs: &[&Tensor],
        step: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let running = Running::enter();
        if running.is_inner() {
            return eagerly(inputs, step); // the outer step is the one that is recorded
        }
        if let Some(i) = self.records.iter().position(|e| e.metas == metas) {
            self.records[i..].rotate_left(1);
            return match self.flat {
                true => self.replay_flat(&running, device, metas, inputs, step),
                false => self.replay(&running, inputs, step),
            };
        }
        if !self.warm || self.refused || self.wait > 0 || self.too_large.contains(&metas) {
            self.wait = self.wait.saturating_sub(1);
            let outputs = eagerly(inputs, step)?;
            self.warm = true;
            return Ok(outputs);
        }
        self.record(&running, device, metas, inputs, step)
    }

    /// Replays the last record.
    fn replay(
        &mut self,
        running: &Running,
        inputs: &[&Tensor],
        step: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let Some(mut entry) = self.records.pop() else { return eagerly(inputs, step) };
        if entry.hooks != Node::hooks_added() || !entry.can_load() {
            self.reason = Some("gradient hooks were added, or somebody holds the inputs of an earlier run".into());
            self.note_useless(entry.used);
            return eagerly(inputs, step);
        }
        entry.load(inputs)?;
        let Entry { metas, inputs: own, record, outputs, bytes, replaced, hooks, used } = entry;
        let (result, player) = running.replay(Player::new(record), || step(&own));
        match player.map(|p| p.done()) {
            Some(Ok(record)) => {
                let copies = result.and_then(|outputs| outputs.iter().map(copied).collect());
                self.records.push(Entry { metas, inputs: own, record, outputs, bytes, replaced, hooks, used: true });
                self.replays += u64::from(copies.is_ok());
                (self.useless, self.reason) = (0, None);
                copies
            }
            missed => {
                // What the record gave so far is the step's alone now: nothing will write there again.
                self.reason = missed.and_then(Result::err);
                self.note_useless(used);
                result.map(|outputs| outputs.iter().map(Tensor::detach).collect())
            }
        }
    }

    /// Counts a record that went without having been used, and makes recording wait if many do.
    fn note_useless(&mut self, used: bool) {
        self.useless = if used { 0 } else { self.useless + 1 };
        if self.useless >= PATIENCE {
            self.wait = 1 << self.useless.min(16);
        }
    }

    fn record(
        &mut self,
        running: &Running,
        device: Device,
        metas: Metas,
        inputs: &[&Tensor],
        step: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let own: Vec<Tensor> = inputs.iter().map(|t| copied(t)).collect::<Result<_>>()?;
        for e in &mut self.records {
            e.record.unwatch();
        }
        let hooks = Node::hooks_added();
        let taken: usize = self.records.iter().map(|e| e.bytes).sum();
        let recorder = match Recorder::begin(device, &own, self.flat, self.memory.saturating_sub(taken)) {
            Ok(recorder) => recorder,
            Err(e) if self.flat => return Err(e),
            Err(e) => {
                (self.refused, self.reason) = (true, Some(e.to_string()));
                return eagerly(inputs, step);
            }
        };
        let (result, recorder) = running.record(recorder, || step(&own));
        let Some(recorder) = recorder else { return result };
        let bytes = device.backend().capture_bytes();
        let outgrown = recorder.has_outgrown();
        let ended = recorder.end();
        let outputs: Vec<Tensor> = result?.iter().map(Tensor::detach).collect();
        let record = match ended? {
            Ok(record) => record,
            Err(why) => {
                self.reason = Some(why);
                self.note_useless(false);
                if outgrown {
                    self.too_large.push(metas);
                    self.refused |= self.too_large.len() > 4 * RECORDS;
                }
                return Ok(outputs);
            }
        };
        let copies = outputs.iter().map(copied).collect::<Result<_>>()?;
        let outputs = if self.flat { outputs } else { Vec::new() };
        if self.flat {
            record.check_held(&outputs)?;
        }
        self.records.retain_mut(|e| e.record.watch_as(&record));
        if self.records.len() == RECORDS {
            self.records.remove(0);
        }
        let replaced = REPLACED.load(Ordering::Relaxed);
        self.records.push(Entry { metas, inputs: own, record, outputs, bytes, replaced, hooks, used: false });
        Ok(copies)
    }

    /// Replays the last record without the step's code.
    fn replay_flat(
        &mut self,
        running: &Running,
        device: Device,
        metas: Metas,
        inputs: &[&Tensor],
        step: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let Some(entry) = self.records.last_mut().filter(|e| e.can_run()) else {
            self.records.pop(); // before the step runs again: what it updates is not held alone while a record watches it
            return self.record(running, device, metas, inputs, step);
        };
        let outputs = entry.run(inputs);
        match outputs {
            Ok(_) => self.replays += 1,
            Err(_) => drop(self.records.pop()),
        }
        outputs
    }
}

impl Entry {
    fn can_load(&self) -> bool {
        self.record.holds_inputs_alone(&self.inputs, &self.outputs)
    }

    /// Of the flat form: whether all is as it was recorded.
    fn can_run(&self) -> bool {
        let same = self.replaced == REPLACED.load(Ordering::Relaxed) && self.hooks == Node::hooks_added();
        same && self.record.sees_the_same() && self.can_load()
    }

    /// Of the flat form: runs all kernels on new inputs, and gives copies of the outputs.
    fn run(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        self.load(inputs)?;
        let kernels = self.record.replay.kernels();
        self.record.replay.replay(0..kernels)?;
        self.outputs.iter().map(copied).collect()
    }

    /// Copies new inputs into the record's memory.
    fn load(&mut self, inputs: &[&Tensor]) -> Result<()> {
        for (own, new) in self.inputs.iter().zip(inputs) {
            // Nobody but the record holds the memory; the kernel writes it as a replay's would.
            let mut buffer = own.value.buffer.clone();
            own.device().backend().write(&mut buffer, own.layout(), new.view(), WriteMode::Store)?;
        }
        Ok(())
    }
}

/// Without a record: the step sees the inputs as they are.
fn eagerly(inputs: &[&Tensor], step: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>) -> Result<Vec<Tensor>> {
    let seen: Vec<Tensor> = inputs.iter().map(|t| t.detach()).collect();
    Ok(step(&seen)?.iter().map(Tensor::detach).collect())
}

fn copied(t: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_buffer(t.device().backend().copy(t.view())?, *t.shape(), t.place()))
}
