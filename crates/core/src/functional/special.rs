//! The gamma function's logarithm and its derivatives.
//!
//! By definition: small arguments are shifted upwards by the recurrence, where Stirling's series holds to the last digits of
//! `f64`; arguments below ½ are reflected (Abramowitz & Stegun, 6.1.40, 6.4.6, 6.4.7, 6.4.11).

use crate::autodiff::{Function, Grads, Vjp, try_apply_function};
use crate::composite::Composite;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;
use std::f64::consts::PI;

/// The Bernoulli numbers B₂, B₄, … B₁₆.
const BERNOULLI: [f64; 8] =
    [1.0 / 6.0, -1.0 / 30.0, 1.0 / 42.0, -1.0 / 30.0, 5.0 / 66.0, -691.0 / 2730.0, 7.0 / 6.0, -3617.0 / 510.0];

/// The largest order of [`Tensor::polygamma`]: beyond it the series loses digits.
pub const MAX_ORDER: u32 = 16;

/// ln |Γ(x)| of each element.
#[derive(Clone, Copy, Debug)]
pub struct Lgamma;

/// ψ⁽ⁿ⁾(x), the n-th derivative of the digamma function, of each element.
#[derive(Clone, Copy, Debug)]
pub struct Polygamma(pub u32);

fn same_float(x: &[Meta]) -> Result<Metas> {
    if !x[0].dtype.is_float() {
        return Err(Error::misuse(format!("needs a floating-point tensor, not {}", x[0].dtype)));
    }
    Ok(one(x[0].dtype, x[0].shape))
}

macro_rules! gamma_functions {
    ($($op:ident, $name:literal, |$this:ident, $cx:ident| $vjp:expr;)*) => {$(
        impl Composite for $op {
            fn name(&self) -> &'static str {
                $name
            }
            fn autocast(&self) -> Autocast {
                Autocast::Full
            }
            fn infer(&self, x: &[Meta]) -> Result<Metas> {
                same_float(x)
            }
            fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
                try_apply_function(*self, x)
            }
            fn saves(&self) -> Saves {
                Saves::INPUTS
            }
            fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
                Some(Function::backward(self, cx))
            }
        }
        impl Function for $op {
            fn name(&self) -> &'static str {
                $name
            }
            fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
                // Halves have no digits to spare for the series.
                let wide = if x[0].dtype() == DType::F64 { DType::F64 } else { DType::F32 };
                Ok(vec![self.values(&x[0].try_to_dtype(wide)?)?.try_to_dtype(x[0].dtype())?])
            }
            fn backward(&self, cx: &Vjp<'_>) -> Grads {
                let ($this, $cx) = (self, cx);
                smallvec![Some(cx.grad() * $vjp)]
            }
        }
    )*};
}
gamma_functions! {
    Lgamma, "lgamma", |_op, cx| cx.x(0).digamma();
    Polygamma, "polygamma", |op, cx| cx.x(0).polygamma(op.0 + 1);
}

/// The distance to the nearest integer, with its sign: sin(πx) and cot(πx) keep their digits with it.
fn from_integer(x: &Tensor) -> Result<Tensor> {
    x.try_sub(&x.try_round()?)
}

impl Lgamma {
    fn values(&self, x: &Tensor) -> Result<Tensor> {
        let reflect = x.try_lt_scalar(0.5)?;
        let z = (1.0 - x).try_where(&reflect, x)?;
        // Below 8 the argument is raised by 8, and the product of what was passed is divided out.
        let small = z.try_lt_scalar(8.0)?;
        let mut passed = z.ones_like();
        for k in 0..8 {
            passed = passed.try_mul(&(&z + k as f64))?;
        }
        let high = (&z + 8.0).try_where(&small, &z)?;
        let (inverse, log) = (high.try_reciprocal()?, high.try_log()?);
        let square = inverse.try_square()?;
        let mut series = z.zeros_like();
        for (k, b) in BERNOULLI.iter().enumerate().rev() {
            let k2 = 2.0 * (k + 1) as f64;
            series = series.try_mul(&square)? + b / (k2 * (k2 - 1.0));
        }
        let stirling = ((&high - 0.5) * &log).try_sub(&high)? + 0.5 * (2.0 * PI).ln() + series * &inverse;
        let stirling = stirling.try_masked_fill(&z.try_eq_scalar(f64::INFINITY)?, f64::INFINITY)?;
        let y = stirling.try_sub(&passed.try_log()?.try_masked_fill(&small.try_logical_not()?, 0.0)?)?;
        // ln |Γ(x)| = ln(π / |sin πx|) − ln Γ(1 − x)
        let sine = (from_integer(x)? * PI).try_sin()?.try_abs()?;
        let mirrored = (PI.ln() - sine.try_log()?).try_sub(&y)?;
        let y = mirrored.try_where(&reflect, &y)?;
        y.try_masked_fill(&x.try_eq_scalar(f64::NEG_INFINITY)?, f64::INFINITY)
    }
}

