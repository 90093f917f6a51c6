//! How near two vectors are, as layers of two inputs.

use crate::{Cx, Module, Site};
use gradus_core::Tensor;
use gradus_core::error::or_raise;

/// ⟨a, b⟩ / (max(‖a‖, eps)·max(‖b‖, eps)) of the vectors along a dimension; the shapes broadcast. In PyTorch:
/// `torch.nn.CosineSimilarity`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{CosineSimilarity, Cx};
/// let a = Tensor::ones([2, 3], gradus_cpu::device());
/// let y = CosineSimilarity::new(1).pair(&a, &(&a * 2.0), &Cx::eval());
/// assert!((y - 1.0).abs().amax(&[0], false).item::<f32>()? < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug)]
pub struct CosineSimilarity {
    /// The dimension, counted from the end if negative.
    pub dim: isize,
    /// The least length that counts.
    pub eps: f64,
    site: Site,
}

impl CosineSimilarity {
    /// Along this dimension (PyTorch's default is 1), with eps 1e-8.
    pub fn new(dim: isize) -> CosineSimilarity {
        CosineSimilarity { dim, eps: 1e-8, site: Site::default() }
    }
    /// With this least length.
    pub fn eps(mut self, eps: f64) -> CosineSimilarity {
        self.eps = eps;
        self
    }
    /// The similarity of a pair. Panics at the caller's line if the shapes do not broadcast.
    #[track_caller]
    pub fn pair(&self, a: &Tensor, b: &Tensor, cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        or_raise(a.try_cosine_similarity(b, self.dim, self.eps))
    }
}

/// ‖a − b + eps‖ₚ of the vectors of the last dimension; the shapes broadcast. In PyTorch: `torch.nn.PairwiseDistance`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, PairwiseDistance};
/// let a = Tensor::zeros([2, 4], gradus_cpu::device());
/// let y = PairwiseDistance::new(2.0).pair(&a, &(&a + 1.0), &Cx::eval());
/// assert!((y - 2.0).abs().amax(&[0], false).item::<f32>()? < 1e-5);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug)]
pub struct PairwiseDistance {
    /// The norm's p.
    pub p: f64,
    /// Added to the differences.
    pub eps: f64,
    /// Whether the last dimension stays, with length 1.
    pub keep: bool,
    site: Site,
}

impl PairwiseDistance {
    /// With this norm (PyTorch's default is 2), and eps 1e-6.
    pub fn new(p: f64) -> PairwiseDistance {
        PairwiseDistance { p, eps: 1e-6, keep: false, site: Site::default() }
    }
    /// With this number added to the differences.
    pub fn eps(mut self, eps: f64) -> PairwiseDistance {
        self.eps = eps;
        self
    }
    /// Whether the last dimension stays, with length 1.
    pub fn keep(mut self, keep: bool) -> PairwiseDistance {
        self.keep = keep;
        self
    }
    /// The distance of a pair. Panics at the caller's line if the shapes do not broadcast.
    #[track_caller]
    pub fn pair(&self, a: &Tensor, b: &Tensor, cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        or_raise(a.try_pairwise_distance(b, self.p, self.eps, self.keep))
    }
}
