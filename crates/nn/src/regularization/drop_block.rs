//! DropBlock: dropout of squares of a feature map, whose neighbours would otherwise give a dropped element away.

use crate::layer::layer;
use crate::{Cx, Module, Site};
use gradus_core::ops::{BinaryOp, PadMode};
use gradus_core::rng::Distribution;
use gradus_core::{Error, Result, Tensor};

/// Squares of x `[batch, channels, height, width]` are zeroed, and the rest scaled up by what is left; the identity outside
/// training.
///
/// A square of `size`² is dropped around each of some random places, so many that about the part p of all elements is: each place
/// where a whole square fits with probability p·h·w / (size²·(h − size + 1)·(w − size + 1)). The rest is multiplied with (elements)
/// / (elements kept). The mask is a pure function of (seed, step, the layer's path, call). Source: Ghiasi, Lin & Le, *DropBlock: a
/// regularization method for convolutional networks* (2018). In torchvision: `DropBlock2d`.
#[derive(Module, Clone, Debug)]
#[module(describe = DropBlock::described)]
pub struct DropBlock {
    /// The part of the elements to be zeroed.
    pub p: f64,
    /// A square's side.
    pub size: usize,
    site: Site,
}

impl DropBlock {
    /// Drops squares of this side, about the part `p` of all elements (checked when it runs).
    pub fn new(p: f64, size: usize) -> DropBlock {
        DropBlock { p, size, site: Site::default() }
    }
    fn described(&self) -> String {
        format!("p = {}, size = {}", self.p, self.size)
    }

    #[track_caller]
    fn run(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
        if !(0.0..=1.0).contains(&self.p) || self.size == 0 {
            return Err(Error::misuse(format!(
                "DropBlock: the part must lie between 0 and 1 and the size be at least 1; got {} and {}",
                self.p, self.size
            )));
        }
        if x.rank() != 4 {
            return Err(Error::misuse(format!("DropBlock: needs [batch, channels, height, width], not {}", x.shape())));
        }
        if !cx.is_training() || self.p == 0.0 {
            return Ok(x.clone());
        }
        let keep = self.mask(x, cx)?;
        let scale = keep.try_mean()?.try_clamp(Some(1.0 / x.elements().max(1) as f64), None)?;
        x.try_mul(&keep)?.try_div(&scale)
    }

    /// 1 where an element is kept.
    fn mask(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
        let &[n, c, h, w] = x.dims() else { return Err(Error::misuse("DropBlock: needs four dimensions")) };
        // A map smaller than the square is dropped as a whole.
        let (tall, wide) = (self.size.min(h), self.size.min(w));
        let places = [n, c, h + 1 - tall, w + 1 - wide];
        let fit = (places[2] * places[3] * tall * wide).max(1) as f64;
        let rate = (self.p * (h * w) as f64 / fit).min(1.0);
        let key = cx.key(self.site.stream());
        // Without a dtype that follows x's rounding: a place is dropped or not.
        let dropped = Tensor::try_random(Distribution::Bernoulli(rate), places, x.place(), &key)?;
        // [n, c, h + tall − 1, w + wide − 1]: each element sees the places whose squares cover it.
        let (up, left) = (tall as isize - 1, wide as isize - 1);
        let dropped = dropped.try_pad(&[(0, 0), (0, 0), (up, up), (left, left)], PadMode::Constant(0.0))?;
        let rows = largest_of(&dropped, 2, tall, h)?;
        let blocks = largest_of(&rows, 3, wide, w)?;
        blocks.try_scalar_binary(BinaryOp::Sub, 1.0)
    }
}

/// The largest of `size` neighbours along a dimension, which becomes `len` long.
fn largest_of(x: &Tensor, dim: isize, size: usize, len: usize) -> Result<Tensor> {
    let first = x.try_narrow(dim, 0, len)?;
    (1..size).try_fold(first, |most, at| most.try_maximum(&x.try_narrow(dim, at, len)?))
}

layer!(DropBlock, |self, x, cx| self.run(x, cx));
