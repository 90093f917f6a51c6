//! Singular values and vectors.

use super::{download, each, host, matrix, misuse, one_over_differences, upload};
use crate::autodiff::{Function, Grads, Vjp, try_apply_function};
use crate::error::Result;
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// U, s and V of A = U·diag(s)·Vᵀ (Townsend, 2016). With E = 1/(sⱼ² − sᵢ²) off the diagonal:
/// ∂A = U·((E ∘ (Uᵀ∂U − ∂UᵀU))·S + S·(E ∘ (Vᵀ∂V − ∂VᵀV)) + diag(∂s))·Vᵀ + (I − UUᵀ)·∂U·S⁻¹·Vᵀ + U·S⁻¹·∂Vᵀ·(I − VVᵀ).
#[derive(Clone, Copy, Debug)]
struct Svd;

impl Function for Svd {
    fn name(&self) -> &'static str {
        "svd"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (a, m, n) = (download(x[0])?, x[0].dim(-2), x[0].dim(-1));
        let (mut u, mut s, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for a in each(&a, m, n, x[0]) {
            let (one_u, one_s, one_v) = host::svd(a, m, n);
            u.extend(one_u);
            s.extend(one_s);
            v.extend(one_v);
        }
        let k = m.min(n);
        Ok(vec![upload(u, &[m, k], x[0])?, upload(s, &[k], x[0])?, upload(v, &[n, k], x[0])?])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        let (u, s, v) = (cx.y_of(0), cx.y_of(1), cx.y_of(2));
        let (m, n, k) = (u.dim(-2), v.dim(-2), s.dim(-1));
        let mut inner = cx.grad_or_zeros(1).diag_embed(0, -2, -1);
        // Rows and columns of a k × k matrix times s.
        let (rows, columns) = (s.unsqueeze(-1), s.unsqueeze(-2));
        let turned = |w: &Tensor, g: &Tensor| {
            let p = w.t().matmul(g);
            (&p - p.t()) * one_over_differences(&s.square())
        };
        let (gu, gv) = (cx.grad_of(0), cx.grad_of(2));
        if let Some(g) = &gu {
            inner = inner + turned(&u, g) * &columns;
        }
        if let Some(g) = &gv {
            inner = inner + &rows * turned(&v, g);
        }
        let mut da = u.matmul(&inner).matmul(&v.t());
        // What leaves the columns' span.
        let outside = |w: &Tensor, g: &Tensor| {
            let g = g / &columns;
            &g - w.matmul(&w.t().matmul(&g))
        };
        if let Some(g) = gu.filter(|_| m > k) {
            da = da + outside(&u, &g).matmul(&v.t());
        }
        if let Some(g) = gv.filter(|_| n > k) {
            da = da + u.matmul(&outside(&v, &g).t());
        }
        smallvec![Some(da)]
    }
}

impl Tensor {
    crate::fallible! {
        /// U `[.., m, k]`, the singular values `[.., k]`, descending, and V `[.., n, k]` of A = U·diag(s)·Vᵀ, k = min(m, n). Each column of V
        /// (of U, where A is wider than tall) has its largest element positive. Equal or zero singular values have no gradient of their
        /// vectors, and give infinities. Factored on the host (see [`crate::linalg`]). In PyTorch: `torch.linalg.svd(full_matrices=False)`, which gives
        /// Vᵀ.
        pub fn svd | try_svd(&self) -> (Tensor, Tensor, Tensor) {
            matrix("svd", self)?;
            let mut out = try_apply_function(Svd, &[self])?;
            match (out.pop(), out.pop(), out.pop()) {
                (Some(v), Some(s), Some(u)) => Ok((u, s, v)),
                _ => Err(misuse("svd", &[self], "gave fewer than three outputs")),
            }
        }
        /// The singular values `[.., min(m, n)]`, descending. ∂ = U·diag(g)·Vᵀ. In PyTorch: `torch.linalg.svdvals`.
        pub fn svdvals | try_svdvals(&self) -> Tensor { Ok(self.try_svd()?.1) }
    }
}
