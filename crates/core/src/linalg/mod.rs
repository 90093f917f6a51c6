//! Linear algebra of matrices and stacks of them: factorizations, solutions, inverses, determinants, norms.
//!
//! Factorizations run on the host, in `f64` whatever the tensor's dtype, and go back to the device: matrices that are factored
//! while training are small, the algorithms are sequential, and so every device gives the same numbers. They wait for the
//! device, and so cannot be part of a recorded step. Gradients are written in tensors, on the device, to any order.
//!
//! The algorithms are the textbook's (Golub & Van Loan, 4th ed.): LU with partial pivoting, Cholesky, Householder QR, Jacobi
//! rotations for symmetric eigenproblems and (one-sided) for singular values, which give small ones to full relative accuracy.

mod cholesky;
mod determinant;
mod eigh;
mod exponential;
mod host;
mod lstsq;
mod norms;
mod qr;
mod solve;
mod svd;

pub use norms::MatrixNorm;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// An error about a matrix, with what was given.
fn misuse(op: &'static str, x: &[&Tensor], message: impl Into<String>) -> Error {
    Error::misuse(message).in_op(op, x.iter().map(|t| (t.dtype(), *t.shape())))
}

/// The rows and columns of a floating-point matrix or stack of them.
fn matrix(op: &'static str, x: &Tensor) -> Result<(usize, usize)> {
    if x.rank() < 2 || !x.dtype().is_float() {
        return Err(misuse(op, &[x], "needs a floating-point matrix [.., m, n], or a stack of them"));
    }
    Ok((x.dim(-2), x.dim(-1)))
}

/// The side of a square matrix.
fn square(op: &'static str, x: &Tensor) -> Result<usize> {
    let (m, n) = matrix(op, x)?;
    if m != n {
        return Err(misuse(op, &[x], format!("the matrix must be square, not {m} × {n}")));
    }
    Ok(n)
}

/// The elements on the host, row-major. Waits for the device.
fn download(x: &Tensor) -> Result<Vec<f64>> {
    let data = x.detach().to_data()?;
    Ok((0..x.elements()).map(|i| data.f64_at(i)).collect())
}

/// Elements on the device and in the dtype of `like`, `dims` in place of its matrix dimensions.
fn upload(data: Vec<f64>, dims: &[usize], like: &Tensor) -> Result<Tensor> {
    let lead = &like.dims()[..like.rank() - 2];
    crate::tensor::from_f64(data, Shape::try_new(&[lead, dims].concat())?, like.place())
}

/// The matrices of a stack, one after another, each `[m, n]`.
fn each<'a>(data: &'a [f64], m: usize, n: usize, like: &Tensor) -> impl Iterator<Item = &'a [f64]> {
    let count: usize = like.dims()[..like.rank() - 2].iter().product();
    (0..count).map(move |i| &data[i * m * n..(i + 1) * m * n])
}

/// The identity `[n, n]` like a tensor.
fn eye(n: usize, like: &Tensor) -> Result<Tensor> {
    Tensor::try_eye(n, like.place())
}

/// The lower triangle with half the diagonal: what a symmetric matrix's lower triangle stands for.
fn half_lower(x: &Tensor) -> Tensor {
    x.tril(0) - diagonal(x).diag_embed(0, -2, -1) * 0.5
}

fn diagonal(x: &Tensor) -> Tensor {
    x.diagonal(0, -2, -1)
}

/// 1/(bⱼ − bᵢ) off the diagonal, 0 on it, of `[.., n]`: how eigenvectors answer. Equal values have no answer, and give ±∞.
fn one_over_differences(b: &Tensor) -> Tensor {
    let n = b.dim(-1);
    let eye = Tensor::eye(n, b.device().with(DType::Bool));
    let difference = b.unsqueeze(-2) - b.unsqueeze(-1);
    difference.masked_fill(&eye, 1.0).reciprocal().masked_fill(&eye, 0.0)
}
