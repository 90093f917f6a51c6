//! Layers one after another.

use crate::{Cx, Layer, Module, Site};
use gradus_core::Tensor;
use std::fmt;

/// A layer of a type that is not known, which can be cloned: what [`Sequential`] holds. Every layer that is `Clone` is one.
pub trait AnyLayer: Layer {
    /// A clone.
    fn boxed(&self) -> Box<dyn AnyLayer>;
}

impl<L: Layer + Clone + 'static> AnyLayer for L {
    fn boxed(&self) -> Box<dyn AnyLayer> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn AnyLayer> {
    fn clone(&self) -> Box<dyn AnyLayer> {
        (**self).boxed() // the layer's, not the box's own, which would be this again
    }
}

/// Layers one after another, named by their places: `0.weight`, `2.bias`. In PyTorch: `torch.nn.Sequential`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, Linear, Module, Relu, Sequential};
/// let device = gradus_cpu::device();
/// let mut init = Init::new(device, 0);
/// let mlp = Sequential::new().add(Linear::new(4, 8, &mut init)).add(Relu).add(Linear::new(8, 2, &mut init));
/// let names: Vec<String> = mlp.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["0.weight", "0.bias", "2.weight", "2.bias"]);
/// assert_eq!(mlp.call(&Tensor::ones([5, 4], device), &Cx::eval()).dims(), [5, 2]);
/// ```
#[derive(Module, Clone, Default)]
pub struct Sequential {
    #[module(flatten)]
    layers: Vec<Box<dyn AnyLayer>>,
    site: Site,
}

impl Sequential {
    /// No layers: the identity.
    pub fn new() -> Sequential {
        Sequential::default()
    }
    /// With `layer` after those it has.
    #[expect(clippy::should_implement_trait, reason = "the field's word for it; layers have no `+`")]
    pub fn add(mut self, layer: impl Layer + Clone + 'static) -> Sequential {
        self.layers.push(Box::new(layer));
        self
    }
    /// How many layers it has.
    pub fn len(&self) -> usize {
        self.layers.len()
    }
    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
    /// Its layers, in order.
    pub fn layers(&self) -> &[Box<dyn AnyLayer>] {
        &self.layers
    }
    /// Its layers, in order, to be changed.
    pub fn layers_mut(&mut self) -> &mut Vec<Box<dyn AnyLayer>> {
        &mut self.layers
    }
}

impl Layer for Sequential {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.call(&x, cx);
        }
        x
    }
}

impl fmt::Debug for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.layers.iter().map(|l| format!("{}({})", l.kind(), l.describe()));
        f.debug_list().entries(layers).finish()
    }
}
