//! Weight normalization (Salimans & Kingma, 2016).

use super::weighted::{Weighted, WithoutWeight, sum_but};
use crate::module::{Visitor, VisitorMut};
use crate::{Cx, Layer, Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::{Result, Tensor};

/// A layer whose weight is g·v/‖v‖: its lengths g and directions v are trained apart, one length for each output. In PyTorch:
/// `torch.nn.utils.parametrizations.weight_norm`, whose names its parameters have (`parametrizations.weight.original0`, `original1`).
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, Linear, Module, WeightNorm};
/// let device = gradus_cpu::device();
/// let fc = Linear::new(4, 3, &mut Init::new(device, 0));
/// let x = Tensor::ones([2, 4], device);
/// let before = fc.call(&x, &Cx::eval());
/// let fc = WeightNorm::new(fc);
/// assert!((fc.call(&x, &Cx::eval()) - before).abs().amax(&[0, 1], false).item::<f32>()? < 1e-6);
/// assert_eq!(fc.g().dims(), [3, 1]);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WeightNorm<L> {
    layer: L,
    magnitudes: Magnitudes,
}

/// The names' middle part.
#[derive(Module, Clone, Debug)]
struct Magnitudes {
    weight: Originals,
}

#[derive(Module, Clone, Debug)]
struct Originals {
    #[module(rename = "original0")]
    g: Param,
    #[module(rename = "original1")]
    v: Param,
}

impl<L: Weighted> WeightNorm<L> {
    /// This layer, whose weight keeps its value. Panics at the caller's line if the device refuses.
    #[track_caller]
    pub fn new(layer: L) -> WeightNorm<L> {
        or_raise(WeightNorm::try_new(layer))
    }
    /// As [`new`](Self::new), with errors returned.
    pub fn try_new(layer: L) -> Result<WeightNorm<L>> {
        let v = layer.weight().detach();
        // PyTorch's default dimension is 0 for every layer.
        let g = sum_but(&v.try_square()?, 0)?.try_sqrt()?;
        let weight = Originals { g: Param::try_new(g)?, v: Param::try_new(v)? };
        Ok(WeightNorm { layer, magnitudes: Magnitudes { weight } })
    }
    /// g, `[outputs, 1, ..]`.
    pub fn g(&self) -> &Param {
        &self.magnitudes.weight.g
    }
    /// v, of the weight's shape.
    pub fn v(&self) -> &Param {
        &self.magnitudes.weight.v
    }
    /// The weight: g·v/‖v‖.
    pub fn weight(&self) -> Result<Tensor> {
        let norm = sum_but(&self.v().try_square()?, 0)?.try_sqrt()?;
        self.v().try_mul(&self.g().try_div(&norm)?)
    }
    /// The layer with its weight as a parameter of its own again.
    pub fn into_layer(mut self) -> Result<L> {
        let weight = self.weight()?.detach();
        self.layer.weight_mut().replace(weight)?;
        Ok(self.layer)
    }
}

impl<L: Weighted> Module for WeightNorm<L> {
    fn kind(&self) -> &'static str {
        "WeightNorm"
    }
    fn describe(&self) -> String {
        format!("{}({})", self.layer.kind(), self.layer.describe())
    }
    fn site(&self) -> Option<&Site> {
        self.layer.site()
    }
    fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>) {
        self.layer.visit(&mut WithoutWeight(v));
        v.child("parametrizations", &self.magnitudes);
    }
    fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>) {
        self.layer.visit_mut(&mut WithoutWeight(v));
        v.child("parametrizations", &mut self.magnitudes);
    }
}

impl<L: Weighted> Layer for WeightNorm<L> {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        or_raise(self.weight().and_then(|w| self.layer.try_forward_with(x, &w, cx)))
    }
}
