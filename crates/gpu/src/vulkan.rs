//! Vulkan adapters, by name: which there are, and the backend of one.
//!
//! Adapters are numbered with the fastest kind first (discrete, integrated, virtual, unknown) and software ones last, so
//! that `wgpu:0` is a real GPU where there is one.

use crate::gpu::Gpu;
use crate::{DeviceInfo, DeviceKind, unavailable};
use gradus_core::{Backend, Result};
use gradus_products::{WgpuDevice, WgpuRuntime};

/// One adapter: how the runtime names it, and what it is.
struct Adapter {
    device: WgpuDevice,
    info: DeviceInfo,
}

const MISSING: &str = "install a Vulkan driver: the GPU vendor's, or Mesa's software one (Debian and Ubuntu: `apt-get install mesa-vulkan-drivers`)";

/// Every adapter, fastest kind first.
fn adapters() -> Vec<Adapter> {
    let backends = wgpu::Backends::VULKAN;
    let descriptor = wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    let instance = wgpu::Instance::new(descriptor);
    let mut found = cubecl::future::block_on(instance.enumerate_adapters(backends));
    found.sort_by_key(|a| rank(a.get_info().device_type)); // stable: the driver's order within a kind
    let mut seen = [0usize; 5];
    let describe = |(at, adapter): (usize, &wgpu::Adapter)| {
        let info = adapter.get_info();
        let place = &mut seen[rank(info.device_type)];
        let nth = *place;
        *place += 1;
        let (device, kind) = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => (WgpuDevice::DiscreteGpu(nth), DeviceKind::Gpu),
            wgpu::DeviceType::IntegratedGpu => (WgpuDevice::IntegratedGpu(nth), DeviceKind::IntegratedGpu),
            wgpu::DeviceType::VirtualGpu => (WgpuDevice::VirtualGpu(nth), DeviceKind::Gpu),
            wgpu::DeviceType::Cpu => (WgpuDevice::Cpu, DeviceKind::Software),
            wgpu::DeviceType::Other => (WgpuDevice::DefaultDevice, DeviceKind::Gpu),
        };
        let memory = memory(adapter);
        Adapter { device, info: DeviceInfo { name: format!("wgpu:{at}"), description: info.name, kind, memory } }
    };
    found.iter().enumerate().map(describe).collect()
}

fn rank(kind: wgpu::DeviceType) -> usize {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// The bytes of the adapter's own memory: its largest device-local heap.
fn memory(adapter: &wgpu::Adapter) -> usize {
    const DEVICE_LOCAL: u32 = 1; // VK_MEMORY_HEAP_DEVICE_LOCAL_BIT
    // SAFETY: the adapter outlives the reference, and reading its properties changes nothing.
    let heaps = unsafe {
        adapter.as_hal::<wgpu::hal::api::Vulkan>().map(|a| {
            let properties =
                a.shared_instance().raw_instance().get_physical_device_memory_properties(a.raw_physical_device());
            properties.memory_heaps[..properties.memory_heap_count as usize].to_vec()
        })
    };
    let local = heaps.into_iter().flatten().filter(|h| h.flags.as_raw() & DEVICE_LOCAL != 0).map(|h| h.size).max();
    local.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

pub(crate) fn list() -> Vec<DeviceInfo> {
    adapters().into_iter().map(|a| a.info).collect()
}

/// The backend of adapter `index`.
pub(crate) fn open(index: usize) -> Result<&'static dyn Backend> {
    let mut found = adapters();
    if found.is_empty() {
        return Err(unavailable(format!("wgpu:{index}: no Vulkan adapter was found; {MISSING}")));
    }
    if index >= found.len() {
        let names: Vec<String> = found.iter().map(|a| format!("{} ({})", a.info.name, a.info.description)).collect();
        return Err(unavailable(format!("wgpu:{index}: there is no such adapter; there are {}", names.join(", "))));
    }
    let Adapter { device, info } = found.swap_remove(index);
    Ok(Gpu::<WgpuRuntime>::start(&info, device)?)
}
