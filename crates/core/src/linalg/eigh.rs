//! Eigenvalues and eigenvectors of symmetric matrices.

use super::{download, each, host, misuse, one_over_differences, square, upload};
use crate::autodiff::{Function, Grads, Vjp, try_apply_function};
use crate::error::Result;
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// λ and V of a symmetric A = V·diag(λ)·Vᵀ. ∂A = V·(diag(∂λ) + (Vᵀ·∂V) ∘ F)·Vᵀ with Fᵢⱼ = 1/(λⱼ − λᵢ).
#[derive(Clone, Copy, Debug)]
struct Eigh;

impl Function for Eigh {
    fn name(&self) -> &'static str {
        "eigh"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (a, n) = (download(x[0])?, x[0].dim(-1));
        let (mut values, mut vectors) = (Vec::new(), Vec::new());
        for a in each(&a, n, n, x[0]) {
            let (l, v) = host::eigh(a, n);
            values.extend(l);
            vectors.extend(v);
        }
        Ok(vec![upload(values, &[n], x[0])?, upload(vectors, &[n, n], x[0])?])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        let (values, v) = (cx.y_of(0), cx.y_of(1));
        let mut inner = cx.grad_or_zeros(0).diag_embed(0, -2, -1);
        if let Some(g) = cx.grad_of(1) {
            inner = inner + v.t().matmul(&g) * one_over_differences(&values);
        }
        smallvec![Some(v.matmul(&inner).matmul(&v.t()))]
    }
}

impl Tensor {
    crate::fallible! {
        /// The eigenvalues `[.., n]`, ascending, and the eigenvectors, as columns of `[.., n, n]`, of (A + Aᵀ)/2: of A itself where it is
        /// symmetric. Each vector's largest element is positive. Equal eigenvalues have no gradient of their vectors, and give
        /// infinities. Factored on the host (see [`crate::linalg`]). In PyTorch: `torch.linalg.eigh`.
        pub fn eigh | try_eigh(&self) -> (Tensor, Tensor) {
            square("eigh", self)?;
            let symmetric = self.try_add(&self.try_t()?)? * 0.5;
            let mut out = try_apply_function(Eigh, &[&symmetric])?;
            match (out.pop(), out.pop()) {
                (Some(vectors), Some(values)) => Ok((values, vectors)),
                _ => Err(misuse("eigh", &[self], "gave fewer than two outputs")),
            }
        }
    }
}
