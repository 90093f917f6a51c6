//! Instance normalization (Ulyanov, Vedaldi & Lempitsky, 2016): each channel of each image by itself.

use crate::batch_norm::Running;
use crate::init::Init;
use crate::layer::layer;
use crate::{Cx, Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::{Error, Result, Tensor};

macro_rules! instance_norms {
    ($($t:ident, $rank:literal, $shape:literal;)*) => {$(
        #[doc = concat!("(x − mean)/√(var + eps)·w + b for each channel of each element of x `", $shape, "` (or without the batch), with the biased variance. In PyTorch: `torch.nn.", stringify!($t), "`.")]
        ///
        /// By default, as in PyTorch, it has no w and b and keeps no running averages. With running averages
        /// ([`track`](Self::track)), training moves them towards the means over the batch, and elsewhere they stand in for the input's
        /// own statistics.
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, Init, Layer, ", stringify!($t), "};")]
        /// let device = gradus_cpu::device();
        #[doc = concat!("let norm = ", stringify!($t), "::new(3, &mut Init::new(device, 0));")]
        #[doc = concat!("let x = Tensor::ones(&[vec![2, 3], vec![4; ", stringify!($rank), "]].concat(), device);")]
        /// assert_eq!(norm.call(&x, &Cx::eval()).dims(), x.dims());
        /// ```
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            #[module(flatten)]
            norm: InstanceNorm,
            site: Site,
        }

        impl $t {
            /// For `channels` channels, with eps 1e-5 and momentum 0.1, without w, b and running averages. Panics at the caller's line if
            /// they are too many to be held.
            #[track_caller]
            pub fn new(channels: usize, init: &mut Init) -> $t {
                or_raise($t::try_new(channels, init))
            }
            /// As [`new`](Self::new), with misuse returned as an error.
            pub fn try_new(channels: usize, init: &mut Init) -> Result<$t> {
                Ok($t { norm: InstanceNorm::try_new(channels, init)?, site: Site::default() })
            }
            /// With this number added to the variance.
            pub fn eps(mut self, eps: f64) -> $t {
                self.norm.eps = eps;
                self
            }
            /// With this weight of the newest batch in the running averages.
            pub fn momentum(mut self, momentum: f64) -> $t {
                self.norm.momentum = momentum;
                self
            }
            /// With w, which starts at 1, and b, which starts at 0. Panics at the caller's line if they cannot be held.
            #[track_caller]
            pub fn affine(mut self, init: &Init) -> $t {
                or_raise(self.norm.make_affine(init));
                self
            }
            /// Without b.
            pub fn without_bias(mut self) -> $t {
                self.norm.bias = None;
                self
            }
            /// With running averages. Panics at the caller's line if they cannot be held.
            #[track_caller]
            pub fn track(mut self, init: &Init) -> $t {
                self.norm.running = Some(or_raise(Running::try_new(self.norm.channels, init.place())));
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
                let affine = if self.norm.weight.is_some() { ", affine" } else { "" };
                let tracking = if self.norm.running.is_some() { ", running averages" } else { "" };
                format!("{}{affine}{tracking}", self.norm.channels)
            }
            #[track_caller]
            fn run(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
                let c = self.norm.channels;
                match x.rank() {
                    r if r == $rank + 2 && x.dims()[1] == c => self.norm.run(x, cx),
                    r if r == $rank + 1 && x.dims()[0] == c => self.norm.run(&x.try_unsqueeze(0)?, cx)?.try_squeeze(0),
                    _ => Err(misfit(format!("with {c} channels needs an input {}, or without the batch", $shape), x)),
                }
            }
        }

        layer!($t, |self, x, cx| self.run(x, cx));
    )*};
}
instance_norms! {
    InstanceNorm1d, 1, "[batch, channels, length]";
    InstanceNorm2d, 2, "[batch, channels, height, width]";
    InstanceNorm3d, 3, "[batch, channels, depth, height, width]";
}

fn misfit(message: String, x: &Tensor) -> Error {
    Error::misuse(message).in_op("instance_norm", [(x.dtype(), *x.shape())])
}

/// What the layers share: all but the check of the rank.
#[derive(Module, Clone, Debug)]
struct InstanceNorm {
    weight: Option<Param>,
    bias: Option<Param>,
    #[module(flatten)]
    running: Option<Running>,
    channels: usize,
    eps: f64,
    momentum: f64,
}

impl InstanceNorm {
    fn try_new(channels: usize, init: &mut Init) -> Result<InstanceNorm> {
        init.next_key(); // nothing is drawn, but the layers after it must not depend on that
        Ok(InstanceNorm { weight: None, bias: None, running: None, channels, eps: 1e-5, momentum: 0.1 })
    }

    fn make_affine(&mut self, init: &Init) -> Result<()> {
        self.weight = Some(Param::try_new(Tensor::try_ones([self.channels], init.place())?)?);
        self.bias = Some(Param::try_new(Tensor::try_zeros([self.channels], init.place())?)?);
        Ok(())
    }

    #[track_caller]
    fn run(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
        let (weight, bias) = (self.weight.as_deref(), self.bias.as_deref());
        match &self.running {
            Some(running) if !cx.is_training() => {
                return x.try_batch_norm(&running.mean.value(), &running.var.value(), weight, bias, self.eps);
            }
            Some(running) => {
                let dims: Vec<isize> = (2..x.rank() as isize).collect();
                let still = x.detach();
                let mean = still.try_mean_dims(&dims, false)?.try_mean_dims(&[0], false)?;
                let var = still.try_var(&dims, 1.0, false)?.try_mean_dims(&[0], false)?;
                running.mix(&mean, &var, Some(self.momentum), cx)?;
            }
            None => {}
        }
        if cx.is_training() && x.dims()[2..].iter().product::<usize>() == 1 {
            return Err(misfit("in training, needs more than one value for each channel".into(), x));
        }
        x.try_instance_norm(weight, bias, self.eps)
    }
}
