//! Memory: 64-byte aligned blocks that go back to a pool, and are handed out again without being cleared.
//!
//! A fresh page costs more than most kernels that would fill it, so blocks are kept by size class. Small ones rest with the
//! thread that freed them, in the storage that held them: taking one costs no lock and no allocation. Large ones go to a shared
//! list. A recording ([`crate::launch`]) has blocks of its own, so that its replays never write where somebody else reads.

mod resting;

use gradus_core::backend::{MemoryReport, Storage};
use gradus_core::{Buffer, Error, ErrorKind, Result};
use memmap2::MmapMut;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks from this size on are mapped pages of their own.
const MAPPED_FROM: usize = 4 << 20;
/// Cache lines, and the widest vectors.
const ALIGN: usize = 64;
/// Blocks up to this size rest with their thread.
const LOCAL_MAX: usize = 1 << 18;
/// The class of just this size.
const LOCAL_CLASS: usize = (LOCAL_MAX.ilog2() as usize - 6) * 4;
/// Size classes: four to each power of two, from 64 bytes.
const CLASSES: usize = 4 * 58;

/// A block of memory. It was zeroed when it came from the system, so it never holds uninitialized bytes.
#[derive(Debug)]
pub(crate) struct Block {
    ptr: NonNull<u8>,
    class: usize,
    /// The pages of a large block, mapped for it alone.
    pages: Option<MmapMut>,
    /// The recording it belongs to, if any.
    home: Option<Arc<Arena>>,
}

// SAFETY: a block is plain memory; who may touch it when is ruled by `CpuStorage` and the doorway `launch`.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        RESERVED.fetch_sub(class_size(self.class), Ordering::Relaxed);
        if self.pages.is_none() {
            // SAFETY: allocated in `Block::new` with this layout, and dropped once.
            unsafe { dealloc(self.ptr.as_ptr(), class_layout(self.class)) }
        }
    }
}

impl Block {
    fn new(class: usize, home: Option<Arc<Arena>>) -> Result<Block> {
        let layout = class_layout(class);
        if layout.size() >= MAPPED_FROM {
            return Block::mapped(class, layout.size(), home);
        }
        // SAFETY: the layout's size is at least 64.
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr) else {
            return Err(Error::new(
                ErrorKind::Memory,
                format!("the system has no {} bytes of memory left", layout.size()),
            ));
        };
        RESERVED.fetch_add(layout.size(), Ordering::Relaxed);
        Ok(Block { ptr, class, pages: None, home })
    }

    /// Fresh zeroed pages, huge ones where the system has them: a first touch then costs a tenth.
    fn mapped(class: usize, size: usize, home: Option<Arc<Arena>>) -> Result<Block> {
        let none =
            |e| Error::new(ErrorKind::Memory, format!("the system has no {size} bytes of memory left")).caused_by(e);
        let mut pages = MmapMut::map_anon(size).map_err(none)?;
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage); // advice: without it, memory is slower, not wrong
        let Some(ptr) = NonNull::new(pages.as_mut_ptr()) else {
            return Err(Error::new(ErrorKind::Memory, format!("the system mapped no {size} bytes")));
        };
        RESERVED.fetch_add(size, Ordering::Relaxed);
        Ok(Block { ptr, class, pages: Some(pages), home })
    }
}

impl Block {
    /// Whether it belongs to this recording.
    pub(crate) fn is_of(&self, arena: &Arc<Arena>) -> bool {
        self.home.as_ref().is_some_and(|home| Arc::ptr_eq(home, arena))
    }
}

#[inline]
fn class_of(bytes: usize) -> usize {
    if bytes <= 64 {
        return 0;
    }
    let n = bytes.next_multiple_of(16);
    let log = n.ilog2() as usize;
    let quarter = ((n - (1 << log)) * 4).div_ceil(1 << log);
    (log - 6) * 4 + quarter
}

/// What a block of a class takes: whole lines, which the steps between small powers of two are not.
fn class_size(class: usize) -> usize {
    let base = 64usize << (class / 4);
    (base + base / 4 * (class % 4)).next_multiple_of(ALIGN)
}

fn class_layout(class: usize) -> Layout {
    // SAFETY: 64 is a power of two, and `take` refuses sizes near `isize::MAX`.
    unsafe { Layout::from_size_align_unchecked(class_size(class), ALIGN) }
}

