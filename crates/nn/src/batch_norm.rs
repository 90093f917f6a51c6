//! Batch normalization (Ioffe & Szegedy, 2015).

use crate::init::Init;
use crate::layer::layer;
use crate::{Cx, Module, Param, Site, State};
use gradus_core::device::Place;
use gradus_core::error::or_raise;
use gradus_core::functional::running_average::RunningAverage;
use gradus_core::ops::BinaryOp;
use gradus_core::{DType, Error, Result, Tensor};

macro_rules! batch_norms {
    ($($t:ident, $ranks:pat, $shape:literal, $example:literal;)*) => {$(
        #[doc = concat!("(x − mean)/√(var + eps)·w + b for each channel of x ", $shape, ". In PyTorch: `torch.nn.", stringify!($t), "`.")]
        ///
        /// In training, mean and biased variance are the batch's own, and running averages follow them:
        /// running ← (1 − momentum)·running + momentum·batch, with the unbiased variance. Elsewhere the running averages stand in
        /// for them. w starts at 1, b at 0.
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, Init, Layer, ", stringify!($t), "};")]
        /// let device = gradus_cpu::device();
        #[doc = concat!("let norm = ", stringify!($t), "::new(3, &mut Init::new(device, 0));")]
        #[doc = concat!("let x = Tensor::ones(", $example, ", device);")]
        /// assert_eq!(norm.call(&x, &Cx::train(0, 0)).dims(), x.dims());
        /// assert_eq!(norm.running().map(|r| r.batches.value().item::<i64>()).transpose()?, Some(1));
        /// # Ok::<(), gradus_core::Error>(())
        /// ```
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            #[module(flatten)]
            norm: BatchNorm,
            site: Site,
        }

        impl $t {
            /// For `channels` channels, with eps 1e-5 and momentum 0.1. Panics at the caller's line if they are too many to be held.
            #[track_caller]
            pub fn new(channels: usize, init: &mut Init) -> $t {
                or_raise($t::try_new(channels, init))
            }
            /// As [`new`](Self::new), with misuse returned as an error.
            pub fn try_new(channels: usize, init: &mut Init) -> Result<$t> {
                Ok($t { norm: BatchNorm::try_new(channels, init)?, site: Site::default() })
            }
            /// With this number added to the variance.
            pub fn eps(mut self, eps: f64) -> $t {
                self.norm.eps = eps;
                self
            }
            /// With this weight of the newest batch in the running averages; `None` averages all batches evenly.
            pub fn momentum(mut self, momentum: Option<f64>) -> $t {
                self.norm.momentum = momentum;
                self
            }
            /// Whether it has w and b.
            pub fn affine(mut self, affine: bool) -> $t {
                self.norm.weight = self.norm.weight.filter(|_| affine);
                self.bias_if(affine)
            }
            /// Whether it has b. (Not called `bias`, which gives b.)
            pub fn bias_if(mut self, bias: bool) -> $t {
                self.norm.bias = self.norm.bias.filter(|_| bias);
                self
            }
            /// Whether it keeps running averages; without them, the batch's own statistics serve outside training too.
            pub fn track(mut self, track: bool) -> $t {
                self.norm.running = self.norm.running.filter(|_| track);
                self
            }
            /// w, `[channels]`.
            pub fn weight(&self) -> Option<&Param> {
                self.norm.weight.as_ref()
            }
            /// b, `[channels]`.
            pub fn bias(&self) -> Option<&Param> {
                self.norm.bias.as_ref()
            }
            /// The running averages.
            pub fn running(&self) -> Option<&Running> {
                self.norm.running.as_ref()
            }
            fn described(&self) -> String {
                self.norm.described()
            }
            /// max(self(x) + residual, 0): with the ReLU that follows, and what is added before it (`None`: nothing), in one pass over x
            /// where the device can. Panics at the caller's line if shapes do not fit.
            #[track_caller]
            pub fn call_relu(&self, x: &Tensor, residual: Option<&Tensor>, cx: &Cx) -> Tensor {
                or_raise(self.try_call_relu(x, residual, cx))
            }
            /// As [`call_relu`](Self::call_relu), with misuse returned as an error.
            #[track_caller]
            pub fn try_call_relu(&self, x: &Tensor, residual: Option<&Tensor>, cx: &Cx) -> Result<Tensor> {
                let _scope = cx.enter(self);
                self.check(x)?;
                let then = Then::Relu(residual);
                self.norm.run(x, then, cx).map(|y| cx.passed(self, y))
            }
            #[track_caller]
            fn run(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
                self.check(x)?;
                self.norm.run(x, Then::Nothing, cx)
            }
            fn check(&self, x: &Tensor) -> Result<()> {
                let fits = matches!(x.rank(), $ranks) && x.dims()[1] == self.norm.channels;
                if !fits {
                    let c = self.norm.channels;
                    return Err(misfit(format!("with {c} channels needs an input {}", $shape.replace('`', "")), x));
                }
                Ok(())
            }
        }

        layer!($t, |self, x, cx| self.run(x, cx));
    )*};
}
batch_norms! {
    BatchNorm1d, 2 | 3, "`[batch, channels]` or `[batch, channels, length]`", "[2, 3, 4]";
    BatchNorm2d, 4, "`[batch, channels, height, width]`", "[2, 3, 4, 4]";
    BatchNorm3d, 5, "`[batch, channels, depth, height, width]`", "[2, 3, 4, 4, 4]";
}

