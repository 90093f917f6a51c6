//! Views: another layout of the same memory. Their gradients put a gradient back into the places that the view showed.

use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, Buffer, View, WriteMode};
use crate::capture;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::op::{Meta, Metas, Op, Out, Outs, Saves, new, one, with_inputs};
use crate::scalar::Scalar;
use crate::shape::{IntoShape, MAX_RANK, Shape};
use crate::tensor::{Tensor, Value};
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;

/// Which places of a tensor a view shows, and in which order. Its fields have been checked against the tensor's shape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ViewSpec {
    /// The dimensions in another order.
    Permute(SmallVec<[usize; MAX_RANK]>),
    /// `len` places of a dimension, `step` apart.
    Slice {
        /// The dimension.
        dim: usize,
        /// The first place.
        start: usize,
        /// How many.
        len: usize,
        /// The distance; negative goes backwards.
        step: isize,
    },
    /// Dimensions of length 1 stretched, and new ones in front.
    Expand(Shape),
    /// A diagonal of two dimensions, as a new last one.
    Diagonal {
        /// How far above the main diagonal.
        offset: isize,
        /// The rows' dimension.
        d1: usize,
        /// The columns' dimension.
        d2: usize,
        /// Its length.
        len: usize,
    },
    /// Windows of a dimension; the place in the window is a new last one.
    Unfold {
        /// The dimension.
        dim: usize,
        /// The windows' length.
        size: usize,
        /// The distance of their starts.
        step: usize,
    },
}

impl ViewSpec {
    /// The layout that this view has of a tensor with layout `of`.
    pub fn layout(&self, of: &Layout) -> Layout {
        match self {
            ViewSpec::Permute(order) => of.permute(order),
            &ViewSpec::Slice { dim, start, len, step } => of.slice(dim, start, len, step),
            ViewSpec::Expand(shape) => of.expand(shape),
            &ViewSpec::Diagonal { offset, d1, d2, len } => of.diagonal(offset, d1, d2, len),
            &ViewSpec::Unfold { dim, size, step } => of.unfold(dim, size, step),
        }
    }
    fn name(&self) -> &'static str {
        match self {
            ViewSpec::Permute(_) => "permute",
            ViewSpec::Slice { .. } => "slice",
            ViewSpec::Expand(_) => "expand",
            ViewSpec::Diagonal { .. } => "diagonal",
            ViewSpec::Unfold { .. } => "unfold",
        }
    }
}

/// A view of a tensor.
#[derive(Clone, Debug)]
pub struct ViewOp(pub ViewSpec);

impl Op for ViewOp {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let shape = match &self.0 {
            ViewSpec::Expand(shape) => *shape,
            spec => *spec.layout(&Layout::dense(x[0].shape)).shape(),
        };
        Ok(one(x[0].dtype, shape))
    }
    fn eval(&self, _on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        Ok(smallvec![Out::View(0, Box::new(self.0.layout(x[0].layout)))])
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let g = cx.grad();
        smallvec![Some(match &self.0 {
            ViewSpec::Permute(order) => {
                let mut back = smallvec![0; order.len()];
                order.iter().enumerate().for_each(|(i, &o)| back[o] = i);
                view(&g, ViewSpec::Permute(back))
            }
            ViewSpec::Expand(_) => g, // the engine sums what was stretched
            spec => Tensor::apply(Put { spec: spec.clone(), shape: cx.shape(0) }, &[&g]).swap_remove(0),
        })]
    }
}

/// Zeros, with a tensor added into the places that a view shows: the gradient of a view.
#[derive(Clone, Debug)]
pub struct Put {
    /// The view.
    pub spec: ViewSpec,
    /// The shape that it was taken of.
    pub shape: Shape,
}

impl Op for Put {
    fn name(&self) -> &'static str {
        "put"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        Ok(one(x[0].dtype, self.shape))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        let mut out = on.fill(self.shape.elements(), x[0].dtype, &Scalar::Int(0))?;
        let places = self.spec.layout(&Layout::dense(self.shape));
        match self.spec {
            // Windows overlap; places of equal offset in their windows do not.
            ViewSpec::Unfold { size, .. } => {
                let last = x[0].shape().rank() - 1;
                for i in 0..size {
                    let at = places.slice(last, i, 1, 1);
                    let layout = x[0].layout.slice(last, i, 1, 1);
                    on.write(&mut out, &at, View { layout: &layout, ..x[0] }, WriteMode::Add)?;
                }
            }
            _ => on.write(&mut out, &places, x[0], WriteMode::Store)?,
        }
        Ok(new(out))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        smallvec![Some(view(&cx.grad(), self.spec.clone()))]
    }
}