impl Polygamma {
    /// (−1)ᵏ
    fn sign(k: u32) -> f64 {
        if k.is_multiple_of(2) { 1.0 } else { -1.0 }
    }

    /// k!
    fn factorial(k: u32) -> f64 {
        (1..=k).map(f64::from).product()
    }

    /// The asymptotic series, for large arguments.
    fn series(&self, z: &Tensor) -> Result<Tensor> {
        let n = self.0;
        let inverse = z.try_reciprocal()?;
        let square = inverse.try_square()?;
        let mut sum = z.zeros_like();
        for (k, b) in BERNOULLI.iter().enumerate().rev() {
            let k2 = 2 * (k as u32 + 1);
            // B₂ₖ·(2k + n − 1)!/(2k)!
            let c = b * Polygamma::factorial(k2 + n - 1) / Polygamma::factorial(k2);
            sum = (sum + c).try_mul(&square)?;
        }
        if n == 0 {
            return z.try_log()?.try_sub(&(inverse * 0.5 + sum));
        }
        let power = inverse.try_powf(f64::from(n))?;
        let lead = Polygamma::factorial(n - 1) + inverse * (Polygamma::factorial(n) / 2.0);
        Ok((lead + sum).try_mul(&power)? * Polygamma::sign(n + 1))
    }

    /// The coefficients of dⁿ/dxⁿ cot(πx) as a polynomial of cot(πx): Pₙ₊₁ = −π(1 + c²)·Pₙ′.
    fn cotangent_derivative(&self) -> Vec<f64> {
        let mut p = vec![0.0, 1.0];
        for _ in 0..self.0 {
            let mut next = vec![0.0; p.len() + 1];
            for (i, &a) in p.iter().enumerate().skip(1) {
                let slope = -PI * a * i as f64; // of cⁱ, times c^(i−1)·(1 + c²)
                next[i - 1] += slope;
                next[i + 1] += slope;
            }
            p = next;
        }
        p
    }

    fn values(&self, x: &Tensor) -> Result<Tensor> {
        let n = self.0;
        let reflect = x.try_lt_scalar(0.5)?;
        let z = (1.0 - x).try_where(&reflect, x)?;
        let shift = 12 + n;
        let mut passed = z.zeros_like();
        for k in (0..shift).rev() {
            passed = passed.try_add(&(&z + f64::from(k)).try_reciprocal()?.try_powf(f64::from(n + 1))?)?;
        }
        let high = self.series(&(&z + f64::from(shift)))?;
        let y = high.try_sub(&(passed * (Polygamma::sign(n) * Polygamma::factorial(n))))?;
        // ψ⁽ⁿ⁾(x) = (−1)ⁿ·ψ⁽ⁿ⁾(1 − x) − π·dⁿ/dxⁿ cot(πx)
        let cot = (from_integer(x)? * PI).try_tan()?.try_reciprocal()?;
        let mut slope = cot.zeros_like();
        for a in self.cotangent_derivative().into_iter().rev() {
            slope = slope.try_mul(&cot)? + a;
        }
        let mirrored = (&y * Polygamma::sign(n)).try_sub(&(slope * PI))?;
        let y = mirrored.try_where(&reflect, &y)?;
        if n > 0 {
            return Ok(y);
        }
        // The poles: an infinity with the sign that is approached at ±0, no number at the negative integers.
        let pole = x.try_le_scalar(0.0)?.try_logical_and(&from_integer(x)?.try_eq_scalar(0.0)?)?;
        let at_pole = x.try_reciprocal()?.try_neg()?.try_masked_fill(&x.try_lt_scalar(0.0)?, f64::NAN)?;
        at_pole.try_where(&pole, &y)
    }
}

fn float(x: &Tensor) -> Result<Tensor> {
    if x.dtype().is_float() { Ok(x.clone()) } else { x.try_to_dtype(DType::F32) }
}

impl Tensor {
    crate::fallible! {
        /// ln |Γ(x)|. ∂ = g·ψ(x). In PyTorch: `torch.lgamma`.
        pub fn lgamma | try_lgamma(&self) -> Tensor { Tensor::try_compose1(Lgamma, &[&float(self)?]) }
        /// ψ(x), the derivative of ln Γ(x). ∂ = g·ψ′(x). In PyTorch: `torch.digamma`.
        pub fn digamma | try_digamma(&self) -> Tensor { self.try_polygamma(0) }
        /// ψ⁽ⁿ⁾(x), the n-th derivative of ψ(x), for n up to [`MAX_ORDER`]. ∂ = g·ψ⁽ⁿ⁺¹⁾(x). In PyTorch: `torch.polygamma`.
        pub fn polygamma | try_polygamma(&self, n: u32) -> Tensor {
            if n > MAX_ORDER {
                let e = Error::misuse(format!("the order must be at most {MAX_ORDER}; got {n}"));
                return Err(e.in_op("polygamma", [(self.dtype(), *self.shape())]));
            }
            Tensor::try_compose1(Polygamma(n), &[&float(self)?])
        }
    }
}
