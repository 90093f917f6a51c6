//! NVIDIA devices: whether the driver is there, how many, and the backend of one.
//!
//! Without a driver the runtime would panic on a thread of its own, so the driver is asked first, through the few functions
//! of its C interface that count devices and name them.

use crate::gpu::Gpu;
use crate::{DeviceInfo, DeviceKind, unavailable};
use gradus_core::{Backend, Result};
use gradus_products::{CudaDevice, CudaRuntime};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int};

const DRIVERS: [&str; 3] = ["libcuda.so.1", "libcuda.so", "nvcuda.dll"];
const COMPILERS: [&str; 6] =
    ["libnvrtc.so", "libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so.11.2", "nvrtc64_120_0.dll", "nvrtc64_130_0.dll"];

fn load(names: &[&str]) -> Option<Library> {
    // SAFETY: the driver's and the compiler's libraries run no code of ours when loaded; their initializers are NVIDIA's.
    names.iter().find_map(|name| unsafe { Library::new(name) }.ok())
}

/// The driver, initialized.
struct Driver(Library);

impl Driver {
    fn find() -> Result<Driver> {
        let missing = "no NVIDIA driver was found (libcuda.so.1): install the NVIDIA driver, or use `wgpu:0` or `cpu`";
        let driver = Driver(load(&DRIVERS).ok_or_else(|| unavailable(missing.to_owned()))?);
        // SAFETY: `cuInit` takes a flag word that must be 0.
        let code = unsafe { driver.0.get::<unsafe extern "C" fn(u32) -> c_int>(b"cuInit").map(|f| f(0)) };
        match code {
            Ok(0) => Ok(driver),
            Ok(code) => Err(unavailable(format!(
                "the NVIDIA driver could not be initialized (cuInit gave {code}); is there a GPU, and may this user use it?"
            ))),
            Err(_) => Err(unavailable("the library libcuda.so.1 is no NVIDIA driver: it has no cuInit".to_owned())),
        }
    }

    fn count(&self) -> usize {
        let mut count: c_int = 0;
        // SAFETY: the driver writes one int.
        let code = unsafe {
            self.0.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDeviceGetCount").map(|f| f(&mut count))
        };
        if matches!(code, Ok(0)) { count.max(0) as usize } else { 0 }
    }

    fn describe(&self, index: usize) -> DeviceInfo {
        let mut name = [0 as c_char; 128];
        let mut bytes = 0usize;
        // SAFETY: handles of devices are their numbers below the count; the name is cut to the buffer and ends in 0.
        unsafe {
            if let Ok(f) = self.0.get::<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>(b"cuDeviceGetName") {
                f(name.as_mut_ptr(), name.len() as c_int - 1, index as c_int);
            }
            if let Ok(f) = self.0.get::<unsafe extern "C" fn(*mut usize, c_int) -> c_int>(b"cuDeviceTotalMem_v2") {
                f(&mut bytes, index as c_int);
            }
        }
        // SAFETY: the buffer's last byte was never written, so the string ends inside it.
        let description = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let memory = if bytes == 0 { usize::MAX } else { bytes };
        DeviceInfo { name: format!("cuda:{index}"), description, kind: DeviceKind::Gpu, memory }
    }
}

pub(crate) fn list() -> Vec<DeviceInfo> {
    match Driver::find() {
        Ok(driver) => (0..driver.count()).map(|i| driver.describe(i)).collect(),
        Err(_) => Vec::new(),
    }
}

/// The backend of device `index`.
pub(crate) fn open(index: usize) -> Result<&'static dyn Backend> {
    let driver = Driver::find().map_err(|e| e.context(format!("cuda:{index}")))?;
    let count = driver.count();
    if index >= count {
        return Err(unavailable(format!("cuda:{index}: there is no such device; the driver sees {count}")));
    }
    if load(&COMPILERS).is_none() {
        return Err(unavailable(format!(
            "cuda:{index}: the CUDA compiler library (libnvrtc) was not found; install the CUDA toolkit, version 12 or later"
        )));
    }
    let info = driver.describe(index);
    Ok(Gpu::<CudaRuntime>::start(&info, CudaDevice::new(index))?)
}
