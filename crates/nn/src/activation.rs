//! Activations as layers: a row each.

use crate::layer::layer;
use crate::{Cx, Init, Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::ops::BinaryOp;
use gradus_core::{Error, Result, Tensor};

/// Activations without parameters of their own: a row gives the documentation, the type, its options with PyTorch's defaults,
/// and the function.
macro_rules! activations {
    ($($(#[$doc:meta])* $t:ident, $torch:literal => |$x:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[doc = concat!("In PyTorch: `torch.nn.", $torch, "`.")]
        #[doc = concat!("
```
use gradus_core::Tensor;
use gradus_nn::{Cx, Layer, ", stringify!($t), "};
let x = Tensor::ones([2, 4, 3, 3], gradus_cpu::device());
assert_eq!(", stringify!($t), ".call(&x, &Cx::eval()).dims(), [2, 4, 3, 3]);
```")]
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
        #[doc = concat!("
```
use gradus_core::Tensor;
use gradus_nn::{Cx, Layer, ", stringify!($t), "};
let x = Tensor::ones([2, 4], gradus_cpu::device());
assert_eq!(", stringify!($t), "::default().call(&x, &Cx::eval()).dim(0), 2);
```")]
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
    /// silu(a)·b, where a and b are the halves of a dimension (Shazeer, 2020). With the matrices around it:
    /// [`GatedFeedForward`](crate::GatedFeedForward).
    SwiGlu(
        /// The dimension, counted from the end if negative.
        dim: isize = -1
    ), "SiLU, of one half of GLU's" => |self, x| swiglu(x, self.dim);
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

fn swiglu(x: &Tensor, dim: isize) -> Result<Tensor> {
    let n = x.dims()[x.shape().dim(dim)?];
    if n == 0 || !n.is_multiple_of(2) {
        let e = Error::misuse(format!("dimension {dim} of length {n} has no halves"));
        return Err(e.in_op("swiglu", [(x.dtype(), *x.shape())]));
    }
    let halves = x.try_split(n / 2, dim)?;
    halves[0].try_silu()?.try_mul(&halves[1])
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
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, Prelu};
/// let device = gradus_cpu::device();
/// let prelu = Prelu::new(1, &mut Init::new(device, 0));
/// let y = prelu.call(&Tensor::from_vec(vec![-4f32, 2.0], [2], device), &Cx::eval());
/// assert_eq!(y.to_vec::<f32>()?, [-1.0, 2.0]);
/// # Ok::<(), gradus_core::Error>(())
/// ```
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

/// x where x > 0, else a·x, where a is drawn from [low, high) for each element in training, and its mean elsewhere. The draws are
/// pure functions of (seed, step, the layer's path, call). In PyTorch: `torch.nn.RReLU`. (Xu et al., 2015)
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Layer, RandomRelu};
/// let x = Tensor::from_vec(vec![-1f32, 2.0], [2], gradus_cpu::device());
/// let y = RandomRelu::new(0.25, 0.75).call(&x, &Cx::eval());
/// assert_eq!(y.to_vec::<f32>()?, [-0.5, 2.0]);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug)]
pub struct RandomRelu {
    /// The least slope.
    pub low: f64,
    /// The slopes' upper bound.
    pub high: f64,
    site: Site,
}

impl RandomRelu {
    /// With slopes from this range.
    pub fn new(low: f64, high: f64) -> RandomRelu {
        RandomRelu { low, high, site: Site::default() }
    }
    #[track_caller]
    fn run(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
        if !(self.low <= self.high && self.low.is_finite() && self.high.is_finite()) {
            return Err(Error::misuse(format!("slopes from {} to {} are no range", self.low, self.high)));
        }
        if !cx.is_training() {
            return x.try_leaky_relu((self.low + self.high) / 2.0);
        }
        let u = Tensor::try_rand(*x.shape(), x.place(), cx.key(self.site.stream()))?;
        x.try_where(&x.try_gt_scalar(0.0)?, &x.try_mul(&(u * (self.high - self.low) + self.low))?)
    }
}

/// PyTorch's range, 1/8 to 1/3.
impl Default for RandomRelu {
    fn default() -> RandomRelu {
        RandomRelu::new(1.0 / 8.0, 1.0 / 3.0)
    }
}

layer!(RandomRelu, |self, x, cx| self.run(x, cx));
