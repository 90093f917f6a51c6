//! Where calls meet the record: each doorway of core asks here first, at the cost of one look at a thread-local cell.
//!
//! While a step is recorded, a call is written down when it is done. While one is replayed, a call is compared with the record;
//! the same call is answered with the planned tensors. Calls inside a call (those of a backward walk, of an update's definition)
//! are part of it.

use super::event::{Asked, Effect, Gather};
use super::player::Player;
use super::recorder::Recorder;
use crate::autodiff::Node;
use crate::error::{Error, Result};
use crate::op::Tensors;
use crate::tensor::Tensor;
use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::panic::Location;
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Off,
    Recording,
    /// In a call that is being recorded.
    Inside,
    Replaying,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Off) };
    /// How many captured steps this thread is in.
    static RUNNING: Cell<usize> = const { Cell::new(0) };
    static SESSION: RefCell<Session> = const { RefCell::new(Session::None) };
}

enum Session {
    None,
    Recording(Box<Recorder>),
    Replaying(Box<Player>),
}

/// Whether this thread is in a captured step, whatever it does: then states are written in place instead of being replaced, so
/// that records find them where they were.
#[inline]
pub fn is_running() -> bool {
    RUNNING.get() > 0
}

/// Whether calls are being recorded or compared.
#[inline]
pub(crate) fn is_active() -> bool {
    matches!(MODE.get(), Mode::Recording | Mode::Replaying)
}

/// Whether nothing is recorded or compared, not even as part of another call.
#[inline]
pub(crate) fn is_off() -> bool {
    MODE.get() == Mode::Off
}

/// What is to be done about a call.
pub(crate) enum Ask {
    /// Nothing is recorded: run it.
    Eager,
    /// It is the recorded call: this is what it gives.
    Done(Result<Tensors>),
    /// It is the recorded call, which ran by definition: run that.
    Define,
    /// Run it, and tell the note.
    Note(Note),
}

/// A call that is being recorded. If it is dropped untold, the call is not part of the record.
#[must_use]
pub(crate) struct Note(());

impl Drop for Note {
    fn drop(&mut self) {
        if MODE.get() == Mode::Inside {
            MODE.set(Mode::Recording);
        }
    }
}

impl Note {
    /// The call gave these tensors.
    pub(crate) fn gave(self, outputs: &[Tensor], effect: Effect) {
        with_recorder(|r| r.close(outputs, effect));
    }
    /// The call is a backward walk, which put gradients into leaves.
    pub(crate) fn gathered(self) {
        with_recorder(Recorder::close_backward);
    }
    /// The call wrote its first `targets` inputs in place.
    pub(crate) fn wrote(self, targets: usize, x: &[&Tensor]) {
        with_recorder(|r| r.close_update(targets, x));
    }
}

/// Whether calls are being compared with a record.
#[inline]
pub(crate) fn is_replaying() -> bool {
    MODE.get() == Mode::Replaying
}

/// Asks about a call: `op` says all that it is besides its inputs.
#[inline]
pub(crate) fn ask<O: Debug + 'static>(op: &O, x: &[&Tensor]) -> Ask {
    if is_active() { ask_of(Asked { kind: TypeId::of::<O>(), text: op, x }, false) } else { Ask::Eager }
}

/// As [`ask`], for a call that leaves nothing behind but what it writes in place.
#[inline]
pub(crate) fn ask_passing<O: Debug + 'static>(op: &O, x: &[&Tensor]) -> Ask {
    if is_active() { ask_of(Asked { kind: TypeId::of::<O>(), text: op, x }, true) } else { Ask::Eager }
}

#[cold]
#[inline(never)]
fn ask_of(asked: Asked<'_>, passing: bool) -> Ask {
    SESSION.with_borrow_mut(|s| match s {
        Session::None => Ask::Eager,
        Session::Recording(r) => {
            r.open(&asked, passing);
            MODE.set(Mode::Inside);
            Ask::Note(Note(()))
        }
        Session::Replaying(p) => {
            let answer = p.answer(&asked);
            if p.missed() {
                MODE.set(Mode::Off);
            }
            answer
        }
    })
}

/// As [`ask`], where `kind` tells what the text is of.
#[inline]
pub(crate) fn ask_as<K: 'static>(text: &dyn Debug, x: &[&Tensor]) -> Ask {
    if is_active() { ask_of(Asked { kind: TypeId::of::<K>(), text, x }, false) } else { Ask::Eager }
}

/// Host data on its way to a device, in a replay: written where the record has it.
pub(crate) fn overwrite_last(bytes: &[u8]) -> Result<()> {
    SESSION.with_borrow_mut(|s| match s {
        Session::Replaying(p) => p.overwrite_last(bytes),
        _ => Ok(()),
    })
}

