//! The affine layer.

use crate::init::{Init, Initializer, fans};
use crate::layer::{activation_behind, layer};
use crate::{Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::{Result, Tensor};

/// y = x·Wᵀ + b, for x `[.., inputs]` → `[.., outputs]`. In PyTorch: `torch.nn.Linear`.
///
/// W `[outputs, inputs]` and b `[outputs]` start uniform on ±1/√inputs.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, Linear};
/// let device = gradus_cpu::device();
/// let fc = Linear::new(64, 10, &mut Init::new(device, 0));
/// let y = fc.call(&Tensor::ones([32, 64], device), &Cx::eval());
/// assert_eq!(y.dims(), [32, 10]);
/// ```
#[derive(Module, Clone, Debug)]
#[module(describe = Linear::options)]
pub struct Linear {
    /// W, `[outputs, inputs]`.
    pub weight: Param,
    /// b, `[outputs]`.
    pub bias: Option<Param>,
    site: Site,
}

impl Linear {
    /// A layer from `inputs` to `outputs` numbers. Panics at the caller's line if it is too large to be held.
    #[track_caller]
    pub fn new(inputs: usize, outputs: usize, init: &mut Init) -> Linear {
        or_raise(Linear::try_new(inputs, outputs, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(inputs: usize, outputs: usize, init: &mut Init) -> Result<Linear> {
        let (place, key) = (init.place(), init.next_key());
        let weight = Initializer::layer_default().try_draw([outputs, inputs], place, key.fold("weight"))?;
        let bias = bias_like(&weight, init, &key)?;
        Ok(Linear { weight: Param::try_new(weight)?, bias: Some(bias), site: Site::default() })
    }
    /// Whether it adds a bias.
    pub fn bias(mut self, bias: bool) -> Linear {
        self.bias = self.bias.filter(|_| bias);
        self
    }

    activation_behind! {
        /// f(y), in one pass where the device can: as an activation layer behind this one, and with gelu and silu a cheaper backward.
        /// Hooks and an observer see y.
        ///
        /// ```
        /// use gradus_core::Tensor;
        /// use gradus_core::ops::UnaryOp;
        /// use gradus_nn::{Cx, Init, Linear};
        /// let device = gradus_cpu::device();
        /// let fc = Linear::new(64, 256, &mut Init::new(device, 0));
        /// let y = fc.call_then(UnaryOp::Gelu, &Tensor::ones([32, 64], device), &Cx::eval());
        /// assert_eq!(y.dims(), [32, 256]);
        /// ```
        |self, x, f| match f {
            Some(f) => x.try_linear_then(&self.weight, self.bias.as_deref(), f),
            None => x.try_linear(&self.weight, self.bias.as_deref()),
        }
    }

    fn options(&self) -> String {
        let bias = if self.bias.is_some() { "" } else { ", no bias" };
        format!("{} → {}{bias}", self.weight.dim(1), self.weight.dim(0))
    }
}

layer!(Linear, |self, x, _cx| x.try_linear(&self.weight, self.bias.as_deref()));

/// The bias that goes with a weight `[outputs, inputs, size..]`: uniform on ±1/√(fan in).
pub(crate) fn bias_like(weight: &Tensor, init: &Init, key: &gradus_core::Key) -> Result<Param> {
    let bound = 1.0 / (fans(weight.shape())?.0.max(1) as f64).sqrt();
    uniform_bias(weight.dim(0), bound, init, key)
}

/// A bias of `n` numbers, uniform on ±`bound`.
pub(crate) fn uniform_bias(n: usize, bound: f64, init: &Init, key: &gradus_core::Key) -> Result<Param> {
    Param::try_new(Initializer::Uniform { low: -bound, high: bound }.try_draw([n], init.place(), key.fold("bias"))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cx, Layer};
    use gradus_core::ops::UnaryOp;
    use gradus_core::{Backward, grad};
    use std::sync::Mutex;

    /// A layer and the activation behind it, in one call and in two: outputs, gradients, and gradients of gradients.
    #[test]
    fn an_activation_behind_a_layer_is_the_same_in_one_call() {
        let device = gradus_cpu::device();
        let mut init = Init::new(device, 3);
        let fc = Linear::new(20, 70, &mut init);
        let x = Initializer::Normal { mean: 0.0, std: 2.0 }.try_draw([90, 20], init.place(), init.next_key());
        let x = x.expect("it can be drawn").requires_grad();
        for f in [UnaryOp::Gelu, UnaryOp::GeluTanh, UnaryOp::Silu, UnaryOp::Relu, UnaryOp::Square] {
            let cx = Cx::eval();
            let run = |y: Tensor| {
                let options = Backward { create_graph: true, ..Backward::default() };
                let first = grad(&[&y.square().sum()], &[&x, &fc.weight], options);
                let second = grad(&[&first[0].square().sum()], &[&x], Backward::default());
                [y, first[0].clone(), first[1].clone(), second[0].clone()].map(|t| t.detach())
            };
            let (one, two) = (run(fc.call_then(f, &x, &cx)), run(or_raise(fc.call(&x, &cx).try_unary(f))));
            for (one, two) in one.iter().zip(&two) {
                let off = (one - two).abs().max().item::<f64>().expect("one number");
                let most = two.abs().max().item::<f64>().expect("one number");
                assert!(off <= 1e-5 * most, "{f:?}: {off} of {most}");
            }
            let plain = |y: Tensor| grad(&[&y.square().sum()], &[&x], Backward::default())[0].to_vec::<f32>();
            let (one, two) = (plain(fc.call_then(f, &x, &cx)), plain(or_raise(fc.call(&x, &cx).try_unary(f))));
            assert_eq!(one.expect("computed"), two.expect("computed"), "{f:?}: a gradient has the same bits");
        }
    }

    #[test]
    fn an_observer_sees_a_layer_before_the_activation_behind_it() {
        let device = gradus_cpu::device();
        let fc = Linear::new(3, 4, &mut Init::new(device, 0));
        let x = Tensor::ones([2, 3], device);
        let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
        let to = seen.clone();
        let cx = Cx::eval().observing(move |call| {
            to.lock().expect("nobody panicked").push(call.output.to_vec::<f32>().expect("computed"));
        });
        let y = fc.call_then(UnaryOp::Relu, &x, &cx);
        let before = fc.call(&x, &Cx::eval());
        assert_eq!(*seen.lock().expect("nobody panicked"), [before.to_vec::<f32>().expect("computed")]);
        assert_eq!(y.to_vec::<f32>().expect("computed"), before.relu().to_vec::<f32>().expect("computed"));
    }
}
