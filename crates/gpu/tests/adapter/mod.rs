//! The devices that the tests of this folder run on: `GRADUS_TEST_DEVICES` (`wgpu:0`, or several with commas), else the first
//! of each runtime that was built in and is there. What is not there is said; with `GRADUS_REQUIRE_GPU` set, a device that
//! was asked for and is missing, or no device at all, is a failure.

use gradus_core::{Device, Result};
use std::sync::{Mutex, MutexGuard};

fn open(name: &str) -> Result<Device> {
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let index = index.parse().unwrap_or_else(|_| panic!("GRADUS_TEST_DEVICES names {name:?}, not wgpu:N or cuda:N"));
    match kind {
        "cuda" => gradus_gpu::cuda(index),
        _ => gradus_gpu::wgpu(index),
    }
}

/// The devices, or none after saying why.
pub fn devices() -> Vec<Device> {
    let required = std::env::var_os("GRADUS_REQUIRE_GPU").is_some();
    let asked = std::env::var("GRADUS_TEST_DEVICES").ok();
    let mut built_in = Vec::new();
    if cfg!(feature = "wgpu") {
        built_in.push("wgpu:0");
    }
    if cfg!(feature = "cuda") {
        built_in.push("cuda:0");
    }
    let names = asked.as_deref().map_or(built_in, |names| names.split(',').map(str::trim).collect());
    let mut found = Vec::new();
    for name in names {
        match open(name) {
            Ok(device) => found.push(device),
            Err(error) if required && asked.is_some() => panic!("{error}"),
            Err(error) => println!("skipped on {name}: {error}"),
        }
    }
    assert!(!required || !found.is_empty(), "GRADUS_REQUIRE_GPU is set, and there is no device to test");
    found
}

/// The turn of one test of a program. What went wrong on a device is told to the next who waits, and memory is counted for
/// all, so tests that share a device go one by one.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|e| e.into_inner())
}
