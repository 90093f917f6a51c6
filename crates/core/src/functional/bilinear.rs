//! A bilinear form of two vectors.

use crate::error::Error;
use crate::tensor::Tensor;

impl Tensor {
    crate::fallible! {
        /// yₒ = aᵀ·Wₒ·b + biasₒ for a `[.., m]`, b `[.., n]`, W `[out, m, n]`, bias `[out]`: `[.., out]`. In PyTorch:
        /// `torch.nn.functional.bilinear`.
        pub fn bilinear | try_bilinear(&self, other: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
            let e = || {
                let given = [self, other, weight].map(|t| (t.dtype(), *t.shape()));
                Error::misuse("needs a [.., m], b [.., n] with the same leading dimensions, a weight [out, m, n] and a bias [out]")
                    .in_op("bilinear", given)
            };
            let (Some((&m, lead)), Some((&n, lead2))) = (self.dims().split_last(), other.dims().split_last()) else {
                return Err(e());
            };
            let &[out, wm, wn] = weight.dims() else { return Err(e()) };
            if lead != lead2 || (wm, wn) != (m, n) || bias.is_some_and(|b| b.dims() != [out]) {
                return Err(e());
            }
            let rows: usize = lead.iter().product();
            // [rows, m] × [m, out·n] → [rows, out, n], which the other vector then weighs.
            let w = weight.try_permute(&[1, 0, 2])?.try_reshape([m, out * n])?;
            let left = self.try_reshape([rows, m])?.try_matmul(&w)?.try_reshape([rows, out, n])?;
            let y = left.try_mul(&other.try_reshape([rows, 1, n])?)?.try_sum_dims(&[-1], false)?;
            let y = match bias {
                Some(b) => y.try_add(b)?,
                None => y,
            };
            y.try_reshape([lead, &[out]].concat())
        }
    }
}
