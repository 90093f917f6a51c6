//! Dropout (Srivastava et al., JMLR 2014) and its kin: in training, parts of the input are zeroed at random.

use crate::layer::layer;
use crate::{Cx, Module, Site};
use gradus_core::error::or_raise;
use gradus_core::rng::Distribution;
use gradus_core::{Error, Key, Result, Shape, Tensor};

macro_rules! dropouts {
    ($($(#[$doc:meta])* $t:ident => |$x:ident, $p:ident, $key:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[doc = concat!("
```
use gradus_core::Tensor;
use gradus_nn::{Cx, Layer, ", stringify!($t), "};
let drop = ", stringify!($t), "::new(0.5);
let x = Tensor::ones([2, 3, 4, 4, 4], gradus_cpu::device());
assert_eq!(drop.call(&x, &Cx::eval()).to_vec::<f32>()?, x.to_vec::<f32>()?);
assert_ne!(drop.call(&x, &Cx::train(0, 0)).to_vec::<f32>()?, x.to_vec::<f32>()?);
# Ok::<(), gradus_core::Error>(())
```")]
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            /// The probability of a part to be zeroed.
            pub p: f64,
            site: Site,
        }
        impl $t {
            /// Zeroes with probability `p`, between 0 and 1 (checked when it runs).
            pub fn new(p: f64) -> $t {
                $t { p, site: Site::default() }
            }
            fn described(&self) -> String {
                format!("p = {}", self.p)
            }
            #[track_caller]
            fn run(&self, $x: &Tensor, cx: &Cx) -> Result<Tensor> {
                if !(0.0..=1.0).contains(&self.p) {
                    return Err(Error::misuse(format!("{}: the probability must lie between 0 and 1; got {}", stringify!($t), self.p)));
                }
                if !cx.is_training() || self.p == 0.0 {
                    return Ok($x.clone());
                }
                let ($p, $key) = (self.p, cx.key(self.site.stream()));
                $body
            }
        }
        layer!($t, |self, x, cx| self.run(x, cx));
    )*};
}

dropouts! {
    /// Each element is zeroed with probability p, the rest divided by 1 − p; the identity outside training. The mask is a pure
    /// function of (seed, step, the layer's path, call). In PyTorch: `torch.nn.Dropout`.
    Dropout => |x, p, key| x.try_dropout(p, key);
    /// As [`Dropout`], but whole channels of x `[batch, channels, ..]` are zeroed (Tompson et al., 2015). In PyTorch:
    /// `torch.nn.Dropout1d`, `Dropout2d`, `Dropout3d`, which differ in the inputs that they take as having no batch.
    ChannelDropout => |x, p, key| {
        if x.rank() < 2 {
            return Err(Error::misuse(format!("needs [batch, channels, ..], not shape {}", x.shape())));
        }
        x.try_mul(&Tensor::try_ones(by_channel(x, 2), x.place())?.try_dropout(p, key)?)
    };
    /// Dropout that keeps the mean and variance of inputs of mean 0 and variance 1, for networks of [`Selu`](crate::Selu)
    /// (Klambauer et al., 2017): what is dropped becomes −λα instead of 0, then all is scaled and moved. In PyTorch:
    /// `torch.nn.AlphaDropout`.
    AlphaDropout => |x, p, key| alpha(x, *x.shape(), p, key);
    /// As [`AlphaDropout`], but whole channels of x `[batch, channels, ..]` are dropped. In PyTorch:
    /// `torch.nn.FeatureAlphaDropout`.
    FeatureAlphaDropout => |x, p, key| {
        if x.rank() < 2 {
            return Err(Error::misuse(format!("needs [batch, channels, ..], not shape {}", x.shape())));
        }
        alpha(x, by_channel(x, 2), p, key)
    };
}

impl Dropout {
    /// self(x) + residual, in one pass where the device can: what a block of a transformer ends with. x and residual have one shape.
    /// Panics at the caller's line if they do not.
    #[track_caller]
    pub fn call_add(&self, x: &Tensor, residual: &Tensor, cx: &Cx) -> Tensor {
        or_raise(self.try_call_add(x, residual, cx))
    }
    /// As [`call_add`](Self::call_add), with misuse returned as an error.
    #[track_caller]
    pub fn try_call_add(&self, x: &Tensor, residual: &Tensor, cx: &Cx) -> Result<Tensor> {
        let _scope = cx.enter(self);
        let y = match cx.is_training() && self.p != 0.0 {
            true => x.try_dropout_add(residual, self.p, cx.key(self.site.stream()))?,
            false => x.try_add(residual)?,
        };
        Ok(cx.passed(self, y))
    }
}

macro_rules! channel_dropouts {
    ($($t:ident, $rank:literal, $shape:literal;)*) => {$(
        #[doc = concat!("As [`Dropout`], but whole channels of x `", $shape, "` (or without the batch) are zeroed. In PyTorch: `torch.nn.", stringify!($t), "`.")]
        #[doc = concat!("
```
use gradus_core::Tensor;
use gradus_nn::{Cx, Layer, ", stringify!($t), "};
let x = Tensor::ones(&[vec![2, 3], vec![4; ", stringify!($rank), "]].concat(), gradus_cpu::device());
assert_eq!(", stringify!($t), "::new(0.5).call(&x, &Cx::train(0, 0)).dims(), x.dims());
```")]
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            /// The probability of a channel to be zeroed.
            pub p: f64,
            site: Site,
        }
        impl $t {
            /// Zeroes with probability `p`, between 0 and 1 (checked when it runs).
            pub fn new(p: f64) -> $t {
                $t { p, site: Site::default() }
            }
            fn described(&self) -> String {
                format!("p = {}", self.p)
            }
            #[track_caller]
            fn run(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
                let channels = match x.rank() {
                    r if r == $rank + 2 => 2,
                    r if r == $rank + 1 => 1,
                    _ => return Err(Error::misuse(format!(concat!("needs ", $shape, ", or that without the batch, not shape {}"), x.shape()))),
                };
                if !cx.is_training() || self.p == 0.0 {
                    return Ok(x.clone());
                }
                let key = cx.key(self.site.stream());
                x.try_mul(&Tensor::try_ones(by_channel(x, channels), x.place())?.try_dropout(self.p, key)?)
            }
        }
        layer!($t, |self, x, cx| self.run(x, cx));
    )*};
}
channel_dropouts! {
    Dropout1d, 1, "[batch, channels, length]";
    Dropout2d, 2, "[batch, channels, height, width]";
    Dropout3d, 3, "[batch, channels, depth, height, width]";
}

/// The shape of x with dimensions `from` and later of length 1.
fn by_channel(x: &Tensor, from: usize) -> Shape {
    (from..x.rank()).fold(*x.shape(), |shape, d| shape.with(d, 1))
}

/// x where an element of the mask is kept, else −λα; then a·y + b, so that mean 0 and variance 1 stay.
fn alpha(x: &Tensor, mask: Shape, p: f64, key: Key) -> Result<Tensor> {
    const DROPPED: f64 = -1.758_099_340_847_376_6; // −λα of SELU
    if p == 1.0 {
        return x.try_mul(&Tensor::try_zeros((), x.place())?);
    }
    let kept = Tensor::try_random(Distribution::Bernoulli(1.0 - p), mask, x.place(), key)?;
    let a = 1.0 / ((1.0 - p) * (1.0 + p * DROPPED * DROPPED)).sqrt();
    let b = -a * p * DROPPED;
    // a·(x·m + DROPPED·(1 − m)) + b
    x.try_mul(&(&kept * a))?.try_add(&((1.0 - kept) * (a * DROPPED) + b))
}
