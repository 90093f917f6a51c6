//! Functions whose output's shape depends on the data. They wait for the device, and so end a recording.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

impl Tensor {
    crate::fallible! {
        /// The places of the elements that are not zero, `[count, rank]`, row-major; `i64`. Waits for the device. In PyTorch: `torch.nonzero`.
        pub fn nonzero | try_nonzero(&self) -> Tensor {
            let places = flat_nonzero(self)?;
            let rank = self.rank();
            let mut out = vec![0i64; places.len() * rank];
            for (row, &flat) in places.iter().enumerate() {
                let mut left = flat as usize;
                for d in (0..rank).rev() {
                    out[row * rank + d] = (left % self.dims()[d]) as i64;
                    left /= self.dims()[d];
                }
            }
            Tensor::try_from_vec(out, [places.len(), rank], self.device())
        }
        /// The elements where `mask` holds, in a row. ∂: g back to its places. Waits for the device. In PyTorch: `torch.masked_select`.
        pub fn masked_select | try_masked_select(&self, mask: &Tensor) -> Tensor {
            if mask.dtype() != DType::Bool {
                return Err(Error::misuse(format!("the mask must be bool, not {}", mask.dtype())).in_op("masked_select", [(mask.dtype(), *mask.shape())]));
            }
            let shape = super::binary::broadcast(self.shape(), mask.shape())?;
            let places = flat_nonzero(&mask.try_expand(shape)?)?;
            let n = places.len();
            let index = Tensor::try_from_vec(places, [n], self.device())?;
            self.try_expand(shape)?.try_reshape([shape.elements()])?.try_index_select(0, &index)
        }
        /// The distinct elements, ascending; for each element its place among them; how often each occurs. NaNs are distinct.
        /// Waits for the device. In PyTorch: `torch.unique(return_inverse=True, return_counts=True)`.
        pub fn unique | try_unique(&self) -> (Tensor, Tensor, Tensor) {
            let flat = self.detach().try_reshape([self.elements()])?;
            let order = flat.try_argsort(0, false)?.to_vec::<i64>()?;
            let data = flat.to_data()?;
            let same = |a: i64, b: i64| {
                let size = data.dtype.size();
                let at = |i: i64| &data.bytes[i as usize * size..(i as usize + 1) * size];
                // As numbers: +0 equals −0, and a NaN nothing. 64-bit integers have no exact number, so those as bytes.
                if data.dtype.is_float() { data.f64_at(a as usize) == data.f64_at(b as usize) } else { at(a) == at(b) }
            };
            let (mut firsts, mut counts, mut inverse) = (Vec::new(), Vec::<i64>::new(), vec![0i64; order.len()]);
            for &i in &order {
                if firsts.last().is_none_or(|&f| !same(f, i)) {
                    firsts.push(i);
                    counts.push(0);
                }
                inverse[i as usize] = firsts.len() as i64 - 1;
                if let Some(c) = counts.last_mut() { *c += 1; }
            }
            let n = firsts.len();
            let values = flat.try_index_select(0, &Tensor::try_from_vec(firsts, [n], self.device())?)?;
            Ok((values, Tensor::try_from_vec(inverse, *self.shape(), self.device())?, Tensor::try_from_vec(counts, [n], self.device())?))
        }
    }
}

fn flat_nonzero(x: &Tensor) -> Result<Vec<i64>> {
    let truth = x.detach().to_vec::<bool>()?;
    Ok(truth.iter().enumerate().filter_map(|(i, &t)| t.then_some(i as i64)).collect())
}
