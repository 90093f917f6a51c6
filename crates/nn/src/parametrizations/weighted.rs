//! Layers with a weight that something else may stand in for.

use crate::module::{Visitor, VisitorMut};
use crate::{
    Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Cx, Layer, Linear, Module, Param,
};
use gradus_core::{Result, Tensor};

/// A layer that can run with another tensor in its weight's place.
pub trait Weighted: Layer {
    /// Which of the weight's dimensions counts the outputs.
    const OUTPUTS: usize;
    /// Its weight.
    fn weight(&self) -> &Param;
    /// Its weight, to be changed.
    fn weight_mut(&mut self) -> &mut Param;
    /// The output for `x` with `weight` in the weight's place; misuse is returned as an error.
    fn try_forward_with(&self, x: &Tensor, weight: &Tensor, cx: &Cx) -> Result<Tensor>;
}

impl Weighted for Linear {
    const OUTPUTS: usize = 0;
    fn weight(&self) -> &Param {
        &self.weight
    }
    fn weight_mut(&mut self) -> &mut Param {
        &mut self.weight
    }
    fn try_forward_with(&self, x: &Tensor, weight: &Tensor, _cx: &Cx) -> Result<Tensor> {
        x.try_linear(weight, self.bias.as_deref())
    }
}

macro_rules! convolutions {
    ($($t:ident, $outputs:literal;)*) => {$(
        impl Weighted for $t {
            const OUTPUTS: usize = $outputs;
            fn weight(&self) -> &Param {
                &self.weight
            }
            fn weight_mut(&mut self) -> &mut Param {
                &mut self.weight
            }
            fn try_forward_with(&self, x: &Tensor, weight: &Tensor, _cx: &Cx) -> Result<Tensor> {
                self.convolve(x, weight, None)
            }
        }
    )*};
}
convolutions! {
    Conv1d, 0;
    Conv2d, 0;
    Conv3d, 0;
    ConvTranspose1d, 1;
    ConvTranspose2d, 1;
    ConvTranspose3d, 1;
}

/// The parts of a layer but for its weight: it is made from other parameters.
pub(super) struct WithoutWeight<'v, V: ?Sized>(pub &'v mut V);

impl<'a, V: Visitor<'a> + ?Sized> Visitor<'a> for WithoutWeight<'_, V> {
    fn child(&mut self, name: &str, module: &'a dyn Module) {
        if name != "weight" {
            self.0.child(name, module);
        }
    }
}

impl<'a, V: VisitorMut<'a> + ?Sized> VisitorMut<'a> for WithoutWeight<'_, V> {
    fn child(&mut self, name: &str, module: &'a mut dyn Module) {
        if name != "weight" {
            self.0.child(name, module);
        }
    }
}

/// The sum over all dimensions but `dim`, which are kept with length 1.
pub(super) fn sum_but(x: &Tensor, dim: usize) -> Result<Tensor> {
    let others: Vec<isize> = (0..x.rank()).filter(|&d| d != dim).map(|d| d as isize).collect();
    if others.is_empty() { Ok(x.clone()) } else { x.try_sum_dims(&others, true) }
}
