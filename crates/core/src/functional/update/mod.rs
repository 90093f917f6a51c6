//! The updates of optimizers that are worth a fused kernel: one pass over parameter, gradient and state.
//!
//! They live here, and not with the optimizers, so that a backend can register kernels without knowing the crate of the
//! optimizers. Numbers that vary by step arrive as [`Scalar`]s computed on the host in `f64` (bias corrections are folded
//! into `step_size` and `rsqrt_bias2`): a recorded step reads them anew through their slots. A number that is not known on the host
//! (what clipping by a norm multiplies all gradients with) arrives as a second input beside the gradient, without dimensions and of its
//! dtype: no pass over the gradients is made for it.
//!
//! A fused kernel computes the definition's lines in the definition's order, without fused multiply-adds, each scalar first
//! rounded to the dtype of the arithmetic; then both give the same bits. Halves are computed in `f32` and rounded once, at
//! the end.

mod adam;
mod lion;
mod muon;
mod sgd;

pub use adam::AdamUpdate;
pub use lion::LionUpdate;
pub use muon::{MomentumUpdate, MuonUpdate};
pub use sgd::SgdUpdate;

use crate::error::{Error, Result};
use crate::ops::BinaryOp;
use crate::scalar::Scalar;
use crate::tensor::Tensor;

/// The values in the dtype that the arithmetic is done in: `f32` for halves.
fn widened(x: &Tensor) -> Result<Tensor> {
    if x.dtype().is_half() { x.try_to_dtype(crate::DType::F32) } else { Ok(x.clone()) }
}

/// The values in the dtype of the tensor that they replace.
fn narrowed(x: Tensor, of: &Tensor) -> Result<Tensor> {
    if x.dtype() == of.dtype() { Ok(x) } else { x.try_to_dtype(of.dtype()) }
}

/// x·scalar. (The operators would panic where a device fails.)
fn times(x: &Tensor, scalar: &Scalar) -> Result<Tensor> {
    x.try_binary_scalar(BinaryOp::Mul, scalar.clone())
}

/// The gradient: times its factor if one is given beside it, negated to climb.
fn gradient(name: &str, x: &[&Tensor], negated: bool) -> Result<Tensor> {
    let g = match *x {
        [g] => widened(g)?,
        [g, factor] => widened(&g.try_mul(factor)?)?,
        _ => {
            let n = x.len();
            return Err(Error::misuse(format!("{name}: takes the gradient and, maybe, its factor; got {n} inputs")));
        }
    };
    if negated { g.try_neg() } else { Ok(g) }
}

fn counts(name: &str, want: &str, targets: &[&Tensor]) -> Error {
    Error::misuse(format!("{name}: takes {want} targets; got {}", targets.len()))
}
