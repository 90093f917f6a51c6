//! Recorded steps on the first device: the same tests as on the CPU.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

mod adapter;
#[path = "../../../tests/tests/capture/entries.rs"]
mod entries;
#[path = "../../../tests/tests/replay/steps.rs"]
mod steps;

use gradus_core::Device;
use std::sync::{MutexGuard, OnceLock};

/// Of the catalog the first case of each entry is recorded: the others differ in shapes.
const EVERY_CASE: bool = false;

/// So many steps are compared with eager ones.
const STEPS: u64 = 60;

/// Whether a pooling layer can be replayed unchecked: its tables are made on the host here, which such replays refuse.
const UNCHECKED_POOLS: bool = false;

/// So many steps may not take more memory than a hundred.
const LONG: u64 = 400;

/// The first device, if there is one.
fn first() -> Option<Device> {
    static FIRST: OnceLock<Option<Device>> = OnceLock::new();
    *FIRST.get_or_init(|| adapter::devices().first().copied())
}

fn device() -> Device {
    first().expect("a test that has its turn has a device")
}

/// Whether the device cannot run an entry.
fn lacks(entry: &str) -> bool {
    entry == "to_dtype" // its case casts to f64, which no Vulkan device computes with (docs/adr/0002)
}

/// The turn of a test, if there is a device.
fn turn() -> Option<MutexGuard<'static, ()>> {
    let turn = adapter::turn();
    first().map(|_| turn)
}
