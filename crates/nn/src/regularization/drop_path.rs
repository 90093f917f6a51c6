//! Stochastic depth: a residual branch is left out for some samples.

use crate::layer::layer;
use crate::{Cx, Module, Site};
use gradus_core::{Error, Result, Tensor};

/// Each sample of x `[batch, ..]` is zeroed with probability p, the rest divided by 1 − p; the identity outside training.
///
/// Put it at the end of a residual branch: `x + drop_path(branch(x))`. The mask is a pure function of (seed, step, the layer's path,
/// call). Source: Huang et al., *Deep networks with stochastic depth* (2016). In torchvision: `StochasticDepth(mode="row")`.
#[derive(Module, Clone, Debug)]
#[module(describe = DropPath::described)]
pub struct DropPath {
    /// The probability of a sample to be zeroed.
    pub p: f64,
    site: Site,
}

impl DropPath {
    /// Zeroes with probability `p`, between 0 and 1 (checked when it runs).
    pub fn new(p: f64) -> DropPath {
        DropPath { p, site: Site::default() }
    }
    fn described(&self) -> String {
        format!("p = {}", self.p)
    }
    #[track_caller]
    fn run(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
        if !(0.0..=1.0).contains(&self.p) {
            return Err(Error::misuse(format!("DropPath: the probability must lie between 0 and 1; got {}", self.p)));
        }
        if !cx.is_training() || self.p == 0.0 {
            return Ok(x.clone());
        }
        if x.rank() == 0 {
            return Err(Error::misuse("DropPath: needs [batch, ..], not a tensor without dimensions"));
        }
        let mut shape = *x.shape();
        for d in 1..x.rank() {
            shape = shape.with(d, 1);
        }
        let mask = Tensor::try_ones(shape, x.place())?.try_dropout(self.p, cx.key(self.site.stream()))?;
        x.try_mul(&mask)
    }
}

layer!(DropPath, |self, x, cx| self.run(x, cx));
