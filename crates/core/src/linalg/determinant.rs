//! Determinants and their logarithms.

use super::host::{self, Lu};
use super::{download, each, square, upload};
use crate::autodiff::{Function, Grads, Vjp, apply_function, try_apply_function};
use crate::error::Result;
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// det A. ∂A = g·(the cofactors of A), which exist for singular matrices, too.
#[derive(Clone, Copy, Debug)]
struct Det;

impl Function for Det {
    fn name(&self) -> &'static str {
        "det"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (a, n) = (download(x[0])?, x[0].dim(-1));
        let det = |a: &[f64]| Lu::new(a, n).diagonal().product::<f64>() * Lu::new(a, n).sign();
        Ok(vec![upload(each(&a, n, n, x[0]).map(det).collect(), &[], x[0])?])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        let cofactors = apply_function(Cofactors, &[&cx.x(0)]).swap_remove(0);
        smallvec![Some(cx.grad().unsqueeze(-1).unsqueeze(-1) * cofactors)]
    }
}

/// The cofactors of A, det(A)·A⁻ᵀ where that exists. By singular values: det(U·Vᵀ)·U·diag(the products of the others)·Vᵀ.
#[derive(Clone, Copy, Debug)]
struct Cofactors;

fn cofactors(a: &[f64], n: usize) -> Vec<f64> {
    let (u, s, v) = host::svd(a, n, n);
    let orientation = |q: &[f64]| {
        let lu = Lu::new(q, n);
        (lu.diagonal().product::<f64>() * lu.sign()).signum()
    };
    let sign = orientation(&u) * orientation(&v);
    let others: Vec<f64> = (0..n).map(|i| (0..n).filter(|&j| j != i).map(|j| s[j]).product::<f64>() * sign).collect();
    (0..n * n).map(|at| (0..n).map(|k| u[at / n * n + k] * others[k] * v[at % n * n + k]).sum()).collect()
}

impl Function for Cofactors {
    fn name(&self) -> &'static str {
        "cofactors"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (a, n) = (download(x[0])?, x[0].dim(-1));
        Ok(vec![upload(each(&a, n, n, x[0]).flat_map(|a| cofactors(a, n)).collect(), &[n, n], x[0])?])
    }
    /// Of det(A)·A⁻ᵀ, with C the cofactors: (⟨g, C⟩·A⁻ᵀ − C·gᵀ·A⁻ᵀ). A singular matrix has no inverse, and so says.
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        let (g, c) = (cx.grad(), cx.y());
        let inverse = cx.x(0).inv().t();
        let total = (&g * &c).sum_dims(&[-2, -1], true);
        smallvec![Some(total * &inverse - c.matmul(&g.t()).matmul(&inverse))]
    }
}

/// The sign of det A, and ln |det A|. ∂A = g·A⁻ᵀ; the sign is constant.
#[derive(Clone, Copy, Debug)]
struct SlogDet;

impl Function for SlogDet {
    fn name(&self) -> &'static str {
        "slogdet"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (a, n) = (download(x[0])?, x[0].dim(-1));
        let (mut signs, mut logs) = (Vec::new(), Vec::new());
        for a in each(&a, n, n, x[0]) {
            let lu = Lu::new(a, n);
            let sign = |d: f64| if d == 0.0 { 0.0 } else { d.signum() };
            signs.push(lu.diagonal().map(sign).product::<f64>() * lu.sign());
            logs.push(lu.diagonal().map(|d| d.abs().ln()).sum());
        }
        Ok(vec![upload(signs, &[], x[0])?, upload(logs, &[], x[0])?])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        smallvec![Some(cx.grad_or_zeros(1).unsqueeze(-1).unsqueeze(-1) * cx.x(0).inv().t())]
    }
}

impl Tensor {
    crate::fallible! {
        /// The determinant of a square matrix, or of each of a stack. ∂ = g·cofactors, for singular matrices too; the second
        /// derivative is there for the others alone. Factored on the host (see [`crate::linalg`]). In PyTorch: `torch.linalg.det`.
        pub fn det | try_det(&self) -> Tensor {
            square("det", self)?;
            Ok(try_apply_function(Det, &[self])?.swap_remove(0))
        }
        /// The sign (−1, 0 or 1) of the determinant of a square matrix, and the logarithm of its magnitude: products of many factors
        /// that would overflow. ∂ = (0, g·A⁻ᵀ). Factored on the host (see [`crate::linalg`]). In PyTorch: `torch.linalg.slogdet`.
        pub fn slogdet | try_slogdet(&self) -> (Tensor, Tensor) {
            square("slogdet", self)?;
            let mut out = try_apply_function(SlogDet, &[self])?;
            let log = out.swap_remove(1);
            Ok((out.swap_remove(0), log))
        }
    }
}
