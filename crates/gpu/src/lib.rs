//! The GPU backend of Gradus: one implementation of [`Backend`] over cubecl's runtimes.
//!
//! | feature | devices | needs at run time |
//! |---|---|---|
//! | `wgpu` | `wgpu:0`, …: any Vulkan adapter | a Vulkan driver (Mesa's software one will do) |
//! | `cuda` | `cuda:0`, …: NVIDIA GPUs | the NVIDIA driver and the CUDA runtime compiler |
//!
//! Without a feature its devices can still be named: the error says what to enable. Kernels are those of `gradus-kernels`,
//! launched on strided views, and Burn's for large matrix products. No type of Burn or cubecl shows outside this crate.
//!
//! Work is asynchronous. Nothing waits but a read-back and `synchronize`, which surface what went wrong since: a kernel
//! that could not be compiled, an index out of range. The same program on the same device gives the same bits each time.

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod capture;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod elementwise;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod fault;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod fused;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod gpu;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod index;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod kernel_of;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod launch;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod matmul;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod memory;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod pace;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod random;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod reduce;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod runtime;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod scan;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod sort;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod types;

pub mod profile;
pub mod strategies;

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "wgpu")]
mod vulkan;

#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) use gpu::Gpu;

use gradus_core::{Backend, Device, Error, ErrorKind, Result};
use std::collections::HashMap;
use std::sync::Mutex;

/// What sort of device it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceKind {
    /// A graphics processor with memory of its own.
    Gpu,
    /// A graphics processor that shares the host's memory.
    IntegratedGpu,
    /// A driver that runs on the CPU: right, but slow.
    Software,
}

/// A device that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// As it is asked for: `wgpu:0`, `cuda:1`.
    pub name: String,
    /// As its driver calls it: `NVIDIA H200`, `llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub description: String,
    /// What sort of device it is.
    pub kind: DeviceKind,
    /// Bytes of its memory; `usize::MAX` where the driver does not say.
    pub memory: usize,
}

type Open = fn(usize) -> Result<&'static dyn Backend>;

/// The devices handed out: one backend each, for as long as the program runs.
static DEVICES: Mutex<Option<HashMap<(&'static str, usize), Device>>> = Mutex::new(None);

fn interned(kind: &'static str, index: usize, open: Open) -> Result<Device> {
    let mut devices = DEVICES.lock().unwrap_or_else(|e| e.into_inner());
    let devices = devices.get_or_insert_default();
    if let Some(device) = devices.get(&(kind, index)) {
        return Ok(*device);
    }
    let device = Device::new(open(index)?);
    devices.insert((kind, index), device);
    Ok(device)
}

/// A device that cannot be had here.
fn unavailable(message: String) -> Error {
    Error::new(ErrorKind::Device, message)
}

/// The Vulkan device `wgpu:index`: real GPUs come before software ones.
///
/// Errs without the feature `wgpu`, without a Vulkan driver, and beyond the last adapter; the message says what to do.
pub fn wgpu(index: usize) -> Result<Device> {
    #[cfg(feature = "wgpu")]
    let open: Open = vulkan::open;
    #[cfg(not(feature = "wgpu"))]
    let open: Open = |index| {
        Err(unavailable(format!(
            "wgpu:{index}: this program was built without it; enable the feature `wgpu` of gradus"
        )))
    };
    interned("wgpu", index, open)
}

/// The NVIDIA device `cuda:index`.
///
/// Errs without the feature `cuda`, without a driver or the CUDA compiler, and beyond the last device; the message says
/// what to do.
pub fn cuda(index: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    let open: Open = cuda::open;
    #[cfg(not(feature = "cuda"))]
    let open: Open = |index| {
        Err(unavailable(format!(
            "cuda:{index}: this program was built without it; enable the feature `cuda` of gradus"
        )))
    };
    interned("cuda", index, open)
}

/// The devices that [`wgpu()`] and [`cuda()`] can give in this build, on this machine.
pub fn list() -> Vec<DeviceInfo> {
    #[allow(unused_mut)] // without features there is nothing to add
    let mut found = Vec::new();
    #[cfg(feature = "cuda")]
    found.extend(cuda::list());
    #[cfg(feature = "wgpu")]
    found.extend(vulkan::list());
    found
}
