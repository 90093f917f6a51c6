//! Normalization by neighbouring channels (Krizhevsky et al., 2012).

use crate::layer::layer;
use crate::{Module, Site};

/// x/(k + alpha·m)^beta of `[batch, channels, ..]`, where m is the mean of x² over `size` neighbouring channels, with zeros beyond the
/// first and the last. In PyTorch: `torch.nn.LocalResponseNorm`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Layer, LocalResponseNorm};
/// let y = LocalResponseNorm::new(2).call(&Tensor::ones([1, 4, 3, 3], gradus_cpu::device()), &Cx::eval());
/// assert_eq!(y.dims(), [1, 4, 3, 3]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct LocalResponseNorm {
    /// How many channels a mean is over.
    pub size: usize,
    /// The factor of the mean.
    pub alpha: f64,
    /// The power.
    pub beta: f64,
    /// Added to the mean.
    pub k: f64,
    site: Site,
}

impl LocalResponseNorm {
    /// Over so many channels, with alpha 1e-4, beta 3/4 and k 1.
    pub fn new(size: usize) -> LocalResponseNorm {
        LocalResponseNorm { size, alpha: 1e-4, beta: 0.75, k: 1.0, site: Site::default() }
    }
    /// With this factor of the mean.
    pub fn alpha(mut self, alpha: f64) -> LocalResponseNorm {
        self.alpha = alpha;
        self
    }
    /// With this power.
    pub fn beta(mut self, beta: f64) -> LocalResponseNorm {
        self.beta = beta;
        self
    }
    /// With this number added to the mean.
    pub fn k(mut self, k: f64) -> LocalResponseNorm {
        self.k = k;
        self
    }
}

layer!(LocalResponseNorm, |self, x, _cx| x.try_local_response_norm(self.size, self.alpha, self.beta, self.k));
