//! A bilinear form of two inputs.

use crate::init::{Init, Initializer};
use crate::{Cx, Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::{Result, Tensor};

/// yₒ = aᵀ·Wₒ·b + biasₒ for a `[.., first]` and b `[.., second]`: `[.., outputs]`. In PyTorch: `torch.nn.Bilinear`.
///
/// W `[outputs, first, second]` and the bias `[outputs]` start uniform on ±1/√first.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Bilinear, Cx, Init};
/// let device = gradus_cpu::device();
/// let form = Bilinear::new(4, 3, 5, &mut Init::new(device, 0));
/// let y = form.pair(&Tensor::ones([2, 4], device), &Tensor::ones([2, 3], device), &Cx::eval());
/// assert_eq!(y.dims(), [2, 5]);
/// ```
#[derive(Module, Clone, Debug)]
#[module(describe = Bilinear::options)]
pub struct Bilinear {
    /// W, `[outputs, first, second]`.
    pub weight: Param,
    /// `[outputs]`
    pub bias: Option<Param>,
    site: Site,
}

impl Bilinear {
    /// From `first` and `second` numbers to `outputs`. Panics at the caller's line if it is too large to be held.
    #[track_caller]
    pub fn new(first: usize, second: usize, outputs: usize, init: &mut Init) -> Bilinear {
        or_raise(Bilinear::try_new(first, second, outputs, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(first: usize, second: usize, outputs: usize, init: &mut Init) -> Result<Bilinear> {
        let (place, key) = (init.place(), init.next_key());
        let bound = 1.0 / (first.max(1) as f64).sqrt();
        let uniform = Initializer::Uniform { low: -bound, high: bound };
        let weight = uniform.try_draw([outputs, first, second], place, key.fold("weight"))?;
        let bias = uniform.try_draw([outputs], place, key.fold("bias"))?;
        Ok(Bilinear { weight: Param::try_new(weight)?, bias: Some(Param::try_new(bias)?), site: Site::default() })
    }
    /// Whether it adds a bias.
    pub fn bias(mut self, bias: bool) -> Bilinear {
        self.bias = self.bias.filter(|_| bias);
        self
    }
    /// The output for a pair of inputs. Panics at the caller's line if they do not fit.
    #[track_caller]
    pub fn pair(&self, a: &Tensor, b: &Tensor, cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        let y = or_raise(a.try_bilinear(b, &self.weight, self.bias.as_deref()));
        cx.observe(self, &y);
        y
    }
    fn options(&self) -> String {
        let (out, first, second) = (self.weight.dim(0), self.weight.dim(1), self.weight.dim(2));
        format!("{first}, {second} → {out}{}", if self.bias.is_some() { "" } else { ", no bias" })
    }
}
