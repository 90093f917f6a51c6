//! Spectral normalization (Miyato et al., 2018).

use super::weighted::{Weighted, WithoutWeight};
use crate::module::{Visitor, VisitorMut};
use crate::{Cx, Init, Layer, Module, Param, Site, State};
use gradus_core::error::or_raise;
use gradus_core::{Error, Result, Tensor};

/// A layer whose weight is divided by its largest singular value σ, estimated by power iteration: u ← W·v/‖W·v‖,
/// v ← Wᵀ·u/‖Wᵀ·u‖ once for each training pass, and σ = uᵀ·W·v. In PyTorch: `torch.nn.utils.parametrizations.spectral_norm`, whose
/// names it has (`parametrizations.weight.original`, `parametrizations.weight.0._u`, `_v`).
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, Linear, SpectralNorm};
/// let device = gradus_cpu::device();
/// let mut init = Init::new(device, 0);
/// let fc = SpectralNorm::new(Linear::new(4, 3, &mut init), &mut init);
/// assert_eq!(fc.call(&Tensor::ones([2, 4], device), &Cx::train(0, 0)).dims(), [2, 3]);
/// ```
#[derive(Clone, Debug)]
pub struct SpectralNorm<L> {
    layer: L,
    parts: Parts,
    iterations: usize,
    eps: f64,
}

/// The names' middle part.
#[derive(Module, Clone, Debug)]
struct Parts {
    weight: Spectrum,
}

#[derive(Module, Clone, Debug)]
struct Spectrum {
    original: Param,
    #[module(rename = "0")]
    vectors: Vectors,
}

#[derive(Module, Clone, Debug)]
struct Vectors {
    #[module(rename = "_u")]
    u: State,
    #[module(rename = "_v")]
    v: State,
}

impl<L: Weighted> SpectralNorm<L> {
    /// This layer, with one iteration a pass. Panics at the caller's line if its weight has no two dimensions, or is empty.
    #[track_caller]
    pub fn new(layer: L, init: &mut Init) -> SpectralNorm<L> {
        or_raise(SpectralNorm::try_new(layer, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(layer: L, init: &mut Init) -> Result<SpectralNorm<L>> {
        let (weight, key) = (layer.weight().detach(), init.next_key());
        if weight.rank() < 2 || weight.elements() == 0 {
            let message = format!("spectral_norm: a weight of shape {} has no singular values", weight.shape());
            return Err(Error::misuse(message));
        }
        let matrix = matrix::<L>(&weight)?;
        let eps = 1e-12;
        let draw = |n: usize, name: &str| unit(&Tensor::try_randn([n], weight.place(), key.fold(name))?, eps);
        let (mut u, mut v) = (draw(matrix.dim(0), "u")?, draw(matrix.dim(1), "v")?);
        for _ in 0..15 {
            (u, v) = iterated(&matrix, &v, eps)?;
        }
        let vectors = Vectors { u: State::new(u), v: State::new(v) };
        let parts = Parts { weight: Spectrum { original: Param::try_new(weight)?, vectors } };
        Ok(SpectralNorm { layer, parts, iterations: 1, eps })
    }
    /// With so many iterations a training pass.
    pub fn iterations(mut self, n: usize) -> SpectralNorm<L> {
        self.iterations = n;
        self
    }
    /// With this least length of the vectors before they are scaled.
    pub fn eps(mut self, eps: f64) -> SpectralNorm<L> {
        self.eps = eps;
        self
    }
    /// The weight before it is divided.
    pub fn original(&self) -> &Param {
        &self.parts.weight.original
    }
    /// The weight, W/σ; in training the vectors move first.
    pub fn weight(&self, cx: &Cx) -> Result<Tensor> {
        let Spectrum { original, vectors } = &self.parts.weight;
        let matrix = matrix::<L>(original)?;
        for _ in 0..if cx.is_training() { self.iterations } else { 0 } {
            let (u, v) = gradus_core::no_grad(|| iterated(&matrix.detach(), &vectors.v.value(), self.eps))?;
            cx.update(&vectors.u, |_| Ok(u))?;
            cx.update(&vectors.v, |_| Ok(v))?;
        }
        let (u, v) = (vectors.u.value(), vectors.v.value());
        let sigma = u.try_mul(&matrix.try_matmul(&v.try_unsqueeze(1)?)?.try_squeeze(1)?)?.try_sum()?;
        original.try_div(&sigma)
    }
}

/// The weight as `[outputs, the rest]`.
fn matrix<L: Weighted>(weight: &Tensor) -> Result<Tensor> {
    weight.try_movedim(L::OUTPUTS as isize, 0)?.try_flatten(1, -1)
}

/// x of length 1, or divided by `eps` if it is shorter than that.
fn unit(x: &Tensor, eps: f64) -> Result<Tensor> {
    let norm = x.try_square()?.try_sum()?.try_sqrt()?;
    x.try_div(&norm.try_clamp(Some(eps), None)?)
}

fn iterated(matrix: &Tensor, v: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let u = unit(&matrix.try_matmul(&v.try_unsqueeze(1)?)?.try_squeeze(1)?, eps)?;
    let v = unit(&matrix.try_t()?.try_matmul(&u.try_unsqueeze(1)?)?.try_squeeze(1)?, eps)?;
    Ok((u, v))
}

impl<L: Weighted> Module for SpectralNorm<L> {
    fn kind(&self) -> &'static str {
        "SpectralNorm"
    }
    fn describe(&self) -> String {
        format!("{}({})", self.layer.kind(), self.layer.describe())
    }
    fn site(&self) -> Option<&Site> {
        self.layer.site()
    }
    fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>) {
        self.layer.visit(&mut WithoutWeight(v));
        v.child("parametrizations", &self.parts);
    }
    fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>) {
        self.layer.visit_mut(&mut WithoutWeight(v));
        v.child("parametrizations", &mut self.parts);
    }
}

impl<L: Weighted> Layer for SpectralNorm<L> {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        or_raise(self.weight(cx).and_then(|w| self.layer.try_forward_with(x, &w, cx)))
    }
}
