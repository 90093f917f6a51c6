//! Least squares and the pseudoinverse.

use super::{matrix, misuse};
use crate::precision::{Precision, with_precision};
use crate::tensor::Tensor;

impl Tensor {
    crate::fallible! {
        /// X `[.., n, k]` with the least ‖A·X − B‖, for this matrix A `[.., m, n]` of full rank with m ≥ n and B `[.., m, k]`: R·X = Qᵀ·B.
        /// In PyTorch: `torch.linalg.lstsq`.
        pub fn lstsq | try_lstsq(&self, b: &Tensor) -> Tensor {
            let (m, n) = matrix("lstsq", self)?;
            if m < n || b.rank() < 2 || b.dim(-2) != m {
                return Err(misuse("lstsq", &[self, b], format!("needs a matrix at least as tall as wide, and a right side [.., {m}, k]")));
            }
            let (q, r) = self.try_qr()?;
            with_precision(Precision::F32, || r.try_solve(&q.try_t()?.try_matmul(b)?))
        }
        /// The Moore–Penrose inverse V·diag(1/s)·Uᵀ `[.., n, m]`, where singular values up to `rtol` times the largest count as 0
        /// (`None`: max(m, n) times the dtype's precision). In PyTorch: `torch.linalg.pinv`.
        pub fn pinv | try_pinv(&self, rtol: Option<f64>) -> Tensor {
            let (m, n) = matrix("pinv", self)?;
            let (u, s, v) = self.try_svd()?;
            if s.elements() == 0 {
                return self.try_t();
            }
            let precision = if self.dtype() == crate::dtype::DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
            let least = s.detach().try_narrow(-1, 0, 1)? * rtol.unwrap_or(m.max(n) as f64 * precision);
            let zero = s.detach().try_le(&least)?;
            let inverse = s.try_masked_fill(&zero, 1.0)?.try_reciprocal()?.try_masked_fill(&zero, 0.0)?;
            with_precision(Precision::F32, || v.try_mul(&inverse.try_unsqueeze(-2)?)?.try_matmul(&u.try_t()?))
        }
    }
}
