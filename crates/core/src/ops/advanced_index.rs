//! Picking and placing by several index tensors at once, by masks, and by slices: what NumPy calls advanced indexing.

use super::index::{Index, Scatter, ScatterOp};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Index tensors, worked out for a tensor: its indexed dimensions are brought to the front and flattened into one, of which
/// `at` names places.
struct Picks {
    /// The indexed dimensions, ascending.
    dims: Vec<usize>,
    /// The order that brings them to the front.
    order: Vec<isize>,
    /// The shape in that order.
    moved: Vec<usize>,
    /// Flat places in the indexed dimensions, of the common shape of the indices.
    at: Tensor,
}

fn misuse(x: &Tensor, message: String) -> Error {
    Error::misuse(message).in_op("index", [(x.dtype(), *x.shape())])
}

/// Integer indices, one for each dimension that a mask covers; an integer tensor stands for itself.
fn integers(x: &Tensor, dim: usize, index: &Tensor) -> Result<Vec<Tensor>> {
    if index.dtype() != DType::Bool {
        if !index.dtype().is_int() {
            return Err(misuse(x, format!("indices must be integers or bool, not {}", index.dtype())));
        }
        return Ok(vec![index.try_to_dtype(DType::I64)?]);
    }
    if index.rank() == 0 || x.dims().get(dim..dim + index.rank()) != Some(index.dims()) {
        return Err(misuse(x, format!("a mask of shape {} does not cover dimensions from {dim} on", index.shape())));
    }
    let at = index.try_nonzero()?;
    (0..index.rank()).map(|d| at.try_select(1, d as isize)).collect()
}

/// Indices counted from the end if negative; one out of range is an error.
fn wrapped(x: &Tensor, index: &Tensor, dim: usize) -> Result<Tensor> {
    if index.elements() == 0 {
        return Ok(index.clone());
    }
    // Picking from 0, 1, .. n − 1 checks and wraps, on the device.
    Tensor::try_count(x.dims()[dim], x.device())?.try_index_select(0, index)
}

impl Picks {
    fn new(x: &Tensor, indices: &[Option<&Tensor>]) -> Result<Picks> {
        let (mut dims, mut given, mut dim) = (Vec::new(), Vec::new(), 0);
        for index in indices {
            let found = index.map_or(Ok(Vec::new()), |i| integers(x, dim, i))?;
            dims.extend(dim..dim + found.len());
            dim += found.len().max(1);
            given.extend(found);
        }
        if dim > x.rank() || given.is_empty() {
            return Err(misuse(x, format!("{dim} dimensions are named, {} of them by indices", given.len())));
        }
        let mut shape = *given[0].shape();
        for i in &given {
            shape = super::broadcast(&shape, i.shape()).map_err(|e| misuse(x, e.to_string()))?;
        }
        let mut at = Tensor::try_zeros(shape, x.device().with(DType::I64))?;
        for (&d, i) in dims.iter().zip(&given) {
            at = (&at * x.dims()[d]).try_add(&wrapped(x, i, d)?)?;
        }
        let rest = (0..x.rank()).filter(|d| !dims.contains(d));
        let order: Vec<usize> = dims.iter().copied().chain(rest).collect();
        let moved = order.iter().map(|&d| x.dims()[d]).collect();
        Ok(Picks { dims, order: order.into_iter().map(|d| d as isize).collect(), moved, at })
    }

    /// The tensor with the indexed dimensions as one, in front.
    fn flattened(&self, x: &Tensor) -> Result<Tensor> {
        let (indexed, rest) = self.moved.split_at(self.dims.len());
        x.try_permute(&self.order)?.try_reshape([&[indexed.iter().product()], rest].concat())
    }

    /// Its inverse.
    fn restored(&self, flat: &Tensor) -> Result<Tensor> {
        flat.try_reshape(&self.moved)?.try_permute(&inverse(&self.order))
    }

    /// The order that brings picked elements (the indices' dimensions in front) to their place: that of the indexed
    /// dimensions if those lie beside each other, else in front.
    fn home(&self) -> Vec<isize> {
        let together = self.dims.windows(2).all(|w| w[1] == w[0] + 1);
        let (front, place) = (self.at.rank(), if together { self.dims[0] } else { 0 });
        let rank = front + self.moved.len() - self.dims.len();
        let (lead, rest) = (front..front + place, front + place..rank);
        lead.chain(0..front).chain(rest).map(|d| d as isize).collect()
    }
}

fn inverse(order: &[isize]) -> Vec<isize> {
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, &o)| back[o as usize] = i as isize);
    back
}

