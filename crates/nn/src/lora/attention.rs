//! Adapters beside the projections of attention.

use super::adapter::{LoraAdapter, LoraOptions};
use crate::{Cx, Init, Layer, Module, MultiheadAttention, Site};
use gradus_core::error::or_raise;
use gradus_core::functional::attention::AttentionOptions;
use gradus_core::{Result, Tensor};

/// Which projections get an adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoraTargets {
    /// That of the queries.
    pub query: bool,
    /// That of the keys.
    pub key: bool,
    /// That of the values.
    pub value: bool,
    /// That of the heads' results.
    pub output: bool,
}

impl Default for LoraTargets {
    /// Queries and values, as in the paper.
    fn default() -> LoraTargets {
        LoraTargets { query: true, key: false, value: true, output: false }
    }
}

/// Multi-head attention, frozen, with adapters beside its projections.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, LoraAttention, LoraOptions, LoraTargets, MultiheadAttention};
/// let device = gradus_cpu::device();
/// let mut init = Init::new(device, 0);
/// let base = MultiheadAttention::new(16, 4, &mut init).causal();
/// let attention = LoraAttention::new(base, LoraTargets::default(), LoraOptions::new(2), &mut init);
/// assert_eq!(attention.call(&Tensor::ones([2, 5, 16], device), &Cx::eval()).dims(), [2, 5, 16]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct LoraAttention {
    /// The frozen layer.
    pub base: MultiheadAttention,
    /// Beside the projection of queries.
    pub query: Option<LoraAdapter>,
    /// Beside the projection of keys.
    pub key: Option<LoraAdapter>,
    /// Beside the projection of values.
    pub value: Option<LoraAdapter>,
    /// Beside the projection of the heads' results.
    pub output: Option<LoraAdapter>,
    site: Site,
}

impl LoraAttention {
    /// This layer, frozen, with adapters. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn new(base: MultiheadAttention, targets: LoraTargets, options: LoraOptions, init: &mut Init) -> LoraAttention {
        or_raise(LoraAttention::try_new(base, targets, options, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(
        mut base: MultiheadAttention,
        targets: LoraTargets,
        options: LoraOptions,
        init: &mut Init,
    ) -> Result<LoraAttention> {
        base.freeze();
        let o = *base.options();
        let mut adapter = |wanted: bool, inputs: usize| {
            wanted.then(|| LoraAdapter::try_new(inputs, o.width, options, init)).transpose()
        };
        Ok(LoraAttention {
            query: adapter(targets.query, o.width)?,
            key: adapter(targets.key, o.key_width)?,
            value: adapter(targets.value, o.value_width)?,
            output: adapter(targets.output, o.width)?,
            base,
            site: Site::default(),
        })
    }
    /// The attention of queries to keys and values, as [`MultiheadAttention::attend`].
    #[track_caller]
    pub fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor, options: &AttentionOptions, cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        let y = or_raise(self.try_attend([query, key, value], options, cx));
        cx.observe(self, &y);
        y
    }
    #[track_caller]
    fn try_attend(&self, inputs: [&Tensor; 3], options: &AttentionOptions, cx: &Cx) -> Result<Tensor> {
        let adapters = [&self.query, &self.key, &self.value, &self.output];
        self.base.try_adapted(inputs, options, cx, &|i, x| {
            adapters[i].as_ref().map(|adapter| adapter.try_forward(x, cx)).transpose()
        })
    }
}

impl Layer for LoraAttention {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let options = AttentionOptions { causal: self.base.is_causal(), ..Default::default() };
        or_raise(self.try_attend([x, x, x], &options, cx))
    }
}
