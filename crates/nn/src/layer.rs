//! A module that maps a tensor to a tensor.

use crate::{Cx, Module};
use gradus_core::Tensor;

/// A module that maps a tensor to a tensor. Write [`forward`](Layer::forward); call [`call`](Layer::call).
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, Linear, Module, Relu, Site};
///
/// #[derive(Module)]
/// struct Residual { fc: Linear, site: Site }
///
/// impl Layer for Residual {
///     fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
///         x + Relu.call(&self.fc.call(x, cx), cx)
///     }
/// }
///
/// let mut init = Init::new(gradus_cpu::device(), 0);
/// let block = Residual { fc: Linear::new(8, 8, &mut init), site: Site::default() };
/// let y = block.call(&Tensor::ones([2, 8], gradus_cpu::device()), &Cx::eval());
/// assert_eq!(y.dims(), [2, 8]);
/// ```
pub trait Layer: Module {
    /// The output for `x`. Panics at the caller's line if the input does not fit.
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor;

    /// Runs [`forward`](Layer::forward) in the layer's scope: errors name its path in the model, the hooks of the context
    /// may replace its output, and its observer sees it.
    #[track_caller]
    fn call(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        cx.passed(self, self.forward(x, cx))
    }
}

impl<L: Layer + ?Sized> Layer for Box<L> {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        (**self).forward(x, cx)
    }
}

/// No layer is the identity.
impl<L: Layer> Layer for Option<L> {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        match self {
            Some(layer) => layer.forward(x, cx),
            None => x.clone(),
        }
    }
}

/// Writes `forward` for layers whose body gives a `Result`, which is what all of this library's do: misuse panics at the
/// caller's line.
macro_rules! layer {
    ($t:ty, |$self:ident, $x:ident, $cx:ident| $body:expr) => {
        impl crate::Layer for $t {
            #[track_caller]
            fn forward(&$self, $x: &gradus_core::Tensor, $cx: &crate::Cx) -> gradus_core::Tensor {
                // No closure: it would be the panic's line in place of the caller's.
                gradus_core::error::or_raise($body)
            }
        }
    };
}
pub(crate) use layer;

/// Writes `call_then` for layers that can take an activation behind them: the body gives a `Result`, with the activation or, where
/// there is `None`, without.
macro_rules! activation_behind {
    ($(#[$doc:meta])* |$self:ident, $x:ident, $f:ident| $body:expr) => {
        $(#[$doc])*
        #[track_caller]
        pub fn call_then(&self, f: gradus_core::ops::UnaryOp, x: &gradus_core::Tensor, cx: &crate::Cx) -> gradus_core::Tensor {
            gradus_core::error::or_raise(self.try_call_then(f, x, cx))
        }
        /// As [`call_then`](Self::call_then), with misuse returned as an error.
        #[track_caller]
        pub fn try_call_then(
            &$self,
            f: gradus_core::ops::UnaryOp,
            $x: &gradus_core::Tensor,
            cx: &crate::Cx,
        ) -> gradus_core::Result<gradus_core::Tensor> {
            let _scope = cx.enter($self);
            // What watches the layer sees its own result.
            let watched = cx.is_watched();
            let $f = (!watched).then_some(f);
            let y = $body?;
            if watched { cx.passed($self, y).try_unary(f) } else { Ok(y) }
        }
    };
}
pub(crate) use activation_behind;
