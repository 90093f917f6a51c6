//! Norms of matrices.

use super::{matrix, misuse};
use crate::error::Result;
use crate::tensor::Tensor;

/// The norms of a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MatrixNorm {
    /// The root of the sum of squares. In PyTorch: `'fro'`.
    #[default]
    Frobenius,
    /// The sum of the singular values. In PyTorch: `'nuc'`.
    Nuclear,
    /// The largest singular value. In PyTorch: `2`.
    Spectral,
    /// The smallest singular value. In PyTorch: `-2`.
    SpectralMin,
    /// The largest sum of magnitudes of a column. In PyTorch: `1`.
    Columns,
    /// The smallest sum of magnitudes of a column. In PyTorch: `-1`.
    ColumnsMin,
    /// The largest sum of magnitudes of a row. In PyTorch: `inf`.
    Rows,
    /// The smallest sum of magnitudes of a row. In PyTorch: `-inf`.
    RowsMin,
}

/// The norm over the last two dimensions, which stay, with length 1.
fn norm(x: &Tensor, kind: MatrixNorm) -> Result<Tensor> {
    let values = || x.try_svdvals()?.try_unsqueeze(-1); // [.., k, 1]
    match kind {
        MatrixNorm::Frobenius => x.try_norm(2.0, &[-2, -1], true),
        MatrixNorm::Nuclear => values()?.try_sum_dims(&[-2], true),
        MatrixNorm::Spectral => values()?.try_amax(&[-2], true),
        MatrixNorm::SpectralMin => values()?.try_amin(&[-2], true),
        MatrixNorm::Columns => x.try_abs()?.try_sum_dims(&[-2], true)?.try_amax(&[-1], true),
        MatrixNorm::ColumnsMin => x.try_abs()?.try_sum_dims(&[-2], true)?.try_amin(&[-1], true),
        MatrixNorm::Rows => x.try_abs()?.try_sum_dims(&[-1], true)?.try_amax(&[-2], true),
        MatrixNorm::RowsMin => x.try_abs()?.try_sum_dims(&[-1], true)?.try_amin(&[-2], true),
    }
}

impl Tensor {
    crate::fallible! {
        /// A norm of the matrices of two dimensions (rows, columns); `keep` leaves them with length 1. Those of singular values
        /// factor on the host (see [`crate::linalg`]). In PyTorch: `torch.linalg.matrix_norm`.
        pub fn matrix_norm | try_matrix_norm(&self, kind: MatrixNorm, dims: (isize, isize), keep: bool) -> Tensor {
            matrix("matrix_norm", self)?;
            let (r, c) = (self.shape().dim(dims.0)?, self.shape().dim(dims.1)?);
            if r == c {
                return Err(misuse("matrix_norm", &[self], format!("dimensions {} and {} are the same", dims.0, dims.1)));
            }
            let rest = (0..self.rank()).filter(|&d| d != r && d != c);
            let order: Vec<isize> = rest.chain([r, c]).map(|d| d as isize).collect();
            let y = norm(&self.try_permute(&order)?, kind)?; // [rest.., 1, 1]
            if keep { y.try_reshape(self.shape().with(r, 1).with(c, 1)) } else { y.try_squeeze(-1)?.try_squeeze(-1) }
        }
    }
}
