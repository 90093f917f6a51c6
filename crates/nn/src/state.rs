//! A value that a module keeps but does not train: running statistics, counters, tables.

use crate::module::{Module, Visitor, VisitorMut};
use gradus_core::{Error, Result, Tensor, capture};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A value that belongs to a module's state (it is saved and loaded by name) but is no parameter; PyTorch calls it a buffer.
///
/// A forward pass borrows its model, so a state changes behind a lock: through [`Cx::update`](crate::Cx::update), which knows
/// when an update must not happen (in evaluation, and in the second run of a checkpointed block). What was read before an
/// update stays as it was. A clone is a state of its own.
pub struct State {
    // Shared only with the aliases that a checkpointed block holds.
    cell: Arc<Mutex<Tensor>>,
}

impl State {
    /// A state that starts at `value`.
    pub fn new(value: Tensor) -> State {
        State { cell: Arc::new(Mutex::new(value.detach())) }
    }
    /// The value now.
    pub fn value(&self) -> Tensor {
        self.lock().clone()
    }
    /// Takes another value; an error, and nothing changed, if its shape, dtype or device differ.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        take(&mut self.lock(), value).map_err(|e| e.context("state"))
    }
    /// Takes the value that `change` gives for the one it has; nobody else can change it in between. The computation is not
    /// recorded. An error, and nothing changed, if it fails or the result has another shape, dtype or device.
    pub fn change(&self, change: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<()> {
        let mut value = self.lock();
        let new = gradus_core::no_grad(|| change(&value))?;
        if new.meta() != value.meta() || new.device() != value.device() {
            return Err(Error::misuse(format!(
                "state: a {} {} on {} cannot become a {} {} on {}",
                value.dtype(),
                value.shape(),
                value.device(),
                new.dtype(),
                new.shape(),
                new.device()
            )));
        }
        take(&mut value, &new)
    }
    /// Takes another value, of any shape, dtype or device.
    pub fn replace(&mut self, value: Tensor) {
        *self.lock() = value.detach();
        capture::note_replaced();
    }

    /// The same state under a second handle.
    pub(crate) fn alias(&self) -> State {
        State { cell: self.cell.clone() }
    }
    fn lock(&self) -> MutexGuard<'_, Tensor> {
        // A panic inside `change` happens before anything is assigned: the value is whole.
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes `new` for `value`. In a captured step it is written where the old one lies, so that a replay finds it there.
fn take(value: &mut Tensor, new: &Tensor) -> Result<()> {
    if capture::is_running() { value.write_value(&new.detach()) } else { value.set_value(&new.detach()) }
}

impl Clone for State {
    fn clone(&self) -> State {
        State::new(self.value())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value();
        write!(f, "State({} {} on {})", value.dtype(), value.shape(), value.device())
    }
}

impl Module for State {
    fn kind(&self) -> &'static str {
        "State"
    }
    fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>) {
        v.state(self);
    }
    fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>) {
        v.state(self);
    }
}
