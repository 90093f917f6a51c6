//! The one doorway: every kernel of the CPU backend runs through [`launch`], which states what it reads and writes.
//!
//! Usually the kernel just runs. While this thread records, it is also kept, with its memory, to run again. Who replays it (core's
//! `capture`) has made sure that nobody else holds what it writes: that is what the storage's being held alone comes to then.

use crate::memory::{Arena, Block, CpuStorage};
use crate::simd::{prefetch, vectorized};
use crate::threads::for_chunks;
use gradus_core::backend::Replay;
use gradus_core::{Buffer, DType, Error, Result};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::Arc;

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

/// A thread fetches about so many bytes at a time.
const FETCHED: usize = 16 << 10;

struct Recorder {
    arena: Arc<Arena>,
    kernels: Vec<Kernel>,
    /// What the kernels touch, kept alive.
    touched: Vec<Arc<Block>>,
}

type Kernel = Box<dyn Fn() + Send + Sync>;

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
fn record(reads: &[&CpuStorage], writes: &[&CpuStorage], kernel: Kernel) {
    RECORDER.with_borrow_mut(|r| {
        if let Some(r) = r {
            r.kernels.push(kernel);
            r.touched.extend(reads.iter().chain(writes).filter_map(|s| s.block().cloned()));
        }
    });
}

/// Whether this thread records.
#[inline]
pub(crate) fn is_recording() -> bool {
    RECORDING.get()
}

/// The arena of this thread's recording, if it records.
#[inline]
pub(crate) fn arena() -> Option<Arc<Arena>> {
    if !RECORDING.get() {
        return None;
    }
    RECORDER.with_borrow(|r| r.as_ref().map(|r| r.arena.clone()))
}

/// Begins a recording on this thread.
pub(crate) fn begin() -> Result<()> {
    if RECORDING.get() {
        return Err(Error::misuse("this thread records a step already; recordings do not nest"));
    }
    let recorder = Recorder { arena: Arc::default(), kernels: Vec::new(), touched: Vec::new() };
    RECORDER.with_borrow_mut(|r| *r = Some(recorder));
    RECORDING.set(true);
    Ok(())
}

/// Another call begins in this thread's recording; how many kernels it has so far.
pub(crate) fn call(passing: bool) -> usize {
    RECORDER.with_borrow(|r| {
        r.as_ref().map_or(0, |r| {
            r.arena.call(passing);
            r.kernels.len()
        })
    })
}

/// A second handle to a buffer's memory, unless it is the recording's own.
pub(crate) fn alias(buffer: &Buffer) -> Result<Option<Buffer>> {
    let storage = storage(buffer)?;
    let own = arena().is_some_and(|a| storage.block().is_some_and(|b| b.is_of(&a)));
    Ok(if own { None } else { Some(Arc::new(storage.alias())) })
}

/// Ends this thread's recording.
pub(crate) fn end() -> Result<Box<dyn Replay>> {
    RECORDING.set(false);
    let Some(mut recorder) = RECORDER.with_borrow_mut(Option::take) else {
        return Err(Error::misuse("this thread records no step"));
    };
    recorder.arena.close();
    recorder.touched.sort_by_key(|b| Arc::as_ptr(b).addr());
    recorder.touched.dedup_by_key(|b| Arc::as_ptr(b).addr());
    Ok(Box::new(Recording { arena: recorder.arena, kernels: recorder.kernels, _touched: recorder.touched }))
}

struct Recording {
    arena: Arc<Arena>,
    kernels: Vec<Kernel>,
    _touched: Vec<Arc<Block>>,
}

impl Replay for Recording {
    fn replay(&mut self, kernels: Range<usize>) -> Result<()> {
        self.kernels[kernels].iter().for_each(|k| k());
        failure()
    }
    fn overwrite(&mut self, buffer: &Buffer, dtype: DType, bytes: &[u8]) -> Result<()> {
        let storage = storage(buffer)?;
        let own = storage.block().is_some_and(|b| b.is_of(&self.arena));
        if !own || storage.bytes() != bytes.len() {
            return Err(Error::misuse("a record writes host data only into memory of its own, and all of it"));
        }
        fill_with(storage, dtype, bytes);
        Ok(())
    }
    fn kernels(&self) -> usize {
        self.kernels.len()
    }
}

/// Writes host bytes into a new storage; a recording keeps them, and writes them again.
pub(crate) fn upload(to: &CpuStorage, dtype: DType, bytes: &[u8]) {
    if !RECORDING.get() {
        return fill_with(to, dtype, bytes);
    }
    let (whole, bytes) = (Out::<u8>::of(to), bytes.to_vec());
    launch(&[], &[to], move || fill(whole.slice(), dtype, &bytes));
}

/// Writes host bytes that lie in pieces into a new storage, one after another; several threads fetch them from afar.
pub(crate) fn upload_pieces(to: &CpuStorage, dtype: DType, pieces: &[&[u8]]) {
    if RECORDING.get() {
        return upload(to, dtype, &pieces.concat());
    }
    let mut next = 0;
    let mut placed = Vec::with_capacity(pieces.len());
    for &piece in pieces {
        placed.push((next, piece));
        next += piece.len();
    }
    let (out, group) = (Out::<u8>::of(to), (FETCHED * pieces.len() / next.max(1)).max(1));
    // About 8 bytes a nanosecond.
    for_chunks(pieces.len().div_ceil(group), next / 8, |i| {
        for (k, (at, piece)) in placed.iter().enumerate().skip(i * group).take(group) {
            let next = placed.get(k + 1).map_or(&[][..], |(_, piece)| piece);
            match dtype {
                DType::Bool => fill(out.part(*at, piece.len()), dtype, piece),
                _ => copy_and_fetch(out.part(*at, piece.len()), piece, next),
            }
        }
    });
}

vectorized! {
    /// Copies a piece while the next one is on its way: from wherever in memory they lie, that takes half as long.
    fn copy_and_fetch(out: &mut [u8], piece: &[u8], next: &[u8]) {
        const LINE: usize = 64;
        let mut ahead = next.chunks(LINE);
        let (mut to, from) = (out.chunks_exact_mut(LINE), piece.chunks_exact(LINE));
        let rest = from.remainder();
        for (to, from) in to.by_ref().zip(from) {
            prefetch(ahead.next().unwrap_or_default());
            to.copy_from_slice(from);
        }
        to.into_remainder().copy_from_slice(rest);
    }
}

/// Writes host bytes into a storage that nobody else reads now.
pub(crate) fn fill_with(to: &CpuStorage, dtype: DType, bytes: &[u8]) {
    fill(Out::<u8>::of(to).slice(), dtype, bytes);
}

fn fill(out: &mut [u8], dtype: DType, bytes: &[u8]) {
    if dtype == DType::Bool {
        out.iter_mut().zip(bytes).for_each(|(o, &b)| *o = (b != 0) as u8);
    } else {
        out.copy_from_slice(bytes);
    }
}

/// The CPU's storage behind a buffer.
#[inline]
pub(crate) fn storage(buffer: &Buffer) -> Result<&CpuStorage> {
    buffer.as_any().downcast_ref().ok_or_else(|| Error::misuse("this buffer was not made by the CPU backend"))
}
