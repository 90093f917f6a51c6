//! Picking elements by index, and its adjoint: combining elements into indexed places.
//!
//! Scattering is deterministic: elements are combined in the order of the source, without atomics.

use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, View};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Op, Outs, Saves, new, one};
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// How indices name places along a dimension.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Index {
    /// One index for each element of the result: `y[i, j] = x[index[i, j], j]` along dimension 0.
    Along(usize),
    /// One index for each slice: the indices' dimensions take the place of the dimension; `y[i, j] = x[index[i], j]`.
    Slices(usize),
}

impl Index {
    /// The dimension.
    pub fn dim(self) -> usize {
        match self {
            Index::Along(d) | Index::Slices(d) => d,
        }
    }

    /// The shape of what is picked of `x` by an index of shape `index`.
    pub fn shape(self, x: &Shape, index: &Shape) -> Result<Shape> {
        match self {
            Index::Along(dim) => {
                let fits = x.rank() == index.rank() && (0..x.rank()).all(|d| d == dim || index[d] <= x[d]);
                if !fits {
                    return Err(Error::misuse(format!(
                        "an index of shape {index} does not fit {x}: it needs {} dimensions, each but {dim} at most as long",
                        x.rank()
                    )));
                }
                Ok(*index)
            }
            Index::Slices(dim) => {
                let dims: Vec<usize> = x[..dim].iter().chain(index.iter()).chain(&x[dim + 1..]).copied().collect();
                Shape::try_new(&dims)
            }
        }
    }
}

fn check_index(index: &Meta) -> Result<()> {
    if index.dtype != DType::I64 {
        return Err(Error::misuse(format!("indices must be i64 here, not {}", index.dtype)));
    }
    Ok(())
}

/// Elements picked by index. Inputs: the tensor, the index.
#[derive(Clone, Copy, Debug)]
pub struct Gather(pub Index);

impl Op for Gather {
    fn name(&self) -> &'static str {
        match self.0 {
            Index::Along(_) => "gather",
            Index::Slices(_) => "index_select",
        }
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check_index(&x[1])?;
        Ok(one(x[0].dtype, self.0.shape(&x[0].shape, &x[1].shape)?))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        Ok(new(on.gather(x[0], x[1], self.0)?))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING.input(1)
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let zeros = Tensor::zeros((), cx.device().with(cx.meta(0).dtype)).expand(cx.shape(0));
        let scatter = Scatter { op: ScatterOp::Add, how: self.0 };
        smallvec![Tensor::apply(scatter, &[&zeros, &cx.x(1), &cx.grad()]).pop(), None]
    }
}

/// How a scattered element meets what is in its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScatterOp {
    /// It replaces it; the last one wins.
    Set,
    /// It is added.
    Add,
}

/// A base with elements combined into the places that an index names. Inputs: the base, the index, the source.
#[derive(Clone, Copy, Debug)]
pub struct Scatter {
    /// How elements meet.
    pub op: ScatterOp,
    /// How the index names places.
    pub how: Index,
}

impl Op for Scatter {
    fn name(&self) -> &'static str {
        match (self.op, self.how) {
            (ScatterOp::Add, Index::Along(_)) => "scatter_add",
            (ScatterOp::Set, Index::Along(_)) => "scatter",
            (ScatterOp::Add, Index::Slices(_)) => "index_add",
            (ScatterOp::Set, Index::Slices(_)) => "index_copy",
        }
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check_index(&x[1])?;
        if x[0].dtype != x[2].dtype {
            return Err(Error::misuse("base and source must have one dtype here"));
        }
        let shape = self.how.shape(&x[0].shape, &x[1].shape)?;
        if shape != x[2].shape {
            return Err(Error::misuse(format!("a source of shape {shape} would fit this index, not {}", x[2].shape)));
        }
        Ok(one(x[0].dtype, x[0].shape))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        Ok(new(on.scatter(self.op, x[0], x[1], x[2], self.how)?))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING.input(1)
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let (g, index) = (cx.grad(), cx.x(1));
        let base = cx.needs(0).then(|| match self.op {
            ScatterOp::Add => g.clone(),
            ScatterOp::Set => {
                let zeros = Tensor::zeros((), g.place()).expand(cx.shape(2));
                Tensor::apply(*self, &[&g, &index, &zeros]).swap_remove(0)
            }
        });
        let source = cx.needs(2).then(|| Tensor::apply(Gather(self.how), &[&g, &index]).swap_remove(0));
        smallvec![base, None, source]
    }
}

/// Indices as `i64`: other integers are converted, floats and `bool` refused.
fn as_index(op: &'static str, index: &Tensor) -> Result<Tensor> {
    if !index.dtype().is_int() {
        return Err(Error::misuse(format!("indices must be integers, not {}", index.dtype()))
            .in_op(op, [(index.dtype(), *index.shape())]));
    }
    index.try_to_dtype(DType::I64)
}

