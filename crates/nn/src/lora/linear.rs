//! An adapter beside a linear layer.

use super::adapter::{LoraAdapter, LoraOptions};
use crate::layer::layer;
use crate::{Cx, Init, Layer, Linear, Module, Site};
use gradus_core::error::or_raise;
use gradus_core::{Result, Tensor};

/// x·Wᵀ + b + scale·x·Aᵀ·Bᵀ, of which A and B alone are trained.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, Linear, LoraLinear, LoraOptions, Module};
/// let device = gradus_cpu::device();
/// let mut init = Init::new(device, 0);
/// let fc = LoraLinear::new(Linear::new(8, 4, &mut init), LoraOptions::new(2), &mut init);
/// let trained: Vec<String> =
///     fc.named_parameters().into_iter().filter(|(_, p)| !p.is_frozen()).map(|(name, _)| name).collect();
/// assert_eq!(trained, ["adapter.lora_a", "adapter.lora_b"]);
/// assert_eq!(fc.call(&Tensor::ones([3, 8], device), &Cx::eval()).dims(), [3, 4]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct LoraLinear {
    /// The frozen layer.
    pub base: Linear,
    /// What is trained.
    pub adapter: LoraAdapter,
    site: Site,
}

impl LoraLinear {
    /// This layer, frozen, with an adapter. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn new(base: Linear, options: LoraOptions, init: &mut Init) -> LoraLinear {
        or_raise(LoraLinear::try_new(base, options, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(mut base: Linear, options: LoraOptions, init: &mut Init) -> Result<LoraLinear> {
        base.freeze();
        let (outputs, inputs) = (base.weight.dim(0), base.weight.dim(1));
        Ok(LoraLinear { adapter: LoraAdapter::try_new(inputs, outputs, options, init)?, base, site: Site::default() })
    }
    /// One layer that computes the same, its weight W + scale·B·A, to be trained.
    pub fn merged(mut self) -> Result<Linear> {
        let weight = self.base.weight.try_add(&self.adapter.delta()?)?.detach();
        self.base.weight.replace(weight)?;
        self.base.unfreeze();
        Ok(self.base)
    }
    #[track_caller]
    fn run(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
        self.base.call(x, cx).try_add(&self.adapter.try_forward(x, cx)?)
    }
}

layer!(LoraLinear, |self, x, cx| self.run(x, cx));