static RESERVED: AtomicUsize = AtomicUsize::new(0);

type FreeLists = Vec<Vec<Arc<Block>>>;

static SHARED: Mutex<FreeLists> = Mutex::new(Vec::new());

/// The blocks of one recording.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    /// Given back by the call that is being recorded, for its own later kernels.
    fresh: Mutex<FreeLists>,
    /// Given back by earlier calls, for calls that leave nothing behind.
    spent: Mutex<FreeLists>,
    passing: AtomicBool,
    bytes: AtomicUsize,
    closed: AtomicBool,
}

impl Arena {
    /// Another call begins: see [`gradus_core::Backend::capture_call`].
    pub(crate) fn call(&self, passing: bool) {
        let mut spent = lock(&self.spent);
        for list in lock(&self.fresh).iter_mut() {
            list.drain(..).for_each(|block| push(&mut spent, block));
        }
        self.passing.store(passing, Ordering::Relaxed);
    }
    /// How many bytes it has taken from the system.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
    /// No block is handed out from here on: the recording has ended.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        lock(&self.fresh).clear();
        lock(&self.spent).clear();
    }
    fn take(&self, class: usize) -> Option<Arc<Block>> {
        let own = pop(&mut lock(&self.fresh), class);
        own.or_else(|| if self.passing.load(Ordering::Relaxed) { pop(&mut lock(&self.spent), class) } else { None })
    }
    /// A block of its own: one that waits for reuse, or a new one.
    fn adopt(self: Arc<Self>, class: usize) -> Result<Arc<Block>> {
        if let Some(mut block) = pop(&mut lock(&SHARED), class)
            && let Some(own) = Arc::get_mut(&mut block)
        {
            own.home = Some(self);
            return Ok(block);
        }
        Block::new(class, Some(self)).map(Arc::new)
    }
    fn give_back(&self, block: Arc<Block>) {
        if !self.closed.load(Ordering::Relaxed) {
            push(&mut lock(&self.fresh), block);
        }
    }
}

fn lock(lists: &Mutex<FreeLists>) -> MutexGuard<'_, FreeLists> {
    lists.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pop(lists: &mut FreeLists, class: usize) -> Option<Arc<Block>> {
    lists.get_mut(class)?.pop()
}

fn push(lists: &mut FreeLists, block: Arc<Block>) {
    if lists.is_empty() {
        lists.resize_with(CLASSES, Vec::new);
    }
    lists[block.class].push(block);
}

fn take(bytes: usize) -> Result<Arc<Block>> {
    if bytes > isize::MAX as usize / 2 {
        return Err(Error::new(ErrorKind::Memory, format!("{bytes} bytes are more than any machine has")));
    }
    let class = class_of(bytes);
    if let Some(arena) = crate::launch::arena() {
        if let Some(free) = arena.take(class) {
            return Ok(free);
        }
        arena.bytes.fetch_add(class_size(class), Ordering::Relaxed);
        return arena.adopt(class);
    }
    if let Some(block) = pop(&mut lock(&SHARED), class) {
        return Ok(block);
    }
    Block::new(class, None).map(Arc::new)
}

fn give_back(block: Arc<Block>) {
    if let Some(home) = block.home.clone() {
        return home.give_back(block);
    }
    if Arc::strong_count(&block) > 1 {
        return; // a recording holds it, and drops it when it goes
    }
    if let Some(block) = resting::rest_block(block) {
        push(&mut lock(&SHARED), block);
    }
}

/// Lets memory that a value held rest here, if it is small and nobody else holds it.
#[inline]
pub(crate) fn release(buffer: Buffer) {
    // Who comes by it now came by another handle, and there is none: what its holders did comes before what is done with it here.
    let held = Arc::strong_count(&buffer) > 1 || {
        fence(Ordering::Acquire);
        Arc::weak_count(&buffer) > 0
    };
    if held {
        return;
    }
    let buffer: Arc<dyn Any + Send + Sync> = buffer;
    if let Ok(storage) = buffer.downcast::<CpuStorage>()
        && let Some(class) = storage.may_rest()
    {
        resting::rest(storage, class);
    }
}

/// Gives the memory that waits for reuse, of this thread and of the shared list, back to the system.
pub fn trim() {
    resting::clear();
    lock(&SHARED).clear();
}

