//! Activations as layers: a row each.

use crate::layer::layer;
use crate::{Init, Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::ops::BinaryOp;
use gradus_core::{Error, Result, Tensor};

/// Activations without parameters of their own: a row gives the documentation, the type, its options with PyTorch's defaults,
/// and the function.
macro_rules! activations {
    ($($(#[$doc:meta])* $t:ident, $torch:literal => |$x:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[doc = concat!("In PyTorch: `torch.nn.", $torch, "`.")]
        #[derive(Module, Clone, Copy, Debug, Default)]
        pub struct $t;
        layer!($t, |self, $x, _cx| $body);
    )*};
}

activations! {
    /// max(x, 0).
    Relu, "ReLU" => |x| x.try_relu();
    /// min(max(x, 0), 6).
    Relu6, "ReLU6" => |x| x.try_relu6();
    /// x·Φ(x), exact (Hendrycks & Gimpel, 2016).
    Gelu, "GELU" => |x| x.try_gelu();
    /// x·Φ(x), with tanh in Φ's place.
    GeluTanh, "GELU(approximate='tanh')" => |x| x.try_gelu_tanh();
    /// x·sigmoid(x).
    Silu, "SiLU" => |x| x.try_silu();
    /// x·tanh(softplus(x)) (Misra, 2019).
    Mish, "Mish" => |x| x.try_mish();
    /// tanh(x).
    Tanh, "Tanh" => |x| x.try_tanh();
    /// 1/(1 + e⁻ˣ).
    Sigmoid, "Sigmoid" => |x| x.try_sigmoid();
    /// ln sigmoid(x).
    LogSigmoid, "LogSigmoid" => |x| x.try_log_sigmoid();
    /// x/(1 + |x|).
    Softsign, "Softsign" => |x| x.try_softsign();
    /// min(max(x/6 + 1/2, 0), 1).
    HardSigmoid, "Hardsigmoid" => |x| x.try_hard_sigmoid();
    /// x·hard sigmoid(x).
    HardSwish, "Hardswish" => |x| x.try_hard_swish();
    /// The self-normalizing exponential unit (Klambauer et al., 2017).
    Selu, "SELU" => |x| x.try_selu();
    /// x − tanh(x).
    Tanhshrink, "Tanhshrink" => |x| x.try_tanhshrink();
    /// e^xᵢ / Σⱼ e^xⱼ over the channels, at each place of images `[batch, channels, height, width]` (or without the batch).
    Softmax2d, "Softmax2d" => |x| match x.rank() {
        3 | 4 => x.try_softmax(-3),
        _ => Err(Error::misuse("needs an input [batch, channels, height, width], or without the batch")
            .in_op("softmax2d", [(x.dtype(), *x.shape())])),
    };
    /// x itself.
    Identity, "Identity" => |x| Ok(x.clone());
}

macro_rules! activations_with_options {
    ($($(#[$doc:meta])* $t:ident($($(#[$field_doc:meta])* $field:ident: $ty:ty = $default:expr),+), $torch:literal => |$self:ident, $x:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[doc = concat!("In PyTorch: `torch.nn.", $torch, "`, whose defaults this type's `default()` has.")]
        #[derive(Module, Clone, Copy, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            $($(#[$field_doc])* pub $field: $ty,)+
        }
        impl $t {
            /// With these options.
            pub fn new($($field: $ty),+) -> $t {
                $t { $($field),+ }
            }
            fn described(&self) -> String {
                [$(format!("{} = {:?}", stringify!($field), self.$field)),+].join(", ")
            }
        }
        impl Default for $t {
            fn default() -> $t {
                $t { $($field: $default),+ }
            }
        }
        layer!($t, |$self, $x, _cx| $body);
    )*};
}

activations_with_options! {
    /// x where x > 0, else slope·x.
    LeakyRelu(
        /// The slope below 0.
        slope: f64 = 0.01
    ), "LeakyReLU" => |self, x| x.try_leaky_relu(self.slope);
    /// x where x > 0, else alpha·(eˣ − 1).
    Elu(
        /// How far below 0 it goes.
        alpha: f64 = 1.0
    ), "ELU" => |self, x| x.try_elu(self.alpha);
    /// max(x, 0) + min(alpha·(e^(x/alpha) − 1), 0).
    Celu(
        /// How far below 0 it goes.
        alpha: f64 = 1.0
    ), "CELU" => |self, x| x.try_celu(self.alpha);
    /// ln(1 + e^(beta·x))/beta; x itself where beta·x > threshold, as it is there in `f32`.
    Softplus(
        /// How sharp the bend is; not 0.
        beta: f64 = 1.0,
        /// From where on it is x.
        threshold: f64 = 20.0
    ), "Softplus" => |self, x| softplus(x, self.beta, self.threshold);
    /// x limited to [low, high].
    Hardtanh(
        /// The least value.
        low: f64 = -1.0,
        /// The greatest value.
        high: f64 = 1.0
    ), "Hardtanh" => |self, x| x.try_hardtanh(self.low, self.high);
    /// x where |x| > lambda, else 0.
    Hardshrink(
        /// The threshold.
        lambda: f64 = 0.5
    ), "Hardshrink" => |self, x| x.try_hardshrink(self.lambda);
    /// x moved towards 0 by lambda, and 0 where |x| ≤ lambda.
    Softshrink(
        /// The threshold.
        lambda: f64 = 0.5
    ), "Softshrink" => |self, x| x.try_softshrink(self.lambda);
    /// x where x > threshold, else value. (PyTorch has no defaults here; these make it max(x, 0).)
    Threshold(
        /// The threshold.
        threshold: f64 = 0.0,
        /// What stands for the rest.
        value: f64 = 0.0
    ), "Threshold" => |self, x| x.try_threshold(self.threshold, self.value);
    /// a·sigmoid(b), where a and b are the halves of a dimension.
    Glu(
        /// The dimension, counted from the end if negative.
        dim: isize = -1
    ), "GLU" => |self, x| x.try_glu(self.dim);
    /// e^xᵢ / Σⱼ e^xⱼ along a dimension. (PyTorch has no good default for it; here it is the last.)
    Softmax(
        /// The dimension, counted from the end if negative.
        dim: isize = -1
    ), "Softmax" => |self, x| x.try_softmax(self.dim);
    /// e^−xᵢ / Σⱼ e^−xⱼ along a dimension. (PyTorch has no good default for it; here it is the last.)
    Softmin(
        /// The dimension, counted from the end if negative.
        dim: isize = -1
    ), "Softmin" => |self, x| x.try_softmin(self.dim);
    /// xᵢ − ln Σⱼ e^xⱼ along a dimension. (PyTorch has no good default for it; here it is the last.)
    LogSoftmax(
        /// The dimension, counted from the end if negative.
        dim: isize = -1
    ), "LogSoftmax" => |self, x| x.try_log_softmax(self.dim);
}

fn softplus(x: &Tensor, beta: f64, threshold: f64) -> Result<Tensor> {
    if beta == 0.0 || !beta.is_finite() {
        return Err(Error::misuse(format!("softplus: beta must be a number other than 0; got {beta}")));
    }
    if (beta, threshold) == (1.0, 20.0) {
        return x.try_softplus(); // one kernel
    }
    let scaled = x.try_binary_scalar(BinaryOp::Mul, beta)?;
    x.try_where(&scaled.try_gt_scalar(threshold)?, &(scaled.try_softplus()? / beta))
}

/// x where x > 0, else w·x, with a learnt w: one number, or one for each channel (dimension 1). It starts at 1/4.
/// In PyTorch: `torch.nn.PReLU`. (He et al., 2015)
#[derive(Module, Clone, Debug)]
pub struct Prelu {
    /// The slopes below 0, `[channels]` or `[1]`.
    pub weight: Param,
    site: Site,
}

impl Prelu {
    /// Slopes for `channels` channels, or one for all. Panics at the caller's line if they are too many to be held.
    #[track_caller]
    pub fn new(channels: usize, init: &mut Init) -> Prelu {
        or_raise(Prelu::try_new(channels, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(channels: usize, init: &mut Init) -> Result<Prelu> {
        init.next_key(); // nothing is drawn, but the layers after it must not depend on that
        let weight = Tensor::try_full([channels], 0.25, init.place())?;
        Ok(Prelu { weight: Param::try_new(weight)?, site: Site::default() })
    }
}

layer!(Prelu, |self, x, _cx| x.try_prelu(&self.weight));
