//! Recorded steps on the CPU.

mod data_dependent;
mod steps;

use gradus_core::Device;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many steps are compared with eager ones.
const STEPS: u64 = 200;

/// Whether a pooling layer can be replayed unchecked.
const UNCHECKED_POOLS: bool = true;

/// So many steps may not take more memory than a hundred.
const LONG: u64 = 3000;

fn device() -> Device {
    gradus_cpu::device()
}

/// Records look anew when a hook is added or a parameter replaced anywhere in the process: tests that count replays take turns.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}
