//! Normal noise on activations.

use crate::layer::layer;
use crate::{Cx, Module, Site};
use gradus_core::ops::BinaryOp;
use gradus_core::{Error, Result, Tensor};

/// x + σ·n with n standard normal; the identity outside training.
///
/// As a first layer it is noise on the input: training with it is, to second order, a penalty on the output's slope (Bishop,
/// *Training with noise is equivalent to Tikhonov regularization*, 1995). The noise is a pure function of (seed, step, the layer's
/// path, call). PyTorch has no such layer; Keras calls it `GaussianNoise`.
#[derive(Module, Clone, Debug)]
#[module(describe = GaussianNoise::described)]
pub struct GaussianNoise {
    /// The standard deviation σ.
    pub deviation: f64,
    site: Site,
}

impl GaussianNoise {
    /// Noise of this standard deviation, finite and not negative (checked when it runs).
    pub fn new(deviation: f64) -> GaussianNoise {
        GaussianNoise { deviation, site: Site::default() }
    }
    fn described(&self) -> String {
        format!("deviation = {}", self.deviation)
    }
    #[track_caller]
    fn run(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
        if !(self.deviation.is_finite() && self.deviation >= 0.0) {
            let got = self.deviation;
            return Err(Error::misuse(format!(
                "GaussianNoise: the deviation must be finite and at least 0; got {got}"
            )));
        }
        if !cx.is_training() || self.deviation == 0.0 {
            return Ok(x.clone());
        }
        let noise = Tensor::try_randn(*x.shape(), x.place(), cx.key(self.site.stream()))?;
        x.try_add(&noise.try_binary_scalar(BinaryOp::Mul, self.deviation)?)
    }
}

layer!(GaussianNoise, |self, x, cx| self.run(x, cx));