impl Tensor {
    crate::fallible! {
        /// Elements picked along `dim`, one index each: `y[i, j] = x[index[i, j], j]` for dimension 0. ∂: g added back to its
        /// places. An empty index picks nothing, whatever its shape. In PyTorch: `torch.gather`.
        pub fn gather | try_gather(&self, dim: isize, index: &Tensor) -> Tensor {
            if index.elements() == 0 {
                return self.try_reshape([self.elements()])?.try_narrow(0, 0, 0)?.try_reshape(*index.shape());
            }
            if self.rank() == 0 && index.elements() == 1 {
                return self.try_reshape([1])?.try_gather(0, &index.try_reshape([1])?)?.try_reshape(*index.shape());
            }
            let how = Index::Along(self.shape().dim(dim)?);
            Tensor::try_apply1(Gather(how), &[self, &as_index("gather", index)?])
        }
        /// Slices of dimension `dim`, one for each index; the index may have any shape, which takes the dimension's place.
        /// ∂: g added back to its slices. In PyTorch: `torch.index_select` (and indexing by a tensor).
        pub fn index_select | try_index_select(&self, dim: isize, index: &Tensor) -> Tensor {
            let how = Index::Slices(self.shape().dim(dim)?);
            Tensor::try_apply1(Gather(how), &[self, &as_index("index_select", index)?])
        }
        /// This tensor with `source` added into the places along `dim` that `index` names. ∂ = (g, g at the index). In PyTorch:
        /// `torch.scatter_add`.
        pub fn scatter_add | try_scatter_add(&self, dim: isize, index: &Tensor, source: &Tensor) -> Tensor {
            self.scattered(ScatterOp::Add, Index::Along(self.shape().dim(dim)?), index, source)
        }
        /// This tensor with the places along `dim` that `index` names replaced by `source`'s elements, the last one winning.
        /// In PyTorch: `torch.scatter`.
        pub fn scatter | try_scatter(&self, dim: isize, index: &Tensor, source: &Tensor) -> Tensor {
            self.scattered(ScatterOp::Set, Index::Along(self.shape().dim(dim)?), index, source)
        }
        /// This tensor with `source`'s slices added to the slices of `dim` that `index` names. In PyTorch: `torch.index_add`.
        pub fn index_add | try_index_add(&self, dim: isize, index: &Tensor, source: &Tensor) -> Tensor {
            self.scattered(ScatterOp::Add, Index::Slices(self.shape().dim(dim)?), index, source)
        }
        /// This tensor with the slices of `dim` that `index` names replaced by `source`'s. In PyTorch: `torch.index_copy`.
        pub fn index_copy | try_index_copy(&self, dim: isize, index: &Tensor, source: &Tensor) -> Tensor {
            self.scattered(ScatterOp::Set, Index::Slices(self.shape().dim(dim)?), index, source)
        }
        /// Elements picked along `dim`, where the other dimensions of index and tensor broadcast. In PyTorch: `torch.take_along_dim`.
        pub fn take_along | try_take_along(&self, dim: isize, index: &Tensor) -> Tensor {
            let d = self.shape().dim(dim)?;
            if index.rank() != self.rank() {
                return Err(Error::misuse(format!("the index needs {} dimensions, not {}", self.rank(), index.rank()))
                    .in_op("take_along", [(self.dtype(), *self.shape()), (index.dtype(), *index.shape())]));
            }
            let common = super::binary::broadcast(&self.shape().with(d, 1), &index.shape().with(d, 1))?;
            let x = self.try_expand(common.with(d, self.dims()[d]))?;
            x.try_gather(dim, &index.try_expand(common.with(d, index.dims()[d]))?)
        }
        /// Indices `[..]` as rows `[.., classes]` with a 1 in the index's place, else 0; `i64`. An index out of range is an
        /// error. In PyTorch: `torch.nn.functional.one_hot`.
        pub fn one_hot | try_one_hot(&self, classes: usize) -> Tensor {
            let index = as_index("one_hot", self)?.try_unsqueeze(-1)?;
            let shape = self.shape().try_insert(self.rank(), classes)?;
            let zeros = Tensor::try_zeros(shape, index.place())?;
            zeros.try_scatter(-1, &index, &index.ones_like())
        }
        /// The rows of this table `[rows, width]` that `index` names: `[..] → [.., width]`. In PyTorch: `torch.nn.functional.embedding`.
        pub fn embedding | try_embedding(&self, index: &Tensor) -> Tensor {
            if self.rank() != 2 {
                return Err(Error::misuse("the table must be [rows, width]").in_op("embedding", [(self.dtype(), *self.shape())]));
            }
            self.try_index_select(0, index)
        }
    }

    #[track_caller]
    fn scattered(&self, op: ScatterOp, how: Index, index: &Tensor, source: &Tensor) -> Result<Tensor> {
        Tensor::try_apply1(
            Scatter { op, how },
            &[self, &as_index("scatter", index)?, &source.try_to_dtype(self.dtype())?],
        )
    }
}
