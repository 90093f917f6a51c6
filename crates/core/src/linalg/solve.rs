//! Linear systems and inverses, by LU with partial pivoting.

use super::host::Lu;
use super::{download, each, eye, misuse, square, upload};
use crate::autodiff::{Function, Grads, Vjp, try_apply_function};
use crate::error::Result;
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// X of A·X = B. Inputs: A `[.., n, n]`, B `[.., n, k]` with the same leading dimensions. ∂B = A⁻ᵀ·g, ∂A = −∂B·Xᵀ.
#[derive(Clone, Copy, Debug)]
struct Solve;

impl Function for Solve {
    fn name(&self) -> &'static str {
        "solve"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (a, b, n, k) = (download(x[0])?, download(x[1])?, x[0].dim(-1), x[1].dim(-1));
        let mut out = Vec::with_capacity(b.len());
        for (i, (a, b)) in each(&a, n, n, x[0]).zip(each(&b, n, k, x[1])).enumerate() {
            let lu = Lu::new(a, n);
            if lu.is_singular() {
                return Err(misuse("solve", x, format!("matrix {i} of the stack is singular")));
            }
            out.extend(lu.solve(b, k));
        }
        Ok(vec![upload(out, &[n, k], x[1])?])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        let b = solved(&cx.x(0).t(), &cx.grad());
        let a = cx.needs(0).then(|| b.matmul(&cx.y().t()).neg());
        smallvec![a, Some(b)]
    }
}

/// A⁻¹. ∂A = −A⁻ᵀ·g·A⁻ᵀ.
#[derive(Clone, Copy, Debug)]
struct Inverse;

impl Function for Inverse {
    fn name(&self) -> &'static str {
        "inv"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (a, n) = (download(x[0])?, x[0].dim(-1));
        let identity: Vec<f64> = (0..n * n).map(|i| f64::from(i / n == i % n)).collect();
        let mut out = Vec::with_capacity(a.len());
        for (i, a) in each(&a, n, n, x[0]).enumerate() {
            let lu = Lu::new(a, n);
            if lu.is_singular() {
                return Err(misuse("inv", x, format!("matrix {i} of the stack is singular")));
            }
            out.extend(lu.solve(&identity, n));
        }
        Ok(vec![upload(out, &[n, n], x[0])?])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        let t = cx.y().t();
        smallvec![Some(t.matmul(&cx.grad()).matmul(&t).neg())]
    }
}

/// The solution of a system whose shapes are known to fit; panics where it has none.
#[track_caller]
pub(super) fn solved(a: &Tensor, b: &Tensor) -> Tensor {
    crate::autodiff::apply_function(Solve, &[a, b]).swap_remove(0)
}

impl Tensor {
    crate::fallible! {
        /// X of A·X = B, for this matrix A `[.., n, n]` and B `[.., n, k]`, or a vector B `[.., n]` where it has one dimension less
        /// and the same leading ones; the leading dimensions broadcast. A singular A is an error. Factored on the host (see
        /// [`crate::linalg`]). In PyTorch: `torch.linalg.solve`.
        pub fn solve | try_solve(&self, b: &Tensor) -> Tensor {
            let n = square("solve", self)?;
            let lead = self.rank() - 2;
            if b.rank() == 1 || b.rank() + 1 == self.rank() && b.dims()[..lead] == self.dims()[..lead] {
                return self.try_solve(&b.try_unsqueeze(-1)?)?.try_squeeze(-1);
            }
            if b.rank() < 2 || b.dim(-2) != n || b.dtype() != self.dtype() {
                return Err(misuse("solve", &[self, b], format!("a right side [.., {n}, k] of {} would fit", self.dtype())));
            }
            let (stack, k) = (crate::shape::Shape::try_new(&self.dims()[..lead])?, b.dim(-1));
            let common = crate::ops::broadcast(&stack, &crate::shape::Shape::try_new(&b.dims()[..b.rank() - 2])?)
                .map_err(|e| misuse("solve", &[self, b], e.to_string()))?;
            let a = self.try_expand([&common[..], &[n, n]].concat())?;
            let b = b.try_expand([&common[..], &[n, k]].concat())?;
            Ok(try_apply_function(Solve, &[&a, &b])?.swap_remove(0))
        }
        /// X of A·X = B for this triangular A: the other triangle is not looked at. Where `unit`, the diagonal counts as ones. In
        /// PyTorch: `torch.linalg.solve_triangular`.
        pub fn solve_triangular | try_solve_triangular(&self, b: &Tensor, upper: bool, unit: bool) -> Tensor {
            let n = square("solve_triangular", self)?;
            let strict = i64::from(unit);
            let mut a = if upper { self.try_triu(strict)? } else { self.try_tril(-strict)? };
            if unit {
                a = a.try_add(&eye(n, self)?)?;
            }
            a.try_solve(b)
        }
        /// The inverse of a square matrix, or of each of a stack. A singular one is an error. ∂ = −A⁻ᵀ·g·A⁻ᵀ. Factored on the host
        /// (see [`crate::linalg`]). In PyTorch: `torch.linalg.inv`.
        pub fn inv | try_inv(&self) -> Tensor {
            square("inv", self)?;
            Ok(try_apply_function(Inverse, &[self])?.swap_remove(0))
        }
    }
}
