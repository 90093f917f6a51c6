//! Matrix products.

use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, MatmulSpec, View};
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Op, Outs, new, one};
use crate::precision::Autocast;
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// `[.., m, k] × [.., k, n] → [.., m, n]`; the leading dimensions broadcast.
#[derive(Clone, Copy, Debug)]
pub struct Matmul;

fn batch(s: &Shape) -> Shape {
    Shape::try_new(&s[..s.rank() - 2]).unwrap_or(Shape::SCALAR)
}

fn with_matrix(batch: &Shape, rows: usize, columns: usize) -> Result<Shape> {
    batch.try_insert(batch.rank(), rows)?.try_insert(batch.rank() + 1, columns)
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Half
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let (a, b) = (&x[0].shape, &x[1].shape);
        if a.rank() < 2 || b.rank() < 2 {
            return Err(Error::misuse("needs two matrices or stacks of them"));
        }
        let ([m, k], [k2, n]) = ([a[a.rank() - 2], a[a.rank() - 1]], [b[b.rank() - 2], b[b.rank() - 1]]);
        if k != k2 {
            return Err(Error::misuse(format!(
                "the left has rows of {k}, the right columns of {k2}: a right operand of shape [.., {k}, n] would fit"
            )));
        }
        if x[0].dtype != x[1].dtype {
            return Err(Error::misuse("both operands must have one dtype; cast one with `to_dtype`"));
        }
        let Some(lead) = batch(a).broadcast(&batch(b)) else {
            return Err(Error::misuse(format!(
                "the leading dimensions {} and {} do not broadcast",
                batch(a),
                batch(b)
            )));
        };
        Ok(one(x[0].dtype, with_matrix(&lead, m, n)?))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        let (a, b) = (x[0], x[1]);
        if a.shape().rank() == 2 && b.shape().rank() == 2 {
            return Ok(new(on.matmul(a, b, &MatmulSpec::default())?));
        }
        let (sa, sb) = (a.shape(), b.shape());
        let lead = batch(sa).broadcast(&batch(sb)).unwrap_or(Shape::SCALAR);
        let la = a.layout.expand(&with_matrix(&lead, sa[sa.rank() - 2], sa[sa.rank() - 1])?);
        let lb = b.layout.expand(&with_matrix(&lead, sb[sb.rank() - 2], sb[sb.rank() - 1])?);
        Ok(new(on.matmul(View { layout: &la, ..a }, View { layout: &lb, ..b }, &MatmulSpec::default())?))
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let g = cx.grad();
        let da = cx.needs(0).then(|| g.matmul(&cx.x(1).t()));
        let db = cx.needs(1).then(|| cx.x(0).t().matmul(&g));
        smallvec![da, db]
    }
}

impl Tensor {
    crate::fallible! {
        /// The matrix product `[.., m, k] × [.., k, n] → [.., m, n]`. A vector on the left is a row, on the right a column, and
        /// its dimension is dropped from the result; leading dimensions broadcast. ∂ = (g·bᵀ, aᵀ·g). In PyTorch: `torch.matmul`.
        pub fn matmul | try_matmul(&self, other: &Tensor) -> Tensor {
            let dtype = self.dtype().promote(other.dtype());
            let (a, b) = (self.try_to_dtype(dtype)?, other.try_to_dtype(dtype)?);
            let scalar = || Error::misuse("a scalar has no matrix product").in_op("matmul", [(a.dtype(), *a.shape()), (b.dtype(), *b.shape())]);
            match (a.rank(), b.rank()) {
                (0, _) | (_, 0) => Err(scalar()),
                (1, 1) => a.try_unsqueeze(0)?.try_matmul(&b.try_unsqueeze(1)?)?.try_reshape(()),
                (1, _) => a.try_unsqueeze(0)?.try_matmul(&b)?.try_squeeze(-2),
                (_, 1) => a.try_matmul(&b.try_unsqueeze(1)?)?.try_squeeze(-1),
                (r, 2) if r > 2 && a.dims()[r - 1] == b.dims()[0] => {
                    // A stack of matrices times one matrix is one tall product.
                    let (rows, k, n) = (a.dims()[..r - 1].iter().product::<usize>(), b.dims()[0], b.dims()[1]);
                    let flat = a.try_reshape([rows, k])?;
                    Tensor::try_apply1(Matmul, &[&flat, &b])?.try_reshape(a.shape().with(r - 1, n))
                }
                _ => Tensor::try_apply1(Matmul, &[&a, &b]),
            }
        }
        /// The inner product of two vectors. In PyTorch: `torch.dot`.
        pub fn dot | try_dot(&self, other: &Tensor) -> Tensor {
            if self.rank() != 1 || self.shape() != other.shape() {
                return Err(Error::misuse("needs two vectors of one length").in_op("dot", [(self.dtype(), *self.shape()), (other.dtype(), *other.shape())]));
            }
            self.try_matmul(other)
        }
        /// Every product of an element of each vector: `[m] × [n] → [m, n]`. In PyTorch: `torch.outer`.
        pub fn outer | try_outer(&self, other: &Tensor) -> Tensor {
            if self.rank() != 1 || other.rank() != 1 {
                return Err(Error::misuse("needs two vectors").in_op("outer", [(self.dtype(), *self.shape()), (other.dtype(), *other.shape())]));
            }
            self.try_unsqueeze(1)?.try_mul(&other.try_unsqueeze(0)?)
        }
    }
}
