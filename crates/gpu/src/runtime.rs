//! What the backend asks of a runtime: cubecl's [`Runtime`](cubecl::Runtime), as Burn's kernels take it.

use burn_cubecl::CubeRuntime;

/// A runtime that the backend can be made for.
pub(crate) trait GpuRuntime: CubeRuntime {
    /// Whether its compiler has exponentials and the like of 64-bit floats.
    const DOUBLES: bool;
}

#[cfg(feature = "wgpu")]
impl GpuRuntime for burn_wgpu::WgpuRuntime {
    // SPIR-V's extended instructions are defined for 16 and 32 bits alone.
    const DOUBLES: bool = false;
}

#[cfg(feature = "cuda")]
impl GpuRuntime for cubecl::cuda::CudaRuntime {
    const DOUBLES: bool = true;
}