impl Tensor {
    crate::fallible! {
        /// The elements that index tensors name, one tensor for each dimension (`None`: all of it); the indices broadcast, and
        /// their dimensions stand in place of the indexed ones, in front where a slice is between them. A `bool` mask stands for
        /// the places where it holds, over as many dimensions as it has (that waits for the device). ∂: g added back to its
        /// places. In PyTorch: `x[i, :, j]`.
        pub fn index | try_index(&self, indices: &[Option<&Tensor>]) -> Tensor {
            let picks = Picks::new(self, indices)?;
            picks.flattened(self)?.try_index_select(0, &picks.at)?.try_permute(&picks.home())
        }
        /// This tensor with `source`, which broadcasts, in the places that [`index`](Self::index) would pick, the last one winning;
        /// added to what is there if `accumulate`. In PyTorch: `torch.index_put`.
        pub fn index_put | try_index_put(&self, indices: &[Option<&Tensor>], source: &Tensor, accumulate: bool) -> Tensor {
            let picks = Picks::new(self, indices)?;
            let shape: Vec<usize> = picks.at.dims().iter().chain(&picks.moved[picks.dims.len()..]).copied().collect();
            let home = picks.home();
            let fitting: Vec<usize> = home.iter().map(|&d| shape[d as usize]).collect();
            let source = source.try_to_dtype(self.dtype())?.try_expand(&fitting)?.try_permute(&inverse(&home))?;
            let op = if accumulate { ScatterOp::Add } else { ScatterOp::Set };
            let scatter = Scatter { op, how: Index::Slices(0) };
            picks.restored(&Tensor::try_apply1(scatter, &[&picks.flattened(self)?, &picks.at, &source])?)
        }
        /// This tensor with the slices of `dim` that `index` names filled with the number `value` (a tensor of one element). ∂ =
        /// (g elsewhere, the sum of g there). In PyTorch: `torch.index_fill`.
        pub fn index_fill | try_index_fill(&self, dim: isize, index: &Tensor, value: &Tensor) -> Tensor {
            if value.elements() != 1 || value.rank() > 1 {
                return Err(Error::misuse(format!("the value must be one number, not {}", value.shape()))
                    .in_op("index_fill", [(self.dtype(), *self.shape()), (index.dtype(), *index.shape())]));
            }
            let d = self.shape().dim(dim)?;
            let place = self.device().with(DType::Bool);
            let named = Tensor::try_zeros([self.dims()[d]], place)?.try_index_copy(0, index, &Tensor::try_ones(*index.shape(), place)?)?;
            let mut along = vec![1; self.rank()];
            along[d] = self.dims()[d];
            value.try_to_dtype(self.dtype())?.try_reshape(())?.try_where(&named.try_reshape(along)?, self)
        }
        /// This tensor with `source` in place of its slice `at` of `dim`. ∂ = (g elsewhere, g there). In PyTorch:
        /// `torch.select_scatter`.
        pub fn select_scatter | try_select_scatter(&self, source: &Tensor, dim: isize, at: isize) -> Tensor {
            let place = self.shape().dim(dim).map(|d| self.dims()[d] as isize).map(|n| if at < 0 { at + n } else { at })?;
            self.try_slice_scatter(&source.try_unsqueeze(dim)?, dim, Some(place), Some(place + 1), 1)
        }
        /// This tensor with `source` in place of its `start:end:step` of `dim` (as [`slice`](Self::slice) takes them, forwards).
        /// ∂ = (g elsewhere, g there). In PyTorch: `torch.slice_scatter`.
        pub fn slice_scatter | try_slice_scatter(&self, source: &Tensor, dim: isize, start: Option<isize>, end: Option<isize>, step: isize) -> Tensor {
            let d = self.shape().dim(dim)?;
            if step < 1 {
                return Err(misuse(self, format!("the step must be positive; got {step}")));
            }
            let index = Tensor::try_count(self.dims()[d], self.device())?.try_slice(0, start, end, step)?;
            let fits = *source.shape() == self.shape().with(d, index.elements());
            if !fits {
                return Err(misuse(self, format!("a source of shape {} would fit, not {}", self.shape().with(d, index.elements()), source.shape())));
            }
            self.try_index_copy(dim, &index, source)
        }
        /// The elements where `mask` holds replaced by those of `source`, one after the other; mask and tensor broadcast. ∂ = (g
        /// elsewhere, g at the places that took an element). In PyTorch: `torch.masked_scatter`.
        pub fn masked_scatter | try_masked_scatter(&self, mask: &Tensor, source: &Tensor) -> Tensor {
            let given = || [self, mask, source].map(|t| (t.dtype(), *t.shape()));
            if mask.dtype() != DType::Bool || source.dtype() != self.dtype() {
                return Err(Error::misuse("needs a bool mask, and a source of the tensor's dtype").in_op("masked_scatter", given()));
            }
            let shape = super::broadcast(self.shape(), mask.shape())?;
            let n = shape.elements();
            let mask = mask.try_expand(shape)?.try_reshape([n])?;
            // The how-manieth place each is; the others point at an element put in front, which is not chosen.
            let count = mask.try_to_dtype(DType::I64)?.try_cumsum(0)?.try_masked_fill(&mask.try_logical_not()?, 0i64)?;
            let unused = Tensor::try_zeros([1], source.place())?;
            let elements = Tensor::try_cat(&[&unused, &source.try_reshape([source.elements()])?], 0)?;
            let taken = elements.try_index_select(0, &count).map_err(|e| e.context("the source has too few elements"))?;
            taken.try_where(&mask, &self.try_expand(shape)?.try_reshape([n])?)?.try_reshape(shape)
        }
    }
}