fn misfit(message: String, x: &Tensor) -> Error {
    Error::misuse(message).in_op("batch_norm", [(x.dtype(), *x.shape())])
}

/// What follows the normalization.
#[derive(Clone, Copy)]
enum Then<'a> {
    Nothing,
    /// A residual is added, if there is one, and what is negative becomes 0.
    Relu(Option<&'a Tensor>),
}

impl Then<'_> {
    fn apply(self, y: Tensor) -> Result<Tensor> {
        match self {
            Then::Nothing => Ok(y),
            Then::Relu(None) => y.try_relu(),
            Then::Relu(Some(residual)) => y.try_add(residual)?.try_relu(),
        }
    }
}

/// What the layers share: all but the check of the rank.
#[derive(Module, Clone, Debug)]
struct BatchNorm {
    weight: Option<Param>,
    bias: Option<Param>,
    #[module(flatten)]
    running: Option<Running>,
    channels: usize,
    eps: f64,
    momentum: Option<f64>,
}

/// The running averages of a batch normalization.
#[derive(Module, Clone, Debug)]
pub struct Running {
    /// Of the means, `[channels]`; starts at 0.
    #[module(rename = "running_mean")]
    pub mean: State,
    /// Of the unbiased variances, `[channels]`; starts at 1.
    #[module(rename = "running_var")]
    pub var: State,
    /// How many batches there were; `i64`.
    #[module(rename = "num_batches_tracked")]
    pub batches: State,
}

impl Running {
    pub(crate) fn try_new(channels: usize, place: Place) -> Result<Running> {
        Ok(Running {
            mean: State::new(Tensor::try_zeros([channels], place)?),
            var: State::new(Tensor::try_ones([channels], place)?),
            batches: State::new(Tensor::try_zeros((), place.device.with(DType::I64))?),
        })
    }

    /// Takes the statistics of a batch in which each channel had `n` elements.
    fn follow(&self, mean: &Tensor, var: &Tensor, n: usize, momentum: Option<f64>, cx: &Cx) -> Result<()> {
        cx.update(&self.batches, |batches| batches.try_binary_scalar(BinaryOp::Add, 1i64))?;
        let unbiased = var.detach().try_binary_scalar(BinaryOp::Mul, n as f64 / (n - 1) as f64)?;
        self.mix(&mean.detach(), &unbiased, momentum, cx)
    }

    /// Moves the averages towards these, by the momentum or, without one, so that all batches count evenly.
    pub(crate) fn mix(&self, mean: &Tensor, var: &Tensor, momentum: Option<f64>, cx: &Cx) -> Result<()> {
        for (state, batch) in [(&self.mean, mean), (&self.var, var)] {
            cx.update(state, |old| match momentum {
                Some(momentum) => Tensor::try_compose1(RunningAverage { momentum }, &[old, batch]),
                None => old.try_add(&batch.try_sub(old)?.try_div(&self.batches.value().try_to_dtype(old.dtype())?)?),
            })?;
        }
        Ok(())
    }
}

impl BatchNorm {
    fn try_new(channels: usize, init: &mut Init) -> Result<BatchNorm> {
        init.next_key(); // nothing is drawn, but the layers after it must not depend on that
        let place = init.place();
        Ok(BatchNorm {
            weight: Some(Param::try_new(Tensor::try_ones([channels], place)?)?),
            bias: Some(Param::try_new(Tensor::try_zeros([channels], place)?)?),
            running: Some(Running::try_new(channels, place)?),
            channels,
            eps: 1e-5,
            momentum: Some(0.1),
        })
    }

    #[track_caller]
    fn run(&self, x: &Tensor, then: Then<'_>, cx: &Cx) -> Result<Tensor> {
        let (weight, bias) = (self.weight.as_deref(), self.bias.as_deref());
        match &self.running {
            Some(running) if !cx.is_training() => {
                then.apply(x.try_batch_norm(&running.mean.value(), &running.var.value(), weight, bias, self.eps)?)
            }
            running => {
                let n = x.elements() / self.channels.max(1);
                if n == 0 {
                    // An empty batch has no statistics, and nothing to normalize by them.
                    let (zeros, ones) =
                        (Tensor::try_zeros([self.channels], x.place())?, Tensor::try_ones([self.channels], x.place())?);
                    return then.apply(x.try_batch_norm(&zeros, &ones, weight, bias, self.eps)?);
                }
                if n < 2 {
                    return Err(misfit("in training, needs more than one value for each channel".into(), x));
                }
                let (y, mean, var) = match (then, weight, bias) {
                    (Then::Relu(residual), Some(w), Some(b)) if residual.is_none_or(|r| r.shape() == x.shape()) => {
                        x.try_batch_norm_relu_train(w, b, residual, self.eps)?
                    }
                    _ => {
                        let (y, mean, var) = x.try_batch_norm_train(weight, bias, self.eps)?;
                        (then.apply(y)?, mean, var)
                    }
                };
                if let Some(running) = running {
                    running.follow(&mean, &var, n, self.momentum, cx)?;
                }
                Ok(y)
            }
        }
    }

    fn described(&self) -> String {
        let affine = if self.weight.is_some() { "" } else { ", no affine" };
        let tracking = if self.running.is_some() { "" } else { ", no running averages" };
        format!("{}{affine}{tracking}", self.channels)
    }
}
