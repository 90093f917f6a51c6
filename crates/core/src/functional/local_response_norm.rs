//! Normalization by neighbouring channels (Krizhevsky et al., 2012).

use crate::error::Error;
use crate::ops::PadMode;
use crate::tensor::Tensor;

impl Tensor {
    crate::fallible! {
        /// x / (k + alpha·m)^beta of `[batch, channels, ..]`, where m is the mean of x² over `size` neighbouring channels, with
        /// zeros beyond the first and the last. In PyTorch: `torch.nn.functional.local_response_norm`.
        pub fn local_response_norm | try_local_response_norm(&self, size: usize, alpha: f64, beta: f64, k: f64) -> Tensor {
            if self.rank() < 3 || size == 0 {
                let e = Error::misuse(format!("needs [batch, channels, ..] and at least one neighbour; the size is {size}"));
                return Err(e.in_op("local_response_norm", [(self.dtype(), *self.shape())]));
            }
            let mut amounts = vec![(0, 0); self.rank() - 1]; // of dimension 1 and those behind it
            amounts[0] = ((size / 2) as isize, ((size - 1) / 2) as isize);
            let squares = self.try_square()?.try_pad(&amounts, PadMode::Constant(0.0))?;
            let mean = squares.try_unfold(1, size, 1)?.try_mean_dims(&[-1], false)?;
            self.try_div(&(mean * alpha + k).try_powf(beta)?)
        }
    }
}
