//! The Cholesky factor.

use super::solve::solved;
use super::{download, each, half_lower, host, misuse, square, upload};
use crate::autodiff::{Function, Grads, Vjp, try_apply_function};
use crate::error::Result;
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// L of A = L·Lᵀ. ∂A = L⁻ᵀ·Φ(Lᵀ·g)·L⁻¹ made symmetric, Φ the lower triangle with half the diagonal (Murray, 2016).
#[derive(Clone, Copy, Debug)]
struct Cholesky;

impl Function for Cholesky {
    fn name(&self) -> &'static str {
        "cholesky"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (a, n) = (download(x[0])?, x[0].dim(-1));
        let mut out = Vec::with_capacity(a.len());
        for (i, a) in each(&a, n, n, x[0]).enumerate() {
            let l = host::cholesky(a, n);
            let l = l.ok_or_else(|| misuse("cholesky", x, format!("matrix {i} of the stack is not positive definite")));
            out.extend(l?);
        }
        Ok(vec![upload(out, &[n, n], x[0])?])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        let l = cx.y();
        let up = l.t();
        let phi = half_lower(&up.matmul(&cx.grad()));
        // L⁻ᵀ·Φ·L⁻¹, the second factor by the transposed system.
        let left = solved(&up, &phi);
        let both = solved(&up, &left.t()).t();
        smallvec![Some((&both + both.t()) * 0.5)]
    }
}

impl Tensor {
    crate::fallible! {
        /// The lower triangular L of A = L·Lᵀ for a symmetric positive definite matrix, or each of a stack, from its lower triangle;
        /// Lᵀ if `upper`. One that is not positive definite is an error. The gradient is symmetric. Factored on the host (see
        /// [`crate::linalg`]). In PyTorch: `torch.linalg.cholesky`.
        pub fn cholesky | try_cholesky(&self, upper: bool) -> Tensor {
            square("cholesky", self)?;
            let l = try_apply_function(Cholesky, &[self])?.swap_remove(0);
            if upper { l.try_t() } else { Ok(l) }
        }
    }
}
