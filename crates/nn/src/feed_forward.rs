//! Feed-forward blocks with a gate.

use crate::init::Init;
use crate::layer::layer;
use crate::{Cx, Layer, Linear, Module, Site};
use gradus_core::error::or_raise;
use gradus_core::{Result, Tensor};

/// (silu(x·W_gateᵀ)·x·W_upᵀ)·W_downᵀ for x `[.., width]`: SwiGLU with the matrices around it (Shazeer, "GLU variants improve
/// transformer", 2020), as in Llama, whose names its parameters have. Without biases.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, GatedFeedForward, Init, Layer};
/// let device = gradus_cpu::device();
/// let block = GatedFeedForward::new(16, 40, &mut Init::new(device, 0));
/// assert_eq!(block.call(&Tensor::ones([2, 5, 16], device), &Cx::eval()).dims(), [2, 5, 16]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct GatedFeedForward {
    /// To the gate, `[hidden, width]`.
    pub gate_proj: Linear,
    /// To what it lets through, `[hidden, width]`.
    pub up_proj: Linear,
    /// And back, `[width, hidden]`.
    pub down_proj: Linear,
    site: Site,
}

impl GatedFeedForward {
    /// From `width` numbers through `hidden` ones and back. Panics at the caller's line if it is too large to be held.
    #[track_caller]
    pub fn new(width: usize, hidden: usize, init: &mut Init) -> GatedFeedForward {
        or_raise(GatedFeedForward::try_new(width, hidden, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(width: usize, hidden: usize, init: &mut Init) -> Result<GatedFeedForward> {
        Ok(GatedFeedForward {
            gate_proj: Linear::try_new(width, hidden, init)?.bias(false),
            up_proj: Linear::try_new(width, hidden, init)?.bias(false),
            down_proj: Linear::try_new(hidden, width, init)?.bias(false),
            site: Site::default(),
        })
    }
    #[track_caller]
    fn run(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
        let gated = self.gate_proj.call(x, cx).try_swiglu(&self.up_proj.call(x, cx))?;
        Ok(self.down_proj.call(&gated, cx))
    }
}

layer!(GatedFeedForward, |self, x, cx| self.run(x, cx));
