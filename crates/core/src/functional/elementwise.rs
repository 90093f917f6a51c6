//! Elementwise functions made of the table's ops: limits by tensors, NaN-aware extremes, comparisons within a tolerance.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::f64::consts::{LN_2, PI};

/// Where `x` is NaN; nowhere, for integers.
fn is_nan(x: &Tensor) -> Result<Tensor> {
    x.detach().try_is_nan()
}

/// Where sinc goes by its series: eight terms are exact to the last digit of `f64` there, and so are its first derivatives.
const SINC_SERIES_BELOW: f64 = 0.125;
/// (−1)ᵏ/(2k + 1)!, the highest first: sin a / a in a².
const SINC_SERIES: [f64; 8] = [
    -1.0 / 1_307_674_368_000.0,
    1.0 / 6_227_020_800.0,
    -1.0 / 39_916_800.0,
    1.0 / 362_880.0,
    -1.0 / 5_040.0,
    1.0 / 120.0,
    -1.0 / 6.0,
    1.0,
];

/// The largest finite number of a floating-point dtype.
fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 65504.0,
        DType::Bf16 => f64::from(half::bf16::MAX),
        DType::F32 => f64::from(f32::MAX),
        _ => f64::MAX,
    }
}

impl Tensor {
    crate::fallible! {
        /// The elements limited from below and above by tensors; the shapes broadcast, and where the limits cross the upper one
        /// holds. NaN wins. ∂: g to whichever was chosen. In PyTorch: `torch.clamp(x, min, max)`.
        pub fn clamp_tensor | try_clamp_tensor(&self, low: Option<&Tensor>, high: Option<&Tensor>) -> Tensor {
            let mut y = self.clone();
            if let Some(low) = low {
                y = low.try_where(&y.detach().try_lt(&low.detach())?.try_logical_or(&is_nan(low)?)?, &y)?;
            }
            if let Some(high) = high {
                y = high.try_where(&y.detach().try_gt(&high.detach())?.try_logical_or(&is_nan(high)?)?, &y)?;
            }
            Ok(y)
        }
        /// The larger one; a number wins over NaN. ∂: g to the one chosen, the first at ties. In PyTorch: `torch.fmax`.
        pub fn fmax | try_fmax(&self, other: &Tensor) -> Tensor {
            self.try_where(&self.detach().try_ge(&other.detach())?.try_logical_or(&is_nan(other)?)?, other)
        }
        /// The smaller one; a number wins over NaN. ∂: g to the one chosen, the first at ties. In PyTorch: `torch.fmin`.
        pub fn fmin | try_fmin(&self, other: &Tensor) -> Tensor {
            self.try_where(&self.detach().try_le(&other.detach())?.try_logical_or(&is_nan(other)?)?, other)
        }
        /// 0 where x < 0, 1 where x > 0, else `at_zero`. ∂: g to `at_zero` where x = 0. In PyTorch: `torch.heaviside`.
        pub fn heaviside | try_heaviside(&self, at_zero: &Tensor) -> Tensor {
            let step = (self.try_sign()? + 1i64).try_mul(&at_zero.ones_like())?;
            let step = if step.dtype().is_float() { step * 0.5 } else { step.try_shift_right(&step.ones_like())? };
            at_zero.try_where(&self.detach().try_eq_scalar(0i64)?, &step)
        }
        /// a · 2ᵇ. In PyTorch: `torch.ldexp`.
        pub fn ldexp | try_ldexp(&self, exponent: &Tensor) -> Tensor { self.try_mul(&exponent.try_exp2()?) }
        /// log₂(2ᵃ + 2ᵇ), without overflow. In PyTorch: `torch.logaddexp2`.
        pub fn logaddexp2 | try_logaddexp2(&self, other: &Tensor) -> Tensor { Ok((self * LN_2).try_logaddexp(&(other * LN_2))? / LN_2) }
        /// NaN and infinities replaced by numbers: by default 0 and the largest that the dtype has. ∂ = g elsewhere. In PyTorch:
        /// `torch.nan_to_num`.
        pub fn nan_to_num | try_nan_to_num(&self, nan: Option<f64>, positive: Option<f64>, negative: Option<f64>) -> Tensor {
            if !self.dtype().is_float() {
                return Ok(self.clone());
            }
            let most = largest(self.dtype());
            let x = self.detach();
            self.try_masked_fill(&x.try_is_nan()?, nan.unwrap_or(0.0))?
                .try_masked_fill(&x.try_eq_scalar(f64::INFINITY)?, positive.unwrap_or(most))?
                .try_masked_fill(&x.try_eq_scalar(f64::NEG_INFINITY)?, negative.unwrap_or(-most))
        }
        /// Whether |a − b| ≤ atol + rtol·|b|; equal infinities are close, NaNs if `equal_nan`. In PyTorch: `torch.isclose`.
        pub fn is_close | try_is_close(&self, other: &Tensor, rtol: f64, atol: f64, equal_nan: bool) -> Tensor {
            if !(rtol >= 0.0 && atol >= 0.0) {
                return Err(Error::misuse(format!("tolerances must not be negative; got rtol {rtol} and atol {atol}"))
                    .in_op("is_close", [(self.dtype(), *self.shape()), (other.dtype(), *other.shape())]));
            }
            let (a, b) = (self.detach(), other.detach());
            let mut close = a.try_eq(&b)?;
            // Unsigned integers would wrap.
            let signed = |x: &Tensor| if x.dtype().is_float() { Ok(x.clone()) } else { x.try_to_dtype(DType::I64) };
            let near = signed(&a)?.try_sub(&signed(&b)?)?.try_abs()?.try_le(&(b.try_abs()? * rtol + atol))?;
            close = close.try_logical_or(&near.try_logical_and(&b.try_is_finite()?)?)?;
            if equal_nan { close.try_logical_or(&is_nan(&a)?.try_logical_and(&is_nan(&b)?)?) } else { Ok(close) }
        }
        /// sin(πx) / (πx), and 1 at 0. Near 0 by its series, whose derivatives keep their digits where those of the quotient
        /// cancel. In PyTorch: `torch.sinc`.
        pub fn sinc | try_sinc(&self) -> Tensor {
            let x = if self.dtype().is_float() { self.clone() } else { self.try_to_dtype(DType::F32)? };
            let near = x.detach().try_abs()?.try_lt_scalar(SINC_SERIES_BELOW)?;
            let square = x.try_masked_fill(&near.try_logical_not()?, 0.0)?.try_square()? * (PI * PI);
            let mut series = &square * SINC_SERIES[0] + SINC_SERIES[1];
            for c in &SINC_SERIES[2..] {
                series = series.try_mul(&square)? + *c;
            }
            let at = x.try_masked_fill(&near, 1.0)? * PI; // whatever stands there, it is replaced
            series.try_where(&near, &at.try_sin()?.try_div(&at)?)
        }
        /// The angle of a real number: π where x < 0, else 0; NaN stays. ∂ = 0. In PyTorch: `torch.angle`.
        pub fn angle | try_angle(&self) -> Tensor {
            let x = if self.dtype().is_float() { self.clone() } else { self.try_to_dtype(DType::F32)? };
            ((1.0 - x.try_sign()?) * (PI / 2.0)).try_masked_fill(&x.detach().try_eq_scalar(0.0)?, 0.0)
        }
        /// Degrees in radians: x·π/180. In PyTorch: `torch.deg2rad`.
        pub fn deg2rad | try_deg2rad(&self) -> Tensor { self.try_binary_scalar(crate::ops::BinaryOp::Mul, PI / 180.0) }
        /// Radians in degrees: x·180/π. In PyTorch: `torch.rad2deg`.
        pub fn rad2deg | try_rad2deg(&self) -> Tensor { self.try_binary_scalar(crate::ops::BinaryOp::Mul, 180.0 / PI) }
    }
}
