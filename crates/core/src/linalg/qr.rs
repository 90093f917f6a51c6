//! The QR factorization.

use super::solve::solved;
use super::{diagonal, download, each, host, matrix, misuse, upload};
use crate::autodiff::{Function, Grads, Vjp, try_apply_function};
use crate::error::Result;
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// Q and R. With M = R·∂Rᵀ − ∂Qᵀ·Q: ∂A = (∂Q + Q·(M's lower triangle mirrored upwards))·R⁻ᵀ (Walter & Lehmann, 2010).
#[derive(Clone, Copy, Debug)]
struct Qr;

impl Function for Qr {
    fn name(&self) -> &'static str {
        "qr"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (a, m, n) = (download(x[0])?, x[0].dim(-2), x[0].dim(-1));
        let (mut q, mut r) = (Vec::new(), Vec::new());
        for a in each(&a, m, n, x[0]) {
            let (one_q, one_r) = host::qr(a, m, n);
            q.extend(one_q);
            r.extend(one_r);
        }
        let k = m.min(n);
        Ok(vec![upload(q, &[m, k], x[0])?, upload(r, &[k, n], x[0])?])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        let (q, r) = (cx.y_of(0), cx.y_of(1));
        if r.dim(-2) < r.dim(-1) {
            cx.no_gradient("the matrix has more columns than rows; factor its first columns, and multiply the rest");
        }
        let (gq, gr) = (cx.grad_or_zeros(0), cx.grad_or_zeros(1));
        let m = r.matmul(&gr.t()) - gq.t().matmul(&q);
        let mirrored = m.tril(-1) + m.tril(-1).t() + diagonal(&m).diag_embed(0, -2, -1);
        // (..)·R⁻ᵀ, by the system with R.
        smallvec![Some(solved(&r, &(gq + q.matmul(&mirrored)).t()).t())]
    }
}

impl Tensor {
    crate::fallible! {
        /// Q `[.., m, k]` with orthonormal columns and an upper triangular R `[.., k, n]` of A = Q·R, k = min(m, n). Differentiable for
        /// matrices of full rank with m ≥ n. Factored on the host (see [`crate::linalg`]). In PyTorch: `torch.linalg.qr`.
        pub fn qr | try_qr(&self) -> (Tensor, Tensor) {
            matrix("qr", self)?;
            let mut out = try_apply_function(Qr, &[self])?;
            match (out.pop(), out.pop()) {
                (Some(r), Some(q)) => Ok((q, r)),
                _ => Err(misuse("qr", &[self], "gave fewer than two outputs")),
            }
        }
    }
}
