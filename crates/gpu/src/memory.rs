//! Memory on the device: handles of the runtime, counted.
//!
//! The runtime reserves memory later, on a thread of its own, and a reservation that fails there takes that thread down. So
//! every allocation is counted here first and refused, with the sizes, if it cannot fit; after a refusal the device works
//! on.

use crate::capture::Returned;
use cubecl::server::Handle;
use gradus_core::backend::MemoryReport;
use gradus_core::{Error, ErrorKind, Result, Storage};
use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Memory that a recording keeps, or a tensor, or both. Where this lies tells it apart from all other memory.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) handle: Handle,
    pub(crate) bytes: usize,
    _held: Held,
}

impl Memory {
    pub(crate) fn new(handle: Handle, bytes: usize, held: Held) -> Arc<Memory> {
        Arc::new(Memory { handle, bytes, _held: held })
    }
    pub(crate) fn address(self: &Arc<Memory>) -> usize {
        Arc::as_ptr(self).addr()
    }
}

/// One tensor's memory.
#[derive(Debug)]
pub(crate) struct GpuBuffer {
    pub(crate) memory: Arc<Memory>,
    pub(crate) elements: usize,
    pub(crate) name: Arc<str>,
    /// The recording that the memory was reserved for: it gets it back.
    of: Option<Weak<Returned>>,
}

impl GpuBuffer {
    pub(crate) fn new(memory: Arc<Memory>, elements: usize, name: &Arc<str>) -> GpuBuffer {
        GpuBuffer { memory, elements, name: name.clone(), of: None }
    }
    /// The same, of a recording.
    pub(crate) fn of(mut self, recording: &Arc<Returned>) -> GpuBuffer {
        self.of = Some(Arc::downgrade(recording));
        self
    }
    /// A second handle to the same memory.
    pub(crate) fn alias(&self) -> GpuBuffer {
        GpuBuffer::new(self.memory.clone(), self.elements, &self.name)
    }
    pub(crate) fn handle(&self) -> &Handle {
        &self.memory.handle
    }
}

impl Drop for GpuBuffer {
    fn drop(&mut self) {
        if let Some(recording) = self.of.take().and_then(|r| r.upgrade()) {
            recording.take_back(self.memory.clone());
        }
    }
}

impl Storage for GpuBuffer {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
    fn address(&self) -> usize {
        self.memory.address()
    }
}

/// What a device has handed out.
#[derive(Debug)]
pub(crate) struct Ledger {
    in_use: AtomicUsize,
    peak: AtomicUsize,
    /// The most bytes that one buffer may have.
    largest: usize,
    /// The most bytes that all may have together.
    total: usize,
}

/// A share of the ledger, given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    ledger: Arc<Ledger>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ledger.in_use.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Ledger {
    pub(crate) fn new(largest: usize, total: usize) -> Arc<Ledger> {
        Arc::new(Ledger { in_use: AtomicUsize::new(0), peak: AtomicUsize::new(0), largest, total })
    }

    /// Counts `bytes` as held, or refuses them.
    pub(crate) fn hold(self: &Arc<Ledger>, bytes: usize, device: &str) -> Result<Held> {
        let refuse =
            |why: String| Err(Error::new(ErrorKind::Memory, format!("{device} cannot hold {bytes} bytes more: {why}")));
        if bytes > self.largest {
            return refuse(format!("one buffer there has at most {} bytes", self.largest));
        }
        let before = self.in_use.fetch_add(bytes, Ordering::Relaxed);
        let held = Held { ledger: self.clone(), bytes }; // given back if this is refused
        let now = before + bytes;
        if now > self.total {
            return refuse(format!("{before} of its {} bytes are in use", self.total));
        }
        self.peak.fetch_max(now, Ordering::Relaxed);
        Ok(held)
    }

    pub(crate) fn report(&self, reserved: usize) -> MemoryReport {
        MemoryReport { in_use: self.in_use.load(Ordering::Relaxed), peak: self.peak.load(Ordering::Relaxed), reserved }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused_with_the_sizes_and_leaves_the_count_alone() {
        let ledger = Ledger::new(100, 150);
        let first = ledger.hold(100, "gpu").expect("it fits");
        let large = ledger.hold(101, "gpu").expect_err("one buffer is too large").to_string();
        assert!(large.contains("101 bytes") && large.contains("at most 100"), "{large}");
        let full = ledger.hold(60, "gpu").expect_err("there is no room").to_string();
        assert!(full.contains("100 of its 150"), "{full}");
        assert_eq!(ledger.report(0).in_use, 100);
        drop(first);
        assert_eq!((ledger.report(0).in_use, ledger.report(0).peak), (0, 100));
    }
}
