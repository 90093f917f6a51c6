//! What the backend asks of a runtime: cubecl's [`Runtime`](cubecl::Runtime), with Burn's products.

use cubecl::server::ServerError;
use gradus_products::Products;
use std::pin::Pin;

/// What a runtime's `sync` gives.
pub(crate) type Fence = Pin<Box<dyn Future<Output = Result<(), ServerError>> + Send>>;

/// A runtime that the backend can be made for.
pub(crate) trait GpuRuntime: Products {
    /// Whether its compiler has exponentials and the like of 64-bit floats.
    const DOUBLES: bool;
    /// A fence for the work handed over so far, and not for what is handed over before somebody waits.
    fn armed(fence: Fence) -> Fence;
}

#[cfg(feature = "wgpu")]
impl GpuRuntime for gradus_products::WgpuRuntime {
    // SPIR-V's extended instructions are defined for 16 and 32 bits alone.
    const DOUBLES: bool = false;
    fn armed(mut fence: Fence) -> Fence {
        // It asks the queue when it is first polled.
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        match fence.as_mut().poll(&mut nobody) {
            std::task::Poll::Ready(done) => Box::pin(std::future::ready(done)),
            std::task::Poll::Pending => fence,
        }
    }
}

#[cfg(feature = "cuda")]
impl GpuRuntime for gradus_products::CudaRuntime {
    const DOUBLES: bool = true;
    fn armed(fence: Fence) -> Fence {
        fence // an event of the stream, set when the fence was made; polling it waits
    }
}
