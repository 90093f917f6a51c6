//! The ways to come by a device. They stand here, and not in the core, because the core knows no backend.

use gradus_core::{Device, Error, ErrorKind, Result};

/// Constructors of [`Device`], brought in by the prelude.
pub trait Devices: Sized {
    /// The CPU of this machine.
    fn cpu() -> Self;
    /// The Vulkan device with this number. Needs feature `wgpu`, and a driver.
    fn wgpu(index: usize) -> Result<Self>;
    /// The NVIDIA device with this number. Needs feature `cuda`, and a driver.
    fn cuda(index: usize) -> Result<Self>;
    /// The fastest device there is: the first NVIDIA device, else the first Vulkan device that is no software, else the CPU.
    fn best() -> Self;
    /// The device called `cpu`, `wgpu:0`, `cuda:1`, or `best`; without a number, the first. (`cpu:1` to `cpu:7` are the same processor.)
    fn parse(name: &str) -> Result<Self>;
    /// Every device that is there.
    fn list() -> Vec<ListedDevice>;
}

/// A device that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedDevice {
    /// What [`Devices::parse`] takes.
    pub name: String,
    /// What it calls itself.
    pub description: String,
}

impl Devices for Device {
    fn cpu() -> Device {
        gradus_cpu::device()
    }

    fn wgpu(index: usize) -> Result<Device> {
        gradus_gpu::wgpu(index)
    }

    fn cuda(index: usize) -> Result<Device> {
        gradus_gpu::cuda(index)
    }

    fn best() -> Device {
        let real = gradus_gpu::list().into_iter().filter(|d| d.kind != gradus_gpu::DeviceKind::Software);
        let fastest = real.min_by_key(|d| !d.name.starts_with("cuda"));
        fastest.and_then(|d| Device::parse(&d.name).ok()).unwrap_or_else(Device::cpu)
    }

    fn parse(name: &str) -> Result<Device> {
        let (kind, index) = match name.split_once(':') {
            Some((kind, index)) => (kind, index.parse::<usize>().map_err(|_| unknown(name))?),
            None => (name, 0),
        };
        match kind {
            "cpu" => gradus_cpu::nth(index),
            "best" if !name.contains(':') => Ok(Device::best()),
            "wgpu" => Device::wgpu(index),
            "cuda" => Device::cuda(index),
            _ => Err(unknown(name)),
        }
    }

    fn list() -> Vec<ListedDevice> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let mut devices =
            vec![ListedDevice { name: "cpu".into(), description: format!("{cores} cores, {:?}", gradus_cpu::level()) }];
        let gpus = gradus_gpu::list().into_iter();
        devices.extend(
            gpus.map(|d| ListedDevice { description: format!("{} ({:?})", d.description, d.kind), name: d.name }),
        );
        devices
    }
}

#[cold]
fn unknown(name: &str) -> Error {
    let there: Vec<String> = Device::list().into_iter().map(|d| d.name).collect();
    Error::new(ErrorKind::Device, format!("there is no device called {name:?}; there are: {}, best", there.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_core::DType;

    #[test]
    fn devices_parse_or_say_what_is_there() {
        assert_eq!(Device::parse("cpu").ok(), Some(Device::cpu()));
        assert_ne!(Device::parse("cpu:1").ok(), Some(Device::cpu()));
        assert_eq!(Device::parse("cpu").map(|d| d.with(DType::F64).dtype).ok(), Some(DType::F64));
        for bad in ["", "tpu", "cpu:8", "cuda:x", "cpu:", "best:0"] {
            let e = Device::parse(bad).expect_err(bad).to_string();
            assert!(e.contains("cpu") || e.contains("cuda"), "{e}");
        }
    }
}