/// The same elements in row-major order under another shape: a view where the strides allow it, else a copy.
#[derive(Clone, Copy, Debug)]
pub struct Reshape(pub Shape);

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        Ok(one(x[0].dtype, self.0))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        match x[0].layout.reshape(&self.0) {
            Some(layout) => Ok(smallvec![Out::View(0, Box::new(layout))]),
            None => Ok(new(on.copy(x[0])?)),
        }
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        smallvec![Some(cx.grad().reshape(cx.shape(0)))]
    }
}

/// A dense copy.
#[derive(Clone, Copy, Debug)]
struct Contiguous;

impl Op for Contiguous {
    fn name(&self) -> &'static str {
        "contiguous"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        Ok(one(x[0].dtype, x[0].shape))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        Ok(new(on.copy(x[0])?))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        smallvec![Some(cx.grad())]
    }
}

#[track_caller]
fn view(x: &Tensor, spec: ViewSpec) -> Tensor {
    Tensor::apply(ViewOp(spec), &[x]).swap_remove(0)
}

impl Tensor {
    #[track_caller]
    fn try_view(&self, spec: ViewSpec) -> Result<Tensor> {
        // Where nobody takes note of the call, the doorway has nothing to do but this.
        if self.node.is_none() && capture::is_off() {
            let layout = spec.layout(self.layout());
            layout.shape().checked_elements(self.dtype().size()).map_err(|e| with_inputs(e, spec.name(), &[self]))?;
            let value = Value::new(Buffer::clone(&self.value.buffer), layout, self.dtype(), self.device());
            return Ok(Tensor::from_value(Arc::new(value)));
        }
        Tensor::try_apply1(ViewOp(spec), &[self])
    }

    fn misfit(&self, op: &'static str, message: String) -> Error {
        Error::misuse(message).in_op(op, [(self.dtype(), *self.shape())])
    }

    /// `shape` with dimension `d` `n` times as long.
    fn tiled(&self, op: &'static str, shape: &Shape, d: usize, n: usize) -> Result<Shape> {
        let len = shape[d].checked_mul(n);
        let len = len.ok_or_else(|| {
            self.misfit(op, format!("dimension {d} repeated {n} times is longer than an address can count"))
        })?;
        Ok(shape.with(d, len))
    }

    fn dim_in(&self, op: &'static str, dim: isize) -> Result<usize> {
        self.shape().dim(dim).map_err(|e| e.in_op(op, [(self.dtype(), *self.shape())]))
    }

    /// The elements under another shape; one length may be −1, and is then worked out. Panics at the caller's line if the
    /// number of elements differs.
    #[track_caller]
    pub fn view_as(&self, dims: &[isize]) -> Tensor {
        crate::error::or_raise(self.try_view_as(dims))
    }

    /// As [`view_as`](Self::view_as), with misuse returned as an error.
    #[track_caller]
    pub fn try_view_as(&self, dims: &[isize]) -> Result<Tensor> {
        let open = dims.iter().filter(|&&d| d < 0).count();
        let lens = dims.iter().filter(|&&d| d >= 0).map(|&d| d as usize);
        let Some(known) = lens
            .clone()
            .try_fold(1usize, |n, d| n.checked_mul(d))
            .or_else(|| lens.clone().any(|d| d == 0).then_some(0))
        else {
            return Err(self.misfit("reshape", format!("{} elements cannot take the shape {dims:?}", self.elements())));
        };
        let fits = open == 0 || (open == 1 && known > 0 && self.elements().is_multiple_of(known));
        if !fits || dims.iter().any(|&d| d < -1) {
            return Err(self.misfit("reshape", format!("{} elements cannot take the shape {dims:?}", self.elements())));
        }
        let dims: Vec<usize> = dims.iter().map(|&d| if d < 0 { self.elements() / known } else { d as usize }).collect();
        self.try_reshape(dims)
    }

