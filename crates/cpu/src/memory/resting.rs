//! What a thread has for itself, without a lock: small storages that nobody holds, and the bytes that it has not counted yet.

use super::{Block, CLASSES, CpuStorage, LOCAL_CLASS, class_of};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

/// How many storages of one class rest with a thread.
const COUNT: usize = 32;
/// Bytes that a thread takes or gives back before it says so: a count that all threads share costs more than the rest of it.
const UNCOUNTED: isize = 1 << 16;

static IN_USE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static LOCAL: RefCell<Local> = const { RefCell::new(Local { resting: Vec::new(), uncounted: 0 }) };
}

struct Local {
    /// By class; no lists at all until the first storage rests.
    resting: Vec<Vec<Arc<CpuStorage>>>,
    /// Bytes that came into use here, less those that went out of it, and are not in `IN_USE` yet.
    uncounted: isize,
}

impl Local {
    /// The list for one more storage of this class, unless there are enough.
    #[inline]
    fn room(&mut self, class: usize) -> Option<&mut Vec<Arc<CpuStorage>>> {
        if self.resting.is_empty() {
            self.resting.resize_with(CLASSES, Vec::new);
        }
        self.resting.get_mut(class).filter(|list| list.len() < COUNT)
    }

    #[inline]
    fn count(&mut self, bytes: isize) {
        self.uncounted += bytes;
        if self.uncounted.abs() > UNCOUNTED {
            tell(std::mem::take(&mut self.uncounted));
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        tell(self.uncounted);
    }
}

#[cold]
fn tell(bytes: isize) {
    let now = IN_USE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    if now > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(now, Ordering::Relaxed);
    }
}

/// Counts bytes that came into use, or, if negative, went out of it.
pub(super) fn count(bytes: isize) {
    if LOCAL.try_with(|l| l.borrow_mut().count(bytes)).is_err() {
        tell(bytes); // this thread is ending
    }
}

/// The bytes in use, and the most that ever were: exact for what this thread takes, to 64 KiB for any other.
pub(super) fn in_use() -> (usize, usize) {
    let _ = LOCAL.try_with(|l| tell(std::mem::take(&mut l.borrow_mut().uncounted)));
    let bytes = |count: &AtomicIsize| count.load(Ordering::Relaxed).max(0).unsigned_abs();
    (bytes(&IN_USE), bytes(&PEAK))
}

/// A storage that rests here, for so many bytes.
#[inline]
pub(super) fn take(bytes: usize) -> Option<Arc<CpuStorage>> {
    let take = |local: &mut Local| {
        let storage = local.resting.get_mut(class_of(bytes))?.pop()?;
        storage.bytes.store(bytes, Ordering::Relaxed);
        local.count(bytes as isize);
        Some(storage)
    };
    LOCAL.try_with(|l| take(&mut l.borrow_mut())).ok().flatten()
}

/// Lets a storage rest that nobody else holds; without room for it, drops it.
#[inline]
pub(super) fn rest(storage: Arc<CpuStorage>, class: usize) {
    let keep = |local: &mut Local| {
        let bytes = storage.bytes();
        let Some(list) = local.room(class) else { return Some(storage) };
        storage.bytes.store(0, Ordering::Relaxed);
        list.push(storage);
        local.count(-(bytes as isize));
        None
    };
    let _left = LOCAL.try_with(|l| keep(&mut l.borrow_mut())); // dropped when the list is borrowed no more
}

/// Lets a block rest that no storage holds, in one of its own; gives it back if it is large, or there is no room.
pub(super) fn rest_block(block: Arc<Block>) -> Option<Arc<Block>> {
    let (class, mut block) = (block.class, Some(block));
    if class <= LOCAL_CLASS {
        let _ = LOCAL.try_with(|l| {
            if let Some(list) = l.borrow_mut().room(class) {
                list.push(Arc::new(CpuStorage { block: block.take(), bytes: AtomicUsize::new(0), alias: false }));
            }
        });
    }
    block
}

/// Gives what rests here back to the system.
pub(super) fn clear() {
    let resting = LOCAL.try_with(|l| std::mem::take(&mut l.borrow_mut().resting)).unwrap_or_default();
    for storage in resting.into_iter().flatten() {
        drop(Arc::into_inner(storage).and_then(|mut s| s.block.take())); // without its storage it does not rest again
    }
}
