//! Recorded steps: what this thread asks of a device, kept with its memory, to be asked again.
//!
//! The runtimes record no launches, and a record of launches would keep the numbers in them: learning rates, the step of a random
//! key. So what is kept lies one level above: the call of a family of [`Backend`](gradus_core::Backend) or of a fused kernel, with its
//! views. Made again, it launches the same kernels with the numbers of now, and what it reserves is, in the same order, the
//! memory that it reserved when it was recorded. There is no graph, no check and no decision above it.
//!
//! Views are kept by second handles ([`GpuBuffer::alias`](crate::memory::GpuBuffer::alias)), which do not count as holders. Memory that
//! a recorded call gives back serves later ones by the rules of [`capture_call`](gradus_core::Backend::capture_call).

mod calls;
mod plan;

pub(crate) use plan::{Returned, is_inside};

use crate::Gpu;
use crate::memory::Memory;
use crate::runtime::GpuRuntime;
use gradus_core::backend::Replay;
use gradus_core::composite::Fused;
use gradus_core::{Buffer, DType, Error, Layout, Precision, Result, View, allows_tf32, with_precision};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Off,
    /// Between two calls of a recording.
    Recording,
    /// In a call that is being recorded.
    Recorded,
    /// In a call that is made again.
    Again,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Off) };
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// A call, and the memory that it reserves, in order.
struct Call {
    memory: Vec<Arc<Memory>>,
    again: Box<dyn Fn() -> Result<()> + Send>,
}

struct Recording {
    /// Where the backend lies.
    device: usize,
    passing: bool,
    returned: Arc<Returned>,
    calls: Vec<Call>,
    /// What the call that is being recorded has reserved so far.
    reserved: Vec<Arc<Memory>>,
    /// Memory of the recording, by address.
    made: HashSet<usize>,
    bytes: usize,
    /// Second handles, by address and length: one for each, so that updates see that they share a factor.
    aliases: HashMap<(usize, usize), Buffer>,
}

/// A view with a second handle to its memory.
struct Kept {
    buffer: Buffer,
    layout: Layout,
    dtype: DType,
}

impl Kept {
    fn view(&self) -> View<'_> {
        View { buffer: &self.buffer, layout: &self.layout, dtype: self.dtype }
    }
}

/// Whether the call was made: a fused kernel may not cover it.
pub(crate) trait Made {
    fn is_made(&self) -> bool {
        true
    }
}
impl Made for Buffer {}
impl Made for () {}
impl Made for Option<Fused> {
    fn is_made(&self) -> bool {
        self.is_some()
    }
}
impl Made for bool {
    fn is_made(&self) -> bool {
        *self
    }
}

/// Sets the mode until it is dropped, also by a panic.
struct During(Mode);

impl During {
    fn set(mode: Mode) -> During {
        During(MODE.replace(mode))
    }
}

impl Drop for During {
    fn drop(&mut self) {
        MODE.set(self.0);
    }
}

fn none() -> Error {
    Error::misuse("this thread records no step of this device")
}