    crate::fallible! {
        /// The same elements, row-major, under another shape. Shares memory where the strides allow it. ∂ = g reshaped
        pub fn reshape | try_reshape<S: IntoShape>(&self, shape: S) -> Tensor {
            let shape = shape.into_shape()?;
            if shape == *self.shape() {
                return Ok(self.clone());
            }
            if shape.checked_elements(1)? != self.elements() {
                return Err(self.misfit("reshape", format!("{} elements cannot take the shape {shape}, which holds {}", self.elements(), shape.elements())));
            }
            Tensor::try_apply1(Reshape(shape), &[self])
        }
        /// Dimensions `start` to `end` (both included, negative from the end) joined into one. In PyTorch: `torch.flatten`.
        pub fn flatten | try_flatten(&self, start: isize, end: isize) -> Tensor {
            if self.rank() == 0 {
                return self.try_reshape([1]);
            }
            let (s, e) = (self.dim_in("flatten", start)?, self.dim_in("flatten", end)?);
            if s > e {
                return Err(self.misfit("flatten", format!("dimension {start} does not come before {end}")));
            }
            let mut dims: Vec<usize> = self.dims()[..s].to_vec();
            dims.push(self.dims()[s..=e].iter().product());
            dims.extend(&self.dims()[e + 1..]);
            self.try_reshape(dims)
        }
        /// The dimensions in another order: dimension `i` of the result is `order[i]` of this. ∂ = g permuted back
        pub fn permute | try_permute(&self, order: &[isize]) -> Tensor {
            let mut seen = 0u16;
            let mut resolved: SmallVec<[usize; MAX_RANK]> = SmallVec::new();
            for &o in order {
                let d = self.dim_in("permute", o)?;
                seen |= 1 << d;
                resolved.push(d);
            }
            if order.len() != self.rank() || seen.count_ones() as usize != self.rank() {
                return Err(self.misfit("permute", format!("{order:?} does not name each of the {} dimensions once", self.rank())));
            }
            self.try_view(ViewSpec::Permute(resolved))
        }
        /// Two dimensions exchanged. In PyTorch: `torch.transpose`.
        pub fn transpose | try_transpose(&self, a: isize, b: isize) -> Tensor {
            let (a, b) = (self.dim_in("transpose", a)?, self.dim_in("transpose", b)?);
            let mut order: SmallVec<[usize; MAX_RANK]> = (0..self.rank()).collect();
            order.swap(a, b);
            self.try_view(ViewSpec::Permute(order))
        }
        /// The last two dimensions exchanged.
        pub fn t | try_t(&self) -> Tensor { self.try_transpose(-2, -1) }
        /// One dimension moved to another place. In PyTorch: `torch.movedim`.
        pub fn movedim | try_movedim(&self, from: isize, to: isize) -> Tensor {
            let (from, to) = (self.dim_in("movedim", from)?, self.dim_in("movedim", to)?);
            let mut order: SmallVec<[usize; MAX_RANK]> = (0..self.rank()).filter(|&d| d != from).collect();
            order.insert(to, from);
            self.try_view(ViewSpec::Permute(order))
        }
        /// A new dimension of length 1 before `dim` (negative: from the end of the result).
        pub fn unsqueeze | try_unsqueeze(&self, dim: isize) -> Tensor {
            let rank = self.rank() as isize + 1;
            let d = if dim < 0 { dim + rank } else { dim };
            if d < 0 || d >= rank {
                return Err(self.misfit("unsqueeze", format!("dimension {dim} is out of range: the result has {rank} dimensions")));
            }
            self.try_reshape(self.shape().try_insert(d as usize, 1)?)
        }
        /// Dimension `dim` dropped if its length is 1; else, the tensor as it is. In PyTorch: `torch.squeeze`.
        pub fn squeeze | try_squeeze(&self, dim: isize) -> Tensor {
            let d = self.dim_in("squeeze", dim)?;
            if self.dims()[d] == 1 { self.try_reshape(self.shape().without(d)) } else { Ok(self.clone()) }
        }
        /// Every dimension of length 1 dropped.
        pub fn squeeze_all | try_squeeze_all(&self) -> Tensor {
            let dims: Vec<usize> = self.dims().iter().copied().filter(|&d| d != 1).collect();
            self.try_reshape(dims)
        }
        /// Stretched to `shape` without copying: lengths of 1 repeat, new dimensions come in front. ∂ = g summed back
        pub fn expand | try_expand<S: IntoShape>(&self, shape: S) -> Tensor {
            let shape = shape.into_shape()?;
            if shape == *self.shape() {
                return Ok(self.clone());
            }
            if self.shape().broadcast(&shape) != Some(shape) {
                return Err(self.misfit("expand", format!("does not stretch to {shape}: aligned from the right, each length must be equal or 1")));
            }
            self.try_view(ViewSpec::Expand(shape))
        }
        /// `len` places of dimension `dim` from `start` on. ∂: g there, 0 elsewhere. In PyTorch: `torch.narrow`.
        pub fn narrow | try_narrow(&self, dim: isize, start: usize, len: usize) -> Tensor {
            let d = self.dim_in("narrow", dim)?;
            if start.checked_add(len).is_none_or(|end| end > self.dims()[d]) {
                return Err(self.misfit("narrow", format!("places {start}..{start}+{len} lie outside dimension {d} of length {}", self.dims()[d])));
            }
            self.try_view(ViewSpec::Slice { dim: d, start, len, step: 1 })
        }
        /// Places of dimension `dim` from `start` up to, not including, `end`, in steps; as Python's `start:end:step`, with
        /// negative numbers counted from the end and steps backwards allowed. ∂: g there, 0 elsewhere.
        pub fn slice | try_slice(&self, dim: isize, start: Option<isize>, end: Option<isize>, step: isize) -> Tensor {
            let d = self.dim_in("slice", dim)?;
            if step == 0 {
                return Err(self.misfit("slice", "a step of 0 goes nowhere".into()));
            }
            let n = self.dims()[d] as isize;
            let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
            let place = |p: isize| (if p < 0 { p + n } else { p }).clamp(low, high);
            let (from, to) = if step > 0 { (start.map_or(0, place), end.map_or(n, place)) } else { (start.map_or(n - 1, place), end.map_or(-1, place)) };
            let span = if step > 0 { to - from } else { from - to };
            let len = (span.max(0) as usize).div_ceil(step.unsigned_abs());
            self.try_view(ViewSpec::Slice { dim: d, start: from.max(0) as usize, len, step })
        }
        /// One place of dimension `dim`, which is dropped; negative counts from the end. In PyTorch: `torch.select`.
        pub fn select | try_select(&self, dim: isize, at: isize) -> Tensor {
            let d = self.dim_in("select", dim)?;
            let n = self.dims()[d] as isize;
            let i = if at < 0 { at + n } else { at };
            if i < 0 || i >= n {
                return Err(self.misfit("select", format!("place {at} is out of range for dimension {d} of length {n}")));
            }
            self.try_narrow(d as isize, i as usize, 1)?.try_reshape(self.shape().without(d))
        }
        /// The named dimensions backwards. In PyTorch: `torch.flip`.
        pub fn flip | try_flip(&self, dims: &[isize]) -> Tensor {
            let mut out = self.clone();
            for &dim in dims {
                let d = self.dim_in("flip", dim)?;
                let n = self.dims()[d];
                out = out.try_view(ViewSpec::Slice { dim: d, start: n.saturating_sub(1), len: n, step: -1 })?;
            }
            Ok(out)
        }
        /// The diagonal of two dimensions, `offset` above the main one, as a new last dimension. In PyTorch: `torch.diagonal`.
        pub fn diagonal | try_diagonal(&self, offset: isize, dim1: isize, dim2: isize) -> Tensor {
            let (d1, d2) = (self.dim_in("diagonal", dim1)?, self.dim_in("diagonal", dim2)?);
            if d1 == d2 {
                return Err(self.misfit("diagonal", format!("dimensions {dim1} and {dim2} are the same")));
            }
            let rows = self.dims()[d1].saturating_sub(offset.min(0).unsigned_abs());
            let columns = self.dims()[d2].saturating_sub(offset.max(0) as usize);
            self.try_view(ViewSpec::Diagonal { offset, d1, d2, len: rows.min(columns) })
        }
        /// Every window of `size` places of dimension `dim`, `step` apart; the place in the window is a new last dimension.
        /// ∂: overlapping windows' gradients add up. In PyTorch: `Tensor.unfold`.
        pub fn unfold | try_unfold(&self, dim: isize, size: usize, step: usize) -> Tensor {
            let d = self.dim_in("unfold", dim)?;
            if step == 0 || size > self.dims()[d] || self.rank() == MAX_RANK {
                return Err(self.misfit("unfold", format!("windows of {size} every {step} do not fit dimension {d} of length {}", self.dims()[d])));
            }
            self.try_view(ViewSpec::Unfold { dim: d, size, step })
        }
        /// The elements dense and row-major: itself if they are, else a copy. ∂ = g
        pub fn contiguous | try_contiguous(&self) -> Tensor {
            if self.is_dense() { Ok(self.clone()) } else { Tensor::try_apply1(Contiguous, &[self]) }
        }
        /// Tiled: dimension `i` repeated `times[i]` times. In PyTorch: `Tensor.repeat`.
        pub fn repeat | try_repeat(&self, times: &[usize]) -> Tensor {
            if times.len() < self.rank() {
                return Err(self.misfit("repeat", format!("{times:?} does not say how often each of the {} dimensions repeats", self.rank())));
            }
            let mut out = self.try_reshape(Shape::try_new(&vec![1; times.len() - self.rank()])?.iter().chain(self.dims()).copied().collect::<Vec<_>>())?;
            for (d, &n) in times.iter().enumerate().filter(|(_, n)| **n != 1) {
                let tiled = self.tiled("repeat", out.shape(), d, n)?;
                let shape = out.shape().try_insert(d, n)?;
                out = out.try_unsqueeze(d as isize)?.try_expand(shape)?.try_reshape(tiled)?;
            }
            Ok(out)
        }
        /// Each place of dimension `dim` repeated `n` times in a row. In PyTorch: `torch.repeat_interleave`.
        pub fn repeat_interleave | try_repeat_interleave(&self, n: usize, dim: isize) -> Tensor {
            let d = self.dim_in("repeat_interleave", dim)?;
            let tiled = self.tiled("repeat_interleave", self.shape(), d, n)?;
            self.try_unsqueeze(d as isize + 1)?.try_expand(self.shape().try_insert(d + 1, n)?)?.try_reshape(tiled)
        }
    }
}
