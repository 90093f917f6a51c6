//! Functions whose output's shape depends on the data. They wait for the device, and so end a recording.

use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Tensor;
use std::cmp::Ordering;

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
        /// The distinct slices of dimension `dim`, in ascending order of their elements; for each slice its place among them; how often
        /// each occurs. Slices with NaN are distinct. Compared on the host. In PyTorch: `torch.unique(dim=..)`.
        pub fn unique_slices | try_unique_slices(&self, dim: isize) -> (Tensor, Tensor, Tensor) {
            let d = self.shape().dim(dim)?;
            let rows = self.detach().try_movedim(d as isize, 0)?;
            let (n, width) = (self.dims()[d], self.elements() / self.dims()[d].max(1));
            let data = rows.to_data()?;
            let numbers: Vec<i64> = if data.dtype.is_float() { Vec::new() } else { rows.to_vec()? };
            // NaN comes last, and of two by its slice's place.
            let element = |i: usize, j: usize, k: usize| {
                let (a, b) = (i * width + k, j * width + k);
                if !data.dtype.is_float() {
                    return numbers[a].cmp(&numbers[b]);
                }
                let (x, y) = (data.f64_at(a), data.f64_at(b));
                x.partial_cmp(&y).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()).then(i.cmp(&j)))
            };
            let compare = |i: usize, j: usize| (0..width).map(|k| element(i, j, k)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal);
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|&i, &j| compare(i, j));
            let (mut firsts, mut counts, mut inverse) = (Vec::<usize>::new(), Vec::<i64>::new(), vec![0i64; n]);
            for &i in &order {
                if firsts.last().is_none_or(|&f| compare(f, i) != Ordering::Equal) {
                    firsts.push(i);
                    counts.push(0);
                }
                inverse[i] = firsts.len() as i64 - 1;
                if let Some(c) = counts.last_mut() { *c += 1; }
            }
            let count = firsts.len();
            let places: Vec<i64> = firsts.into_iter().map(|i| i as i64).collect();
            let values = self.try_index_select(dim, &Tensor::try_from_vec(places, [count], self.device())?)?;
            let on = |v: Vec<i64>, n: usize| Tensor::try_from_vec(v, [n], self.device());
            Ok((values, on(inverse, n)?, on(counts, count)?))
        }
        /// Each slice of `dim` as often in a row as `times` `[n]` says. ∂: each gets the sum of its copies'. Waits for the device. In
        /// PyTorch: `torch.repeat_interleave`.
        pub fn repeat_each | try_repeat_each(&self, times: &Tensor, dim: isize) -> Tensor {
            let n = self.dims()[self.shape().dim(dim)?];
            let e = |m: String| Error::misuse(m).in_op("repeat_each", [(self.dtype(), *self.shape()), (times.dtype(), *times.shape())]);
            if !times.dtype().is_int() || times.rank() > 1 || !(times.elements() == n || times.elements() == 1) {
                return Err(e(format!("needs {n} integers, or one")));
            }
            let each = times.to_vec::<i64>()?;
            if let Some(bad) = each.iter().find(|&&t| t < 0) {
                return Err(e(format!("a slice cannot repeat {bad} times")));
            }
            let times = |i: usize| each[i % each.len()] as usize;
            let count = (0..n).try_fold(0usize, |sum, i| sum.checked_add(times(i)));
            let count = count.ok_or_else(|| e("more slices than an address can count".into()))?;
            let mut index: Vec<i64> = Vec::new();
            index.try_reserve_exact(count).map_err(|why| {
                Error::new(ErrorKind::Memory, format!("repeat_each: {count} slices")).caused_by(why)
            })?;
            (0..n).for_each(|i| index.extend(std::iter::repeat_n(i as i64, times(i))));
            self.try_index_select(dim, &Tensor::try_from_vec(index, [count], self.device())?)
        }
    }
}

#[track_caller]
fn flat_nonzero(x: &Tensor) -> Result<Vec<i64>> {
    let truth = x.detach().to_vec::<bool>()?;
    Ok(truth.iter().enumerate().filter_map(|(i, &t)| t.then_some(i as i64)).collect())
}