impl<R: GpuRuntime> Gpu<R> {
    fn place(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether this thread records, and is in no recorded call.
    #[inline]
    pub(crate) fn is_recording(&self) -> bool {
        MODE.get() == Mode::Recording && self.with_recording(|_| ()).is_some()
    }

    fn with_recording<T>(&self, f: impl FnOnce(&mut Recording) -> T) -> Option<T> {
        RECORDING.with_borrow_mut(|r| r.as_mut().filter(|r| r.device == self.place()).map(f))
    }

    /// Makes a call; while this thread records, keeps it as well.
    #[inline]
    pub(crate) fn recorded<T: Made>(
        &self,
        x: &[View<'_>],
        call: impl Fn(&Gpu<R>, &[View<'_>]) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.is_recording() { self.record(x, call) } else { call(self, x) }
    }

    #[cold]
    fn record<T: Made>(
        &self,
        x: &[View<'_>],
        call: impl Fn(&Gpu<R>, &[View<'_>]) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let kept = x.iter().map(|v| self.kept(v)).collect::<Result<Vec<_>>>()?;
        let precision = if allows_tf32() { Precision::Tf32 } else { Precision::F32 };
        self.with_recording(|r| r.reserved.clear()); // of a call that panicked
        let given = {
            let _during = During::set(Mode::Recorded);
            call(self, x)
        };
        let memory = self.with_recording(|r| std::mem::take(&mut r.reserved)).unwrap_or_default();
        let given = given?;
        if given.is_made() {
            let gpu = self.for_ever()?;
            let again = move || {
                let views: Vec<View<'_>> = kept.iter().map(Kept::view).collect();
                with_precision(precision, || call(gpu, &views)).map(drop)
            };
            self.with_recording(|r| r.calls.push(Call { memory, again: Box::new(again) }));
        }
        Ok(given)
    }

    fn kept(&self, x: &View<'_>) -> Result<Kept> {
        Ok(Kept { buffer: self.second(x.buffer)?, layout: *x.layout, dtype: x.dtype })
    }

    /// The second handle of a buffer's memory.
    fn second(&self, buffer: &Buffer) -> Result<Buffer> {
        let memory = self.memory_of(buffer)?;
        let key = (memory.memory.address(), memory.elements);
        let alias = || -> Buffer { Arc::new(memory.alias()) };
        Ok(self.with_recording(|r| r.aliases.entry(key).or_insert_with(alias).clone()).unwrap_or_else(alias))
    }

    pub(crate) fn begin(&self) -> Result<()> {
        if RECORDING.with_borrow(Option::is_some) {
            return Err(Error::misuse("this thread records a step already; recordings do not nest"));
        }
        self.let_updates_go();
        RECORDING.set(Some(Recording {
            device: self.place(),
            passing: false,
            returned: Arc::default(),
            calls: Vec::new(),
            reserved: Vec::new(),
            made: HashSet::new(),
            bytes: 0,
            aliases: HashMap::new(),
        }));
        MODE.set(Mode::Recording);
        Ok(())
    }

    pub(crate) fn next_call(&self, passing: bool) -> usize {
        let next = |r: &mut Recording| {
            r.returned.next_call();
            r.passing = passing;
            r.calls.len()
        };
        self.with_recording(next).unwrap_or(0)
    }

    pub(crate) fn recorded_bytes(&self) -> usize {
        self.with_recording(|r| r.bytes).unwrap_or(0)
    }

    /// A second handle for core, which counts who holds it: not one of those that the calls share.
    pub(crate) fn second_handle(&self, buffer: &Buffer) -> Result<Option<Buffer>> {
        let memory = self.memory_of(buffer)?;
        let own = self.with_recording(|r| r.made.contains(&memory.memory.address())).unwrap_or(false);
        Ok(if own { None } else { Some(Arc::new(memory.alias())) })
    }

    pub(crate) fn end(&self) -> Result<Box<dyn Replay>> {
        MODE.set(Mode::Off);
        self.let_updates_go();
        let recording = RECORDING.take().filter(|r| r.device == self.place()).ok_or_else(none)?;
        Ok(Box::new(Record { gpu: self.for_ever()?, calls: recording.calls, made: recording.made }))
    }
}

/// A recorded step.
struct Record<R: GpuRuntime> {
    gpu: &'static Gpu<R>,
    calls: Vec<Call>,
    made: HashSet<usize>,
}

impl<R: GpuRuntime> Replay for Record<R> {
    fn replay(&mut self, kernels: Range<usize>) -> Result<()> {
        for call in &mut self.calls[kernels] {
            call.make_again()?;
        }
        Ok(())
    }

    fn overwrite(&mut self, buffer: &Buffer, dtype: DType, bytes: &[u8]) -> Result<()> {
        let memory = self.gpu.memory_of(buffer)?;
        let words = self.gpu.words(dtype, bytes)?;
        if !self.made.contains(&memory.memory.address()) || words.len() != memory.memory.bytes {
            return Err(Error::misuse("a record writes host data only into memory of its own, and all of it"));
        }
        self.gpu.write_words(&words, memory)
    }

    fn kernels(&self) -> usize {
        self.calls.len()
    }
}
