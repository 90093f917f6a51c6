//! The one doorway: every kernel of the CPU backend runs through [`launch`], which states what it reads and writes.
//!
//! Usually the kernel just runs. While this thread records, it is also kept, with its memory, to run again.

use crate::memory::{Arena, Block, CpuStorage};
use gradus_core::backend::Replay;
use gradus_core::{Buffer, Error, Result};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Elements that a kernel reads: a pointer and a length, so that a recorded kernel can hold it.
#[derive(Debug)]
pub(crate) struct In<T> {
    ptr: *const T,
    len: usize,
}

/// Elements that a kernel writes.
#[derive(Debug)]
pub(crate) struct Out<T> {
    ptr: *mut T,
    len: usize,
}

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for In<T> {}
impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}

// SAFETY: `launch` keeps the memory alive while a kernel runs or is recorded; kernels write disjoint parts from their threads.
unsafe impl<T: Send> Send for In<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for In<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Out<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Out<T> {}

impl<T> In<T> {
    /// All elements of a storage.
    pub(crate) fn of(s: &CpuStorage) -> In<T> {
        In { ptr: s.ptr().cast(), len: s.bytes() / size_of::<T>() }
    }
    /// The elements as a slice; to be called inside a launched kernel only.
    #[inline(always)]
    pub(crate) fn slice(&self) -> &[T] {
        // SAFETY: the storage holds `len` initialized elements, aligned to 64 bytes, kept alive by `launch`; nobody writes
        // them while the kernel runs (a kernel's outputs are held alone).
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl<T> Out<T> {
    /// All elements of a storage that the caller holds alone.
    pub(crate) fn of(s: &CpuStorage) -> Out<T> {
        Out { ptr: s.ptr().cast(), len: s.bytes() / size_of::<T>() }
    }
    /// All elements; to be called inside a launched kernel only, and once at a time.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn slice(&self) -> &mut [T] {
        self.part(0, self.len)
    }
    /// Elements `start..start + len`; parts that are alive at the same time must not overlap.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn part(&self, start: usize, len: usize) -> &mut [T] {
        debug_assert!(start + len <= self.len);
        // SAFETY: inside the storage's `len` initialized elements; the storage is held alone by the caller of `launch`, and the
        // kernel's threads take parts that do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(start), len) }
    }
    /// All elements, to be read by several threads once none writes any more.
    #[inline(always)]
    pub(crate) fn whole(&self) -> &[T] {
        self.part(0, self.len)
    }
    /// Pointer to the first element, for kernels that write strided places.
    #[inline(always)]
    pub(crate) fn ptr(&self) -> *mut T {
        self.ptr
    }
}

struct Recorder {
    arena: Arc<Arena>,
    kernels: Vec<Box<dyn Fn() + Send + Sync>>,
    /// What the kernels touch, kept alive.
    touched: Vec<Arc<Block>>,
    /// Why the recording cannot be replayed, if so.
    spoilt: Option<Error>,
}

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
    static FAILURE: RefCell<Option<Error>> = const { RefCell::new(None) };
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Says that the kernel being run found something wrong in its data (an index out of range).
#[cold]
pub(crate) fn fail(error: Error) {
    FAILURE.with_borrow_mut(|f| *f = f.take().or(Some(error)));
}

/// What a kernel run by this thread found wrong, if anything.
#[inline]
pub(crate) fn failure() -> Result<()> {
    FAILURE.with_borrow_mut(Option::take).map_or(Ok(()), Err)
}

/// Runs a kernel that reads and writes the given storages; while this thread records, keeps it as well.
#[inline]
pub(crate) fn launch(reads: &[&CpuStorage], writes: &[&CpuStorage], kernel: impl Fn() + Send + Sync + 'static) {
    kernel();
    if RECORDING.get() {
        record(reads, writes, Box::new(kernel));
    }
}

#[cold]
fn record(reads: &[&CpuStorage], writes: &[&CpuStorage], kernel: Box<dyn Fn() + Send + Sync>) {
    RECORDER.with_borrow_mut(|r| {
        if let Some(r) = r {
            r.kernels.push(kernel);
            r.touched.extend(reads.iter().chain(writes).filter_map(|s| s.block().cloned()));
        }
    });
}

/// The arena of this thread's recording, if it records.
#[inline]
pub(crate) fn arena() -> Option<Arc<Arena>> {
    if !RECORDING.get() {
        return None;
    }
    RECORDER.with_borrow(|r| r.as_ref().map(|r| r.arena.clone()))
}

/// Says that what happens now cannot be replayed: an error while this thread records.
#[inline]
pub(crate) fn outside_recording(what: &str) -> Result<()> {
    if !RECORDING.get() {
        return Ok(());
    }
    let error = || Error::misuse(format!("{what} cannot be part of a recorded step: a replay would not repeat it"));
    RECORDER.with_borrow_mut(|r| {
        if let Some(r) = r {
            r.spoilt.get_or_insert_with(error);
        }
    });
    Err(error())
}

/// Begins a recording on this thread.
pub(crate) fn begin() -> Result<()> {
    if RECORDING.get() {
        return Err(Error::misuse("this thread records a step already; recordings do not nest"));
    }
    let recorder = Recorder { arena: Arc::default(), kernels: Vec::new(), touched: Vec::new(), spoilt: None };
    RECORDER.with_borrow_mut(|r| *r = Some(recorder));
    RECORDING.set(true);
    Ok(())
}

/// Ends this thread's recording.
pub(crate) fn end() -> Result<Box<dyn Replay>> {
    RECORDING.set(false);
    let Some(mut recorder) = RECORDER.with_borrow_mut(Option::take) else {
        return Err(Error::misuse("this thread records no step"));
    };
    recorder.arena.close();
    if let Some(why) = recorder.spoilt.take() {
        return Err(why);
    }
    recorder.touched.sort_by_key(|b| Arc::as_ptr(b).addr());
    recorder.touched.dedup_by_key(|b| Arc::as_ptr(b).addr());
    Ok(Box::new(Recording { arena: recorder.arena, kernels: recorder.kernels, _touched: recorder.touched }))
}

struct Recording {
    arena: Arc<Arena>,
    kernels: Vec<Box<dyn Fn() + Send + Sync>>,
    _touched: Vec<Arc<Block>>,
}

impl Replay for Recording {
    fn replay(&mut self) -> Result<()> {
        self.kernels.iter().for_each(|k| k());
        failure()
    }
    fn held(&self) -> usize {
        self.arena.live.load(Ordering::Relaxed)
    }
    fn kernels(&self) -> usize {
        self.kernels.len()
    }
}

/// The CPU's storage behind a buffer.
#[inline]
pub(crate) fn storage(buffer: &Buffer) -> Result<&CpuStorage> {
    buffer.as_any().downcast_ref().ok_or_else(|| Error::misuse("this buffer was not made by the CPU backend"))
}