/// What is known about the memory: exact for what this thread takes, to 64 KiB for any other.
pub(crate) fn report() -> MemoryReport {
    let (in_use, peak) = resting::in_use();
    MemoryReport { in_use, peak, reserved: RESERVED.load(Ordering::Relaxed) }
}

/// A tensor's memory on the CPU.
#[derive(Debug)]
pub struct CpuStorage {
    /// `None` only while it is being dropped.
    block: Option<Arc<Block>>,
    /// 0 while it rests. Written only by a thread that lets it rest or takes it.
    bytes: AtomicUsize,
    /// Whether the memory is another storage's, who gives it back.
    alias: bool,
}

impl CpuStorage {
    /// Memory of `bytes` bytes with unspecified (but initialized) content.
    #[inline]
    pub(crate) fn new(bytes: usize) -> Result<Arc<CpuStorage>> {
        if bytes <= LOCAL_MAX
            && !crate::launch::is_recording()
            && let Some(storage) = resting::take(bytes)
        {
            return Ok(storage);
        }
        CpuStorage::with_block(bytes)
    }

    #[cold]
    fn with_block(bytes: usize) -> Result<Arc<CpuStorage>> {
        let block = take(bytes)?;
        resting::count(bytes as isize);
        Ok(Arc::new(CpuStorage { block: Some(block), bytes: AtomicUsize::new(bytes), alias: false }))
    }

    /// Its length in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The class under which a thread may keep it, when nobody holds it: not another's memory, a recording's, or a large one.
    #[inline]
    fn may_rest(&self) -> Option<usize> {
        let block = self.block.as_ref().filter(|b| !self.alias && b.home.is_none() && b.class <= LOCAL_CLASS)?;
        (Arc::strong_count(block) == 1).then_some(block.class)
    }

    #[inline]
    pub(crate) fn ptr(&self) -> *mut u8 {
        self.block.as_ref().map_or(std::ptr::null_mut(), |b| b.ptr.as_ptr())
    }

    /// Its bytes. Whoever writes here holds the storage alone, so they stay as they are.
    pub(crate) fn content(&self) -> &[u8] {
        if self.bytes() == 0 {
            return &[];
        }
        // SAFETY: the block has as many initialized bytes and lives as long as the storage.
        unsafe { std::slice::from_raw_parts(self.ptr(), self.bytes()) }
    }

    /// A second handle to the same memory, which is kept from being handed out again while either is there.
    pub(crate) fn alias(&self) -> CpuStorage {
        CpuStorage { block: self.block.clone(), bytes: AtomicUsize::new(self.bytes()), alias: true }
    }

    pub(crate) fn block(&self) -> Option<&Arc<Block>> {
        self.block.as_ref()
    }
}

impl Drop for CpuStorage {
    fn drop(&mut self) {
        if self.alias {
            return; // the block goes with its last handle
        }
        resting::count(-(self.bytes() as isize));
        if let Some(block) = self.block.take() {
            give_back(block);
        }
    }
}

impl Storage for CpuStorage {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
    fn address(&self) -> usize {
        self.ptr().addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_are_asked_for_and_waste_little() {
        for bytes in (1..5000).chain([1 << 20, (1 << 20) + 1, 3 << 30]) {
            let size = class_size(class_of(bytes));
            assert!(size >= bytes && size.is_multiple_of(ALIGN), "{bytes} bytes in {size}");
            assert!(bytes <= 64 || size <= bytes + bytes / 4 + 64, "{bytes} bytes in {size}");
        }
    }

    #[test]
    fn blocks_are_aligned_and_come_back() {
        let a = CpuStorage::new(1000).expect("1000 bytes");
        let ptr = a.ptr();
        assert_eq!(ptr.addr() % ALIGN, 0);
        drop(a);
        assert_eq!(CpuStorage::new(1000).expect("1000 bytes").ptr(), ptr);
    }

    #[test]
    fn memory_rests_when_nobody_holds_it_any_more() {
        let a: Buffer = CpuStorage::new(3000).expect("3000 bytes");
        let (place, other) = (a.address(), a.clone());
        release(a);
        assert_ne!(CpuStorage::new(3000).expect("3000 bytes").address(), place);
        release(other);
        let again = CpuStorage::new(2999).expect("2999 bytes");
        assert_eq!((again.address(), again.bytes()), (place, 2999));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(CpuStorage::new(usize::MAX).is_err());
    }
}
