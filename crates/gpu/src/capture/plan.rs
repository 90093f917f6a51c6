//! Memory by plan: what a recorded call reserves comes from what earlier calls gave back, and is the same each time that it is made.

use super::{Call, During, MODE, Mode, none};
use crate::Gpu;
use crate::memory::{GpuBuffer, Memory};
use crate::runtime::GpuRuntime;
use gradus_core::{Error, Result};
use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

thread_local! {
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
    pub(super) fn next_call(&self) {
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

/// What a call that is made again reserves.
#[derive(Default)]
struct Plan {
    memory: Vec<Arc<Memory>>,
    next: usize,
}

impl Call {
    /// Makes the call again, with the memory that it reserved when it was recorded.
    pub(super) fn make_again(&mut self) -> Result<()> {
        PLAN.set(Plan { memory: std::mem::take(&mut self.memory), next: 0 });
        let made = {
            let _during = During::set(Mode::Again);
            (self.again)()
        };
        self.memory = PLAN.take().memory;
        made
    }
}

/// Whether memory is reserved by plan.
#[inline]
pub(crate) fn is_inside() -> bool {
    matches!(MODE.get(), Mode::Recorded | Mode::Again)
}

impl<R: GpuRuntime> Gpu<R> {
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
}
