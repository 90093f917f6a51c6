//! Devices: interned, so that a handle is one pointer pair and copying it costs nothing.

use crate::backend::{Backend, MemoryReport};
use crate::dtype::DType;
use crate::error::Result;
use std::fmt;

/// A device that tensors live on: a handle to its backend, which lives as long as the program.
///
/// The prelude of `gradus` adds the ways to come by one: `Device::cpu()`, `Device::parse("cuda:0")?`, `Device::list()`.
#[derive(Clone, Copy)]
pub struct Device(&'static dyn Backend);

impl Device {
    /// The device of a backend. A backend's crate calls this once for each device and hands out the same handle.
    pub const fn new(backend: &'static dyn Backend) -> Device {
        Device(backend)
    }
    /// The backend.
    #[inline]
    pub fn backend(self) -> &'static dyn Backend {
        self.0
    }
    /// Its name, as it is parsed: `cpu`, `cuda:0`.
    pub fn name(self) -> &'static str {
        self.0.name()
    }
    /// Waits until all work handed over is done, and surfaces what went wrong since.
    pub fn synchronize(self) -> Result<()> {
        self.0.synchronize()
    }
    /// What is known about its memory, in bytes.
    pub fn memory(self) -> MemoryReport {
        self.0.memory()
    }
    /// Tensors of this dtype on this device, where a constructor wants to know both.
    pub fn with(self, dtype: DType) -> Place {
        Place { device: self, dtype }
    }
}

impl PartialEq for Device {
    #[inline]
    fn eq(&self, other: &Device) -> bool {
        std::ptr::addr_eq(self.0, other.0)
    }
}
impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where and of what type a new tensor is: a device alone means `f32` on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The device.
    pub device: Device,
    /// The dtype.
    pub dtype: DType,
}

impl From<Device> for Place {
    fn from(device: Device) -> Place {
        Place { device, dtype: DType::F32 }
    }
}
impl From<&Device> for Place {
    fn from(device: &Device) -> Place {
        Place::from(*device)
    }
}
