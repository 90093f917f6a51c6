//! Recorded calls of the catalog on the CPU.

mod entries;

use gradus_core::Device;

/// Or the first of each entry.
const EVERY_CASE: bool = true;

fn device() -> Device {
    gradus_cpu::device()
}

/// Whether the device cannot run an entry.
fn lacks(_entry: &str) -> bool {
    false
}

/// These tests need not take turns here.
fn turn() -> Option<()> {
    Some(())
}
