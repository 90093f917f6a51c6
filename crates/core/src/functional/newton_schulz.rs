//! The sums of the Newton–Schulz iteration, by which Muon brings a matrix's singular values near 1.

use crate::composite::Composite;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Tensors};
use crate::ops::BinaryOp;
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// x·own + y·other, and then, if `halves`, the nearest value of `bf16`. Inputs: x and y, alike.
///
/// The second product is rounded before it is added; the first is not, as in PyTorch's sum of a product (`torch.addmm`): in halves its
/// last bit is seen. (A device without `f64` rounds it where no kernel is.)
#[derive(Clone, Copy, Debug)]
pub struct NewtonSchulzSum {
    /// The factor of x.
    pub own: f64,
    /// The factor of y.
    pub other: f64,
    /// Whether values are those of `bf16`.
    pub halves: bool,
}

impl Composite for NewtonSchulzSum {
    fn name(&self) -> &'static str {
        "newton_schulz_sum"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        match *x {
            [a, b] if a == b && a.dtype.is_float() => Ok(smallvec![a]),
            _ => Err(Error::misuse("needs two tensors of one floating-point dtype and one shape")),
        }
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let times = |x: &Tensor, s: f64| x.try_binary_scalar(BinaryOp::Mul, Scalar::from(f64::from(s as f32)));
        let (dtype, y) = (x[0].dtype(), times(x[1], self.other)?);
        let sum = if x[0].device().backend().supports(DType::F64) {
            let product = times(&x[0].try_to_dtype(DType::F64)?, self.own)?;
            product.try_add(&y.try_to_dtype(DType::F64)?)?.try_to_dtype(dtype)?
        } else {
            times(x[0], self.own)?.try_add(&y)?
        };
        Ok(smallvec![if self.halves { sum.try_to_dtype(DType::Bf16)?.try_to_dtype(dtype)? } else { sum }])
    }
}
