//! Recorded steps: what this thread asks of a device, kept with its memory, to be asked again.
//!
//! The runtimes record no launches, and a record of launches would keep the numbers in them: learning rates, the step of a random
//! key. So what is kept lies one level above: the call of a family of [`Backend`](gradus_core::Backend) or of a fused kernel, with its
//! views. Made again, it launches the same kernels with the numbers of now, and what it reserves is, in the same order, the
//! memory that it reserved when it was recorded. There is no graph, no check and no decision above it.
//!
//! Views are kept by second handles ([`GpuBuffer::alias`]), which do not count as holders. Memory that a recorded call gives back serves
//! later ones by the rules of [`capture_call`](gradus_core::Backend::capture_call).

use crate::Gpu;
use crate::launch::{CUBE, Steps, lengths};
use crate::memory::{GpuBuffer, Memory};
use crate::runtime::GpuRuntime;
use crate::types::U32;
use cubecl::prelude::*;
use gradus_core::backend::{Operand, Replay, WriteMode};
use gradus_core::composite::{Composite, Fused, FusedCall};
use gradus_core::tensor::{Update, UpdateCall};
use gradus_core::{Backend, Buffer, DType, Error, Layout, Precision, Result, View, allows_tf32, with_precision};
use gradus_kernels::copy::store_kernel;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    static PLAN: RefCell<Plan> = const { RefCell::new(Plan { memory: Vec::new(), next: 0 }) };
}

/// Memory that the calls of a recording gave back: by the one that is being recorded, for itself, and by earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    own: Mutex<Vec<Arc<Memory>>>,
    earlier: Mutex<Vec<Arc<Memory>>>,
}

