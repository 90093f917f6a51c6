//! Writing in place: only by an owner who holds a value alone; anyone else's writer gets a copy, which is counted.

use super::{Tensor, Value};
use crate::backend::{Backend, Buffer, View, WriteMode};
use crate::capture::{self, Ask};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::op::Tensors;
use smallvec::SmallVec;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

static COPIES: AtomicUsize = AtomicUsize::new(0);

/// How many values were copied so far because their writer did not hold them alone.
pub fn copies_on_write() -> usize {
    COPIES.load(Ordering::Relaxed)
}

/// An update of values in place, as optimizers make them: some tensors (the targets) become functions of themselves and of
/// others. Defined by ops, and run by a fused kernel where the device has one.
pub trait Update: Debug + Send + Sync + 'static {
    /// Its name, for messages.
    fn name(&self) -> &'static str;
    /// The targets' new values, of the same shapes and dtypes.
    fn define(&self, targets: &[&Tensor], x: &[&Tensor]) -> Result<Tensors>;
}

/// What a fused update is called with. Targets are dense, held alone, and all of the first one's dtype and shape.
pub struct UpdateCall<'a, 'b, U> {
    /// The update, with its attributes.
    pub op: &'a U,
    /// The device.
    pub on: &'a dyn Backend,
    /// The buffers to be written.
    pub targets: &'a mut [&'b mut Buffer],
    /// Their dtype and shape.
    pub meta: crate::op::Meta,
    /// What is only read.
    pub x: &'a [View<'a>],
}

/// The call that writes a value, in a record.
#[derive(Debug)]
struct Writing;

impl Tensor {
    /// Replaces this tensor's elements by `new`'s; a leaf stays the same leaf. Whoever else holds the old value keeps it.
    ///
    /// An error, and nothing changed, if shape, dtype or device differ.
    pub fn set_value(&mut self, new: &Tensor) -> Result<()> {
        if new.meta() != self.meta() || new.device() != self.device() {
            return Err(Error::misuse(format!(
                "set_value: a {} {} on {} cannot take the value of a {} {} on {}",
                self.dtype(),
                self.shape(),
                self.device(),
                new.dtype(),
                new.shape(),
                new.device()
            )));
        }
        self.value = new.value.clone();
        capture::note_replaced();
        Ok(())
    }

    /// Writes `new` into this tensor's own memory if it holds it alone; else, takes a copy first. A leaf stays the same leaf.
    pub fn write_value(&mut self, new: &Tensor) -> Result<()> {
        if new.meta() != self.meta() || new.device() != self.device() {
            return self.set_value(new); // which says what differs
        }
        capture::refuse_shared(&mut [self]);
        let note = match capture::ask_passing(&Writing, &[self, new]) {
            Ask::Done(done) => return done.map(drop),
            Ask::Note(note) => Some(note),
            _ => None,
        };
        let device = self.device();
        let (buffer, layout) = self.alone()?;
        device.backend().write(buffer, layout, new.view(), WriteMode::Store)?;
        if let Some(note) = note {
            note.wrote(1, &[self, new]);
        }
        Ok(())
    }

    /// This tensor's memory, if nobody else holds it and it is dense.
    pub(crate) fn held_alone(&mut self) -> Option<(&mut Buffer, &Layout)> {
        if !self.is_held_alone() {
            return None;
        }
        // SAFETY: this tensor, lent to be written, is the only holder of its value: nobody else can come by it meanwhile.
        let v = unsafe { &mut *Arc::as_ptr(&self.value).cast_mut() };
        Some((&mut v.buffer, &v.layout))
    }

    /// Whether nobody else holds this tensor's value and memory, which are dense, told from the counts: nobody else can raise them if
    /// this is the only holder. What others did with what they held comes before what is done now.
    fn is_held_alone(&self) -> bool {
        fn alone<T: ?Sized>(x: &Arc<T>) -> bool {
            // Whoever was the last but one may have left a weak handle before it went.
            Arc::strong_count(x) == 1 && {
                fence(Ordering::Acquire);
                Arc::weak_count(x) == 0
            }
        }
        let v = &self.value;
        alone(v) && v.layout.is_dense() && v.layout.offset() == 0 && alone(&v.buffer)
    }

    /// This tensor's memory, held alone and dense: copied first if it was not.
    fn alone(&mut self) -> Result<(&mut Buffer, &Layout)> {
        if !self.is_held_alone() {
            COPIES.fetch_add(1, Ordering::Relaxed);
            let buffer = self.device().backend().copy(self.view())?;
            let layout = Layout::dense(*self.shape());
            self.value = Arc::new(Value::new(buffer, layout, self.dtype(), self.device()));
        }
        self.held_alone().ok_or_else(|| Error::misuse("a fresh copy has another holder"))
    }

    /// Runs an update: `targets` become what it says, in place where they are held alone. Leaves stay the same leaves;
    /// nothing is recorded.
    pub fn update<U: Update>(op: &U, targets: &mut [&mut Tensor], x: &[&Tensor]) -> Result<()> {
        if !capture::is_active() {
            return run_update(op, targets, x);
        }
        capture::refuse_shared(targets);
        let asked = capture::ask_passing(op, &all_of(targets, x));
        match asked {
            Ask::Eager | Ask::Define => run_update(op, targets, x),
            Ask::Done(done) => done.map(drop),
            Ask::Note(note) => {
                run_update(op, targets, x)?;
                note.wrote(targets.len(), &all_of(targets, x));
                Ok(())
            }
        }
    }
}

fn all_of<'a>(targets: &'a [&mut Tensor], x: &[&'a Tensor]) -> SmallVec<[&'a Tensor; 8]> {
    targets.iter().map(|t| &**t).chain(x.iter().copied()).collect()
}

fn run_update<U: Update>(op: &U, targets: &mut [&mut Tensor], x: &[&Tensor]) -> Result<()> {
    let Some(first) = targets.first() else { return Ok(()) };
    let (device, meta) = (first.device(), first.meta());
    let uniform = targets.iter().all(|t| t.meta() == meta && t.device() == device);
    let kernel = device.backend().kernels().get_update::<U>().filter(|_| uniform);
    if let Some(kernel) = kernel {
        let mut views: SmallVec<[View<'_>; 4]> = SmallVec::new();
        x.iter().for_each(|t| views.push(t.view()));
        let mut buffers: SmallVec<[&mut Buffer; 4]> = SmallVec::new();
        for t in targets.iter_mut() {
            buffers.push(t.alone()?.0);
        }
        let done = kernel(op, device.backend(), &mut buffers, meta, &views)?;
        drop(buffers);
        if done {
            return Ok(());
        }
    }
    let new = crate::autodiff::no_grad(|| {
        let now: SmallVec<[&Tensor; 4]> = targets.iter().map(|t| &**t).collect();
        op.define(&now, x)
    })?;
    if new.len() != targets.len() {
        let (have, want) = (new.len(), targets.len());
        return Err(Error::misuse(format!("{}: gave {have} values for {want} targets", op.name())));
    }
    for (target, new) in targets.iter_mut().zip(&new) {
        target.write_value(new).map_err(|e| e.context(op.name()))?;
    }
    Ok(())
}
