//! Averages that follow batches: the running statistics of normalizations.

use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Tensors};
use crate::ops::BinaryOp;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// (1 − momentum)·average + momentum·new. Inputs: the average and the new numbers, alike.
///
/// A fused kernel writes zero for a number too small for full precision, which an average of zeros comes to: each would cost every
/// later batch some hundred cycles.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RunningAverage {
    /// The weight of the new numbers.
    pub momentum: f64,
}

impl Composite for RunningAverage {
    fn name(&self) -> &'static str {
        "running_average"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        if x[0] != x[1] || !x[0].dtype.is_float() {
            let (a, b) = (x[0], x[1]);
            return Err(Error::misuse(format!(
                "an average and what it follows must be alike, floating-point, not {} {} and {} {}",
                a.dtype, a.shape, b.dtype, b.shape
            )));
        }
        Ok(smallvec![x[0]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let old = x[0].try_binary_scalar(BinaryOp::Mul, 1.0 - self.momentum)?;
        Ok(smallvec![old.try_add(&x[1].try_binary_scalar(BinaryOp::Mul, self.momentum)?)?])
    }
}
