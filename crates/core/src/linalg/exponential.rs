//! Powers and the exponential of matrices.

use super::{download, each, eye, square};
use crate::dtype::DType;
use crate::error::Result;
use crate::precision::{Precision, precision, with_precision};
use crate::tensor::Tensor;

/// The coefficients of the numerator of the [13/13] Padé approximant of eˣ.
const PADE: [f64; 14] = [
    64_764_752_532_480_000.0,
    32_382_376_266_240_000.0,
    7_771_770_303_897_600.0,
    1_187_353_796_428_800.0,
    129_060_195_264_000.0,
    10_559_470_521_600.0,
    670_442_572_800.0,
    33_522_128_640.0,
    1_323_241_920.0,
    40_840_800.0,
    960_960.0,
    16_380.0,
    182.0,
    1.0,
];
/// The 1-norm up to which it holds to the last digits of `f64` (Higham, 2005).
const REACH: f64 = 5.371_920_351_148_152;

/// How often the matrices must be halved before the approximant holds: read from the host.
fn halvings(x: &Tensor, n: usize) -> Result<i32> {
    let a = download(x)?;
    let norm = |a: &[f64]| (0..n).map(|j| (0..n).map(|i| a[i * n + j].abs()).sum::<f64>()).fold(0.0, f64::max);
    let most = each(&a, n, n, x).map(norm).fold(0.0, f64::max);
    Ok(if most.is_finite() { (most / REACH).log2().ceil().max(0.0) as i32 } else { 0 })
}

impl Tensor {
    crate::fallible! {
        /// e^A of a square matrix, or of each of a stack: the [13/13] Padé approximant of A/2ˢ, squared s times (Higham, 2005). The
        /// number of squarings is read from the host. In PyTorch: `torch.linalg.matrix_exp`.
        pub fn matrix_exp | try_matrix_exp(&self) -> Tensor {
            let n = square("matrix_exp", self)?;
            if self.elements() == 0 {
                return Ok(self.clone());
            }
            if self.dtype().is_half() {
                // The coefficients are larger than any half.
                return self.try_to_dtype(DType::F32)?.try_matrix_exp()?.try_to_dtype(self.dtype());
            }
            if precision() != Precision::F32 {
                return with_precision(Precision::F32, || self.try_matrix_exp());
            }
            let s = halvings(self, n)?;
            let a = self * 0.5f64.powi(s);
            let a2 = a.try_matmul(&a)?;
            let a4 = a2.try_matmul(&a2)?;
            let a6 = a4.try_matmul(&a2)?;
            let one = eye(n, self)?;
            let terms = |k: usize| -> Result<Tensor> {
                let high = (&a6 * PADE[k + 12]).try_add(&(&a4 * PADE[k + 10]))?.try_add(&(&a2 * PADE[k + 8]))?;
                let low = (&a6 * PADE[k + 6]).try_add(&(&a4 * PADE[k + 4]))?.try_add(&(&a2 * PADE[k + 2]))?;
                a6.try_matmul(&high)?.try_add(&low)?.try_add(&(&one * PADE[k]))
            };
            let (even, odd) = (terms(0)?, a.try_matmul(&terms(1)?)?);
            let mut y = even.try_sub(&odd)?.try_solve(&even.try_add(&odd)?)?;
            for _ in 0..s {
                y = y.try_matmul(&y)?;
            }
            Ok(y)
        }
        /// Aⁿ of a square matrix, or of each of a stack, by squaring; a negative power is that of the inverse. In PyTorch:
        /// `torch.linalg.matrix_power`.
        pub fn matrix_power | try_matrix_power(&self, power: i32) -> Tensor {
            let n = square("matrix_power", self)?;
            let mut base = if power < 0 { self.try_inv()? } else { self.clone() };
            let (mut left, mut y) = (power.unsigned_abs(), None::<Tensor>);
            while left > 0 {
                if left & 1 == 1 {
                    y = Some(y.map_or(Ok(base.clone()), |y| y.try_matmul(&base))?);
                }
                left >>= 1;
                if left > 0 {
                    base = base.try_matmul(&base)?;
                }
            }
            // A⁰ is the identity, and keeps the graph.
            y.map_or_else(|| (self * 0.0).try_add(&eye(n, self)?), Ok)
        }
    }
}