impl Returned {
    pub(crate) fn take_back(&self, memory: Arc<Memory>) {
        lock(&self.own).push(memory);
    }
    fn next_call(&self) {
        lock(&self.earlier).append(&mut lock(&self.own));
    }
    /// Memory of exactly so many bytes.
    fn take(&self, bytes: usize, passing: bool) -> Option<Arc<Memory>> {
        let from = |list: &Mutex<Vec<Arc<Memory>>>| {
            let mut list = lock(list);
            let found = list.iter().rposition(|m| m.bytes == bytes)?;
            Some(list.swap_remove(found))
        };
        from(&self.own).or_else(|| if passing { from(&self.earlier) } else { None })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What a call that is made again reserves.
#[derive(Default)]
struct Plan {
    memory: Vec<Arc<Memory>>,
    next: usize,
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

/// Whether memory is reserved by plan.
#[inline]
pub(crate) fn is_inside() -> bool {
    matches!(MODE.get(), Mode::Recorded | Mode::Again)
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

    /// Memory by plan: new to a recording, or what was reserved at this place when the call was recorded.
    pub(crate) fn planned(&self, elements: usize, bytes: usize) -> Result<GpuBuffer> {
        if MODE.get() == Mode::Again {
            let memory = PLAN.with_borrow_mut(|plan| {
                plan.next += 1;
                plan.memory.get(plan.next - 1).filter(|m| m.bytes == bytes).cloned()
            });
            let other = || Error::misuse("a call that is made again reserves other memory than when it was recorded");
            return Ok(GpuBuffer::new(memory.ok_or_else(other)?, elements, &self.name));
        }
        let spent = self.with_recording(|r| r.returned.take(bytes, r.passing)).ok_or_else(none)?;
        let memory = match spent {
            Some(memory) => memory,
            None => self.fresh(bytes)?,
        };
        self.with_recording(|r| {
            if r.made.insert(memory.address()) {
                r.bytes += bytes;
            }
            r.reserved.push(memory.clone());
            GpuBuffer::new(memory, elements, &self.name).of(&r.returned)
        })
        .ok_or_else(none)
    }

    /// As [`Gpu::recorded`], for operands of which one may be a number.
    pub(crate) fn recorded_pair(
        &self,
        a: Operand<'_>,
        b: Operand<'_>,
        call: impl Fn(&Gpu<R>, Operand<'_>, Operand<'_>) -> Result<Buffer> + Send + 'static,
    ) -> Result<Buffer> {
        use Operand::{Scalar, View};
        match (a, b) {
            (View(a), View(b)) => self.recorded(&[a, b], move |gpu, x| call(gpu, View(x[0]), View(x[1]))),
            (View(a), Scalar(b)) => self.recorded(&[a], move |gpu, x| call(gpu, View(x[0]), Scalar(b.clone()))),
            (Scalar(a), View(b)) => self.recorded(&[b], move |gpu, x| call(gpu, Scalar(a.clone()), View(x[0]))),
            (a, b) => call(self, a, b),
        }
    }

    /// Enters the fused kernel of composite `C`, its calls recorded.
    pub(crate) fn fused<C: Composite + Clone>(
        &'static self,
        kernel: impl Fn(&Gpu<R>, FusedCall<'_, C>) -> Result<Option<Fused>> + Copy + Send + Sync + 'static,
    ) {
        self.kernels().register(move |c: FusedCall<'_, C>| {
            if !self.is_recording() {
                return kernel(self, c);
            }
            let (op, outputs, records) = (c.op.clone(), c.outputs.to_vec(), c.records);
            self.recorded(c.x, move |gpu, x| kernel(gpu, FusedCall { op: &op, on: gpu, x, outputs: &outputs, records }))
        });
    }

    /// Enters the fused kernel of update `U`, its calls recorded.
    pub(crate) fn fused_update<U: Update + Clone>(
        &'static self,
        kernel: impl Fn(&Gpu<R>, UpdateCall<'_, '_, U>) -> Result<bool> + Copy + Send + Sync + 'static,
    ) {
        self.kernels().register_update(move |c: UpdateCall<'_, '_, U>| {
            if !self.is_recording() {
                return kernel(self, c);
            }
            let (op, meta) = (c.op.clone(), c.meta);
            let targets = c.targets.iter().map(|b| self.second(b)).collect::<Result<Vec<_>>>()?;
            self.recorded(c.x, move |gpu, x| {
                let mut handles = targets.clone();
                let mut targets: Vec<&mut Buffer> = handles.iter_mut().collect();
                kernel(gpu, UpdateCall { op: &op, on: gpu, targets: &mut targets, meta, x })
            })
        });
    }

    /// As [`Gpu::write_into`], recorded.
    pub(crate) fn recorded_write(&self, dst: &mut Buffer, at: &Layout, src: View<'_>, mode: WriteMode) -> Result<()> {
        if !self.is_recording() {
            return self.write_into(dst, at, src, mode);
        }
        let (to, at) = (self.second(dst)?, *at);
        self.recorded(&[src], move |gpu, x| gpu.write_into(&mut to.clone(), &at, x[0], mode))
    }

    /// Host data as the device stores it, written into new memory each time that the step is made again.
    pub(crate) fn recorded_upload(&self, elements: usize, words: Vec<u8>) -> Result<Buffer> {
        self.recorded(&[], move |gpu, _| {
            let out = gpu.reserve_bytes(elements, words.len())?;
            gpu.write_words(&words, &out)?;
            gpu.done(out)
        })
    }

    /// Writes host data, whole words, over the whole of a buffer.
    fn write_words(&self, words: &[u8], out: &GpuBuffer) -> Result<()> {
        let count = words.len() / 4;
        let held = self.ledger.hold(words.len(), &self.name)?;
        let staged = Memory::new(self.client.create_from_slice(words), words.len(), held);
        let (cubes, dim) = (self.cubes(count.div_ceil(CUBE as usize)), CubeDim::new_1d(CUBE));
        let place = Steps::dense(&[count]);
        // SAFETY: both memories have `count` words, at which the kernel stops.
        unsafe {
            store_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                dim,
                self.address(&[count])?,
                self.raw(&staged.handle, count),
                self.raw(out.handle(), count),
                lengths(&[count]),
                place.place(),
                place.place(),
                count,
                false,
                [U32, U32],
            );
        }
        self.launched();
        Ok(())
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
            PLAN.set(Plan { memory: std::mem::take(&mut call.memory), next: 0 });
            let made = {
                let _during = During::set(Mode::Again);
                (call.again)()
            };
            call.memory = PLAN.take().memory;
            made?;
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
