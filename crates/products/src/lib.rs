//! Burn's tiled matrix products, compiled once for each runtime.
//!
//! Their generic code takes a compiler the better part of a minute for each runtime, so it is instantiated here, behind
//! functions that are not generic, and is compiled anew only when this crate changes. `gradus-gpu` decides which product is
//! worth it (docs/adr/0004), and owns all memory.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::ComputeClient;
use cubecl::server::Handle;

#[cfg(feature = "cuda")]
pub use burn_cuda::CudaDevice;
#[cfg(feature = "wgpu")]
pub use burn_wgpu::{WgpuDevice, WgpuRuntime};
#[cfg(feature = "cuda")]
pub use cubecl::cuda::CudaRuntime;

/// The floats that Burn's products have kernels for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Float {
    /// 32 bits.
    F32,
    /// 16 bits, IEEE.
    F16,
    /// 16 bits, the upper half of 32.
    Bf16,
}

/// Dense matrices `[.., rows, columns]` in memory of the device, from its first element on.
#[derive(Clone, Debug)]
pub struct Matrices {
    /// The memory.
    pub handle: Handle,
    /// The shape as it lies in memory.
    pub shape: Vec<usize>,
    /// Whether the product sees each matrix transposed.
    pub transposed: bool,
}

/// A runtime for which the products are compiled.
pub trait Products: CubeRuntime {
    /// Writes `a × b`, both of `float`, to `out`. The text of an error is Burn's.
    fn product(
        client: &ComputeClient<Self>,
        device: &Self::Device,
        a: Matrices,
        b: Matrices,
        out: Matrices,
        float: Float,
    ) -> Result<(), String>;
}

#[cfg(feature = "wgpu")]
impl Products for WgpuRuntime {
    fn product(
        client: &ComputeClient<Self>,
        device: &Self::Device,
        a: Matrices,
        b: Matrices,
        out: Matrices,
        float: Float,
    ) -> Result<(), String> {
        tiled(client, device, a, b, out, float)
    }
}

#[cfg(feature = "cuda")]
impl Products for CudaRuntime {
    fn product(
        client: &ComputeClient<Self>,
        device: &Self::Device,
        a: Matrices,
        b: Matrices,
        out: Matrices,
        float: Float,
    ) -> Result<(), String> {
        tiled(client, device, a, b, out, float)
    }
}

fn tiled<R: CubeRuntime>(
    client: &ComputeClient<R>,
    device: &R::Device,
    a: Matrices,
    b: Matrices,
    out: Matrices,
    float: Float,
) -> Result<(), String> {
    let dtype = match float {
        Float::F32 => burn_backend::DType::F32,
        Float::F16 => burn_backend::DType::F16,
        Float::Bf16 => burn_backend::DType::BF16,
    };
    let tensor = |m: Matrices| {
        let rank = m.shape.len();
        let mut t = CubeTensor::new_contiguous(client.clone(), device.clone(), m.shape.into(), m.handle, dtype);
        if m.transposed {
            t.meta.swap(rank - 2, rank - 1);
        }
        t
    };
    // `Cube` chooses by shape; `Autotune` would by timing.
    matmul(tensor(a), tensor(b), Some(tensor(out)), MatmulStrategy::Cube, dtype)
        .map(drop)
        .map_err(|error| format!("{error:?}"))
}
