//! Layers that only change the shape.

use crate::layer::layer;
use crate::{Module, Site};
use gradus_core::{Error, Result, Shape, Tensor};

/// Dimensions `start` to `end` as one; by default all but the first: `[batch, ..]` → `[batch, features]`. In PyTorch:
/// `torch.nn.Flatten`.
#[derive(Module, Clone, Debug)]
pub struct Flatten {
    /// The first dimension, counted from the end if negative.
    pub start: isize,
    /// The last dimension, counted from the end if negative.
    pub end: isize,
    site: Site,
}

impl Flatten {
    /// Dimensions `start` to `end`, inclusive, as one.
    pub fn new(start: isize, end: isize) -> Flatten {
        Flatten { start, end, site: Site::default() }
    }
}

impl Default for Flatten {
    fn default() -> Flatten {
        Flatten::new(1, -1)
    }
}

layer!(Flatten, |self, x, _cx| x.try_flatten(self.start, self.end));

/// One dimension as several. In PyTorch: `torch.nn.Unflatten`.
#[derive(Module, Clone, Debug)]
pub struct Unflatten {
    /// The dimension, counted from the end if negative.
    pub dim: isize,
    /// What it becomes.
    pub lens: Vec<usize>,
    site: Site,
}

impl Unflatten {
    /// Dimension `dim` as `lens`.
    pub fn new(dim: isize, lens: impl Into<Vec<usize>>) -> Unflatten {
        Unflatten { dim, lens: lens.into(), site: Site::default() }
    }
    #[track_caller]
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        let dim = x.shape().dim(self.dim)?;
        if self.lens.iter().try_fold(1usize, |n, &l| n.checked_mul(l)) != Some(x.dims()[dim]) {
            return Err(Error::misuse(format!("dimension {dim} of length {} is not {:?}", x.dims()[dim], self.lens))
                .in_op("unflatten", [(x.dtype(), *x.shape())]));
        }
        x.try_reshape(Shape::try_new(&[&x.dims()[..dim], &self.lens[..], &x.dims()[dim + 1..]].concat())?)
    }
}

layer!(Unflatten, |self, x, _cx| self.run(x));