/// Which of the gradients asked for the replayed call has found.
pub(crate) fn last_found() -> Vec<bool> {
    SESSION.with_borrow(|s| match s {
        Session::Replaying(p) => p.last_found(),
        _ => Vec::new(),
    })
}

/// What a replay must know about the values that the next call writes in place: whether each is held alone. If not, the call
/// is not the recorded one.
pub(crate) fn refuse_shared(targets: &mut [&mut Tensor]) {
    if MODE.get() == Mode::Replaying && !targets.iter_mut().all(|t| t.held_alone().is_some()) {
        leave("an update of a value that somebody else holds");
    }
}

/// Says that what the step does now is more than a record can hold: a replay goes on eagerly, a recording ends as none.
#[inline]
pub(crate) fn leave(what: &'static str) {
    if is_active() {
        leave_for(what.into());
    }
}

/// As [`leave`], for what must not happen inside a recorded call either.
#[inline]
pub(crate) fn leave_also_inside(what: &'static str) {
    if MODE.get() != Mode::Off {
        leave_for(what.into());
    }
}

#[cold]
fn leave_for(what: String) {
    SESSION.with_borrow_mut(|s| match s {
        Session::None => {}
        Session::Recording(r) => r.spoil(what),
        Session::Replaying(p) => {
            p.miss(what);
            MODE.set(Mode::Off);
        }
    });
}

/// Data between host and device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    Read,
    Upload,
}

/// Says that the host and the device exchange data. A guarded replay does so again, since the step runs again; the flat form
/// cannot: an error at the caller's line.
#[inline]
#[track_caller]
pub(crate) fn exchange(what: Exchange) -> Result<()> {
    if MODE.get() == Mode::Off { Ok(()) } else { exchange_in_step(what, Location::caller()) }
}

#[cold]
fn exchange_in_step(what: Exchange, at: &'static Location<'static>) -> Result<()> {
    let name = if what == Exchange::Read { "reading a tensor back" } else { "making a tensor from host data" };
    let inside = MODE.get() == Mode::Inside;
    SESSION.with_borrow_mut(|s| {
        let Session::Recording(r) = s else { return Ok(()) };
        if r.is_flat() {
            let message = format!("{name} (at {at}) cannot be part of a recorded step: a replay would not repeat it");
            r.refuse(message.clone());
            return Err(Error::misuse(message));
        }
        if inside && what == Exchange::Read {
            r.spoil(format!("{name} inside a call (at {at}), which a replay would not repeat"));
        }
        Ok(())
    })
}

/// Notes that a backward walk is about to put a gradient into a leaf that now holds `before`.
#[inline]
pub(crate) fn note_leaf(leaf: &Arc<Node>, before: Option<&Tensor>) {
    if MODE.get() == Mode::Inside {
        let before = before.map(|t| Arc::as_ptr(&t.value).addr());
        with_recorder(|r| r.gather(Gather { leaf: leaf.clone(), before }));
    }
}

fn with_recorder(f: impl FnOnce(&mut Recorder)) {
    SESSION.with_borrow_mut(|s| {
        if let Session::Recording(r) = s {
            f(r);
        }
    });
}

/// A captured step on this thread, until it is dropped.
pub(super) struct Running(());

impl Running {
    pub(super) fn enter() -> Running {
        RUNNING.set(RUNNING.get() + 1);
        Running(())
    }
    /// Whether another captured step is around this one.
    pub(super) fn is_inner(&self) -> bool {
        RUNNING.get() > 1
    }
    pub(super) fn record<T>(&self, recorder: Recorder, step: impl FnOnce() -> T) -> (T, Option<Box<Recorder>>) {
        let _off = Off;
        SESSION.set(Session::Recording(Box::new(recorder)));
        MODE.set(Mode::Recording);
        let out = step();
        MODE.set(Mode::Off);
        match SESSION.replace(Session::None) {
            Session::Recording(r) => (out, Some(r)),
            _ => (out, None),
        }
    }
    pub(super) fn replay<T>(&self, player: Player, step: impl FnOnce() -> T) -> (T, Option<Box<Player>>) {
        let _off = Off;
        SESSION.set(Session::Replaying(Box::new(player)));
        MODE.set(Mode::Replaying);
        let out = step();
        MODE.set(Mode::Off);
        match SESSION.replace(Session::None) {
            Session::Replaying(p) => (out, Some(p)),
            _ => (out, None),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(RUNNING.get() - 1);
    }
}

/// Ends a session, also when the step panics.
struct Off;
impl Drop for Off {
    fn drop(&mut self) {
        MODE.set(Mode::Off);
        drop(SESSION.replace(Session::None));
    }
}
