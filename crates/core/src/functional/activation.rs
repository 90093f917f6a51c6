//! Activations with parameters, as functions of the table's ops.

use crate::dtype::DType;
use crate::error::Error;
use crate::ops::BinaryOp;
use crate::scalar::Scalar;
use crate::tensor::Tensor;

impl Tensor {
    crate::fallible! {
        /// x where x > 0, else slope·x. In PyTorch: `torch.nn.functional.leaky_relu`.
        pub fn leaky_relu | try_leaky_relu(&self, slope: f64) -> Tensor {
            self.try_where(&self.try_gt_scalar(0.0)?, &self.try_binary_scalar(BinaryOp::Mul, slope)?)
        }
        /// x where x > 0, else w·x, with w one number or one for each channel (dimension 1). In PyTorch: `torch.nn.functional.prelu`.
        pub fn prelu | try_prelu(&self, weight: &Tensor) -> Tensor {
            let w = match (weight.elements(), self.rank()) {
                (1, _) if weight.rank() < 2 => weight.try_reshape(())?,
                (n, r) if weight.rank() == 1 && r >= 2 && self.dims()[1] == n => weight.try_view_as(&[&[-1isize][..], &vec![1; r - 2]].concat())?,
                _ => {
                    let e = Error::misuse("the slope must be one number, or a vector as long as dimension 1");
                    return Err(e.in_op("prelu", [(self.dtype(), *self.shape()), (weight.dtype(), *weight.shape())]));
                }
            };
            self.try_where(&self.try_gt_scalar(0.0)?, &self.try_mul(&w)?)
        }
        /// x where x > 0, else alpha·(eˣ − 1). In PyTorch: `torch.nn.functional.elu`.
        pub fn elu | try_elu(&self, alpha: f64) -> Tensor {
            // The branch not taken must not overflow: its gradient, 0·∞, would be NaN. A NaN counts as positive, as in PyTorch.
            let not_positive = self.detach().try_le_scalar(0.0)?;
            let low = self.try_masked_fill(&not_positive.try_logical_not()?, 0.0)?.try_expm1()? * alpha;
            low.try_where(&not_positive, self)
        }
        /// max(x, 0) + min(alpha·(e^(x/alpha) − 1), 0). In PyTorch: `torch.nn.functional.celu`.
        pub fn celu | try_celu(&self, alpha: f64) -> Tensor {
            let low = (self.try_masked_fill(&self.try_gt_scalar(0.0)?, 0.0)? / alpha).try_expm1()? * alpha;
            self.try_where(&self.try_gt_scalar(0.0)?, &low)
        }
        /// 1.0507·(x where x > 0, else 1.6733·(eˣ − 1)) (Klambauer et al., 2017). In PyTorch: `torch.nn.functional.selu`.
        pub fn selu | try_selu(&self) -> Tensor {
            Ok(self.try_elu(1.673_263_242_354_377_2)? * 1.050_700_987_355_480_5)
        }
        /// x limited to [low, high]. In PyTorch: `torch.nn.functional.hardtanh`.
        pub fn hardtanh | try_hardtanh(&self, low: f64, high: f64) -> Tensor {
            if low > high {
                return Err(Error::misuse(format!("the lower limit {low} lies above the upper {high}")).in_op("hardtanh", [(self.dtype(), *self.shape())]));
            }
            if !self.dtype().is_float() && (low.fract() != 0.0 || high.fract() != 0.0) {
                return self.try_to_dtype(DType::F32)?.try_hardtanh(low, high);
            }
            self.try_masked_fill(&self.detach().try_le_scalar(low)?, low)?.try_masked_fill(&self.detach().try_ge_scalar(high)?, high)
        }
        /// x where |x| > lambda, else 0. In PyTorch: `torch.nn.functional.hardshrink`.
        pub fn hardshrink | try_hardshrink(&self, lambda: f64) -> Tensor {
            self.try_masked_fill(&self.detach().try_abs()?.try_le_scalar(lambda)?, 0.0)
        }
        /// x moved towards 0 by lambda, and 0 where |x| ≤ lambda. In PyTorch: `torch.nn.functional.softshrink`.
        pub fn softshrink | try_softshrink(&self, lambda: f64) -> Tensor {
            if lambda < 0.0 {
                return Err(Error::misuse(format!("lambda must not be negative; got {lambda}")).in_op("softshrink", [(self.dtype(), *self.shape())]));
            }
            let x = self.detach();
            let moved = self.try_sub(&(x.try_sign()? * lambda))?;
            moved.try_masked_fill(&x.try_abs()?.try_le_scalar(lambda)?, 0.0)
        }
        /// x − tanh(x). In PyTorch: `torch.nn.functional.tanhshrink`.
        pub fn tanhshrink | try_tanhshrink(&self) -> Tensor { self.try_sub(&self.try_tanh()?) }
        /// x where x > threshold, else value. In PyTorch: `torch.nn.functional.threshold`.
        pub fn threshold | try_threshold(&self, threshold: f64, value: f64) -> Tensor {
            self.try_masked_fill(&self.try_le_scalar(threshold)?, value)
        }
        /// a·sigmoid(b), where a and b are the halves of dimension `dim`. In PyTorch: `torch.nn.functional.glu`.
        pub fn glu | try_glu(&self, dim: isize) -> Tensor {
            let n = self.shape()[self.shape().dim(dim)?];
            if !n.is_multiple_of(2) {
                return Err(Error::misuse(format!("dimension {dim} of length {n} has no halves")).in_op("glu", [(self.dtype(), *self.shape())]));
            }
            self.try_narrow(dim, 0, n / 2)?.try_mul(&self.try_narrow(dim, n / 2, n / 2)?.try_sigmoid()?)
        }
        /// The elements limited to [low, high]; a limit may be absent; where they cross, the upper one holds. ∂ = g between the limits, 0 at
        /// them and beyond. In PyTorch: `torch.clamp`.
        pub fn clamp | try_clamp(&self, low: Option<f64>, high: Option<f64>) -> Tensor {
            // Integers stay integers between whole limits; others, they meet in floating point.
            let whole = [low, high].iter().flatten().all(|l| l.fract() == 0.0);
            if !self.dtype().is_float() && !whole {
                return self.try_to_dtype(DType::F32)?.try_clamp(low, high);
            }
            let mut y = self.clone();
            // NaN compares false, so it stays NaN, as in PyTorch.
            if let Some(low) = low {
                y = y.try_masked_fill(&self.detach().try_le_scalar(low)?, low)?;
            }
            if let Some(high) = high {
                y = y.try_masked_fill(&y.detach().try_ge_scalar(high)?, high)?;
            }
            Ok(y)
        }
        /// self + t·(end − self), with t a tensor. In PyTorch: `torch.lerp`.
        pub fn lerp_tensor | try_lerp_tensor(&self, end: &Tensor, t: &Tensor) -> Tensor {
            self.try_add(&end.try_sub(self)?.try_mul(t)?)
        }
        /// self + value·a·b. In PyTorch: `torch.addcmul`.
        pub fn addcmul | try_addcmul<S: Into<Scalar>>(&self, a: &Tensor, b: &Tensor, value: S) -> Tensor {
            self.try_add(&a.try_mul(b)?.try_binary_scalar(BinaryOp::Mul, value)?)
        }
        /// self + value·a/b. In PyTorch: `torch.addcdiv`.
        pub fn addcdiv | try_addcdiv<S: Into<Scalar>>(&self, a: &Tensor, b: &Tensor, value: S) -> Tensor {
            self.try_add(&a.try_div(b)?.try_binary_scalar(BinaryOp::Mul, value)?)
        }
        /// ln(x / (1 − x)), of x limited to [eps, 1 − eps] where one is given. In PyTorch: `torch.logit`.
        pub fn logit | try_logit(&self, eps: Option<f64>) -> Tensor {
            let mut x = self.clone();
            if let Some(eps) = eps {
                // Not a clamp: where eps exceeds ½ the limits are passed one after the other, and at them there is a gradient.
                if !x.dtype().is_float() {
                    return x.try_to_dtype(DType::F32)?.try_logit(Some(eps));
                }
                x = x.try_masked_fill(&self.try_gt_scalar(1.0 - eps)?, 1.0 - eps)?.try_masked_fill(&self.try_lt_scalar(eps)?, eps)?;
            }
            x.try_div(&x.try_scalar_binary(BinaryOp::Sub, 1.0)?)?.try_log()
        }
    }
}
