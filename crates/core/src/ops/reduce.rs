//! Reductions over dimensions, in a fixed order: the same bits for any number of threads.

use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, Dims, View};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Op, Outs, Saves, new, one};
use crate::precision::Autocast;
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// What a reduction computes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReduceOp {
    /// The sum.
    Sum,
    /// The arithmetic mean.
    Mean,
    /// The product.
    Prod,
    /// The largest; NaN wins.
    Max,
    /// The smallest; NaN wins.
    Min,
    /// Whether any is not zero.
    Any,
    /// Whether none is zero.
    All,
}

impl ReduceOp {
    /// Every variant.
    pub const ALL: &'static [ReduceOp] =
        &[ReduceOp::Sum, ReduceOp::Mean, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min, ReduceOp::Any, ReduceOp::All];

    /// The method's name.
    pub const fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Mean => "mean",
            ReduceOp::Prod => "prod",
            ReduceOp::Max => "amax",
            ReduceOp::Min => "amin",
            ReduceOp::Any => "any",
            ReduceOp::All => "all",
        }
    }

    /// The result's dtype: sums and products of integers are `i64`, tests are `bool`, the rest keeps its own.
    pub const fn dtype(self, x: DType) -> DType {
        match self {
            ReduceOp::Any | ReduceOp::All => DType::Bool,
            ReduceOp::Sum | ReduceOp::Prod if !x.is_float() => DType::I64,
            _ => x,
        }
    }
}

/// A reduction over some dimensions.
#[derive(Clone, Copy, Debug)]
pub struct Reduce {
    /// What is computed.
    pub op: ReduceOp,
    /// The dimensions it goes over.
    pub dims: Dims,
    /// Whether they stay, with length 1.
    pub keep: bool,
}

impl Reduce {
    fn shape(&self, x: &Shape) -> Shape {
        if self.keep { self.dims.kept(x) } else { self.dims.dropped(x) }
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        self.op.name()
    }
    fn autocast(&self) -> Autocast {
        match self.op {
            ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Prod => Autocast::Full,
            _ => Autocast::Widest,
        }
    }
    #[inline]
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let Meta { dtype, shape } = x[0];
        match self.op {
            ReduceOp::Mean if !dtype.is_float() => {
                return Err(Error::misuse(format!(
                    "the mean needs a floating-point tensor, not {dtype}; cast it first (`to_dtype`)"
                )));
            }
            ReduceOp::Max | ReduceOp::Min if self.dims.count(&shape) == 0 && self.shape(&shape).elements() > 0 => {
                return Err(Error::misuse("there is no largest or smallest of no elements"));
            }
            _ => {}
        }
        Ok(one(self.op.dtype(dtype), self.shape(&shape)))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        Ok(new(on.reduce(self.op, x[0], self.dims)?))
    }
    fn saves(&self) -> Saves {
        match self.op {
            ReduceOp::Sum | ReduceOp::Mean => Saves::NOTHING,
            ReduceOp::Prod => Saves::INPUTS,
            _ => Saves::BOTH,
        }
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let shape = cx.shape(0);
        let kept = |g: &Tensor| g.reshape(self.dims.kept(&shape));
        // The gradient of a sum of everything has no dimensions, and stretches as it is.
        let spread = |g: &Tensor| if self.dims.is_all(shape.rank()) { g.expand(shape) } else { kept(g).expand(shape) };
        let g = cx.grad_ref();
        let dx = match self.op {
            ReduceOp::Sum => spread(g),
            ReduceOp::Mean => spread(&(g / self.dims.count(&shape) as f64)),
            ReduceOp::Prod => kept(g) * product_of_others(&cx.x(0), self.dims),
            ReduceOp::Max | ReduceOp::Min => {
                // Ties share the gradient evenly, as PyTorch's amax does.
                let x = cx.x(0);
                let winners = x.eq(&kept(&cx.y().detach())).to_dtype(x.dtype());
                let count = winners.reduce(ReduceOp::Sum, self.dims, true);
                kept(g) * (winners / count)
            }
            ReduceOp::Any | ReduceOp::All => cx.no_gradient("it gives bool"),
        };
        smallvec![Some(dx)]
    }
}

/// For each element, the product of the others that it is multiplied with: right at zeros, and differentiable again.
/// Prefix products from the left times those from the right.
fn product_of_others(x: &Tensor, dims: Dims) -> Tensor {
    let rank = x.rank();
    let order: Vec<isize> =
        (0..rank).filter(|&d| !dims.has(d)).chain(dims.iter().filter(|&d| d < rank)).map(|d| d as isize).collect();
    let moved = x.permute(&order);
    let (shape, n) = (*moved.shape(), dims.count(x.shape()));
    let flat_shape = dims.dropped(x.shape()).try_insert(dims.dropped(x.shape()).rank(), n).unwrap_or(shape);
    let flat = moved.reshape(flat_shape);
    let last = flat.rank() as isize - 1;
    let ones = Tensor::ones(flat_shape.with(last as usize, n.min(1)), x.place());
    let before = |t: &Tensor| Tensor::cat(&[&ones, &t.narrow(last, 0, n.saturating_sub(1))], last).cumprod(last);
    let left = before(&flat);
    let right = before(&flat.flip(&[last])).flip(&[last]);
    let mut back = vec![0isize; rank];
    order.iter().enumerate().for_each(|(i, &o)| back[o as usize] = i as isize);
    (left * right).reshape(shape).permute(&back)
}

/// Which extreme's place an arg-reduction gives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ArgReduceOp {
    /// The largest's.
    Max,
    /// The smallest's.
    Min,
}

/// The place of an extreme along a dimension, the first of equals.
#[derive(Clone, Copy, Debug)]
pub struct ArgReduce {
    /// Which extreme.
    pub op: ArgReduceOp,
    /// The dimension.
    pub dim: usize,
    /// Whether it stays, with length 1.
    pub keep: bool,
}

impl Op for ArgReduce {
    fn name(&self) -> &'static str {
        match self.op {
            ArgReduceOp::Max => "argmax",
            ArgReduceOp::Min => "argmin",
        }
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let shape = x[0].shape;
        if shape[self.dim] == 0 {
            return Err(Error::misuse(format!("dimension {} has no elements to choose from", self.dim)));
        }
        Ok(one(DType::I64, if self.keep { shape.with(self.dim, 1) } else { shape.without(self.dim) }))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        Ok(new(on.arg_reduce(self.op, x[0], self.dim)?))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        cx.no_gradient("it gives places, not values")
    }
}

/// A row of the table, for the catalog.
pub(crate) struct Row {
    pub op: ReduceOp,
    pub torch: &'static str,
    pub doc: &'static str,
    pub all: fn(&Tensor) -> Result<Tensor>,
    pub dims: fn(&Tensor, &[isize], bool) -> Result<Tensor>,
}

macro_rules! reductions {
    ($($(#[doc = $doc:literal])+ $op:ident => $all:ident | $try_all:ident | $dims:ident | $try_dims:ident, $torch:literal;)*) => {
        impl Tensor {
            crate::fallible! {$(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nOver all elements. In PyTorch: `", $torch, "`.")]
                pub fn $all | $try_all(&self) -> Tensor { self.try_reduce(ReduceOp::$op, Dims::all(self.rank()), false) }
                $(#[doc = $doc])+
                #[doc = concat!("\n\nOver the named dimensions (negative: from the end); `keep` leaves them with length 1. In PyTorch: `", $torch, "(x, dim, keepdim)`.")]
                pub fn $dims | $try_dims(&self, dims: &[isize], keep: bool) -> Tensor {
                    self.try_reduce(ReduceOp::$op, Dims::of(dims, self.shape())?, keep)
                }
            )*}
        }
        pub(crate) fn rows() -> Vec<Row> {
            vec![$(Row { op: ReduceOp::$op, torch: $torch, doc: concat!($($doc, "\n"),+), all: |x| x.$try_all(), dims: |x, d, k| x.$try_dims(d, k) }),*]
        }
    };
}

reductions! {
    /// The sum of the elements, 0 if there are none; `i64` for integers. ∂ = g for each
    Sum => sum | try_sum | sum_dims | try_sum_dims, "torch.sum";
    /// The arithmetic mean, NaN if there are none. ∂ = g/n for each
    Mean => mean | try_mean | mean_dims | try_mean_dims, "torch.mean";
    /// The product, 1 if there are none; `i64` for integers. ∂ = g · the product of the others (right at zeros)
    Prod => prod | try_prod | prod_dims | try_prod_dims, "torch.prod";
    /// The largest; NaN wins. ∂ = g, shared evenly by ties
    Max => max | try_max | amax | try_amax, "torch.amax";
    /// The smallest; NaN wins. ∂ = g, shared evenly by ties
    Min => min | try_min | amin | try_amin, "torch.amin";
    /// Whether any is not zero.
    Any => any | try_any | any_dims | try_any_dims, "torch.any";
    /// Whether none is zero.
    All => all | try_all | all_dims | try_all_dims, "torch.all";
}

impl Tensor {
    crate::fallible! {
        /// A reduction over a set of dimensions.
        pub fn reduce | try_reduce(&self, op: ReduceOp, dims: Dims, keep: bool) -> Tensor {
            Tensor::try_apply1(Reduce { op, dims, keep }, &[self])
        }
        /// The place of the largest along `dim`, the first of equals; `i64`. In PyTorch: `torch.argmax`.
        pub fn argmax | try_argmax(&self, dim: isize, keep: bool) -> Tensor {
            let dim = self.shape().dim(dim)?;
            Tensor::try_apply1(ArgReduce { op: ArgReduceOp::Max, dim, keep }, &[self])
        }
        /// The place of the smallest along `dim`, the first of equals; `i64`. In PyTorch: `torch.argmin`.
        pub fn argmin | try_argmin(&self, dim: isize, keep: bool) -> Tensor {
            let dim = self.shape().dim(dim)?;
            Tensor::try_apply1(ArgReduce { op: ArgReduceOp::Min, dim, keep }, &[self])
        }
        /// Sums what was broadcast, so that the result has `shape`: the gradient of [`expand`](Self::expand).
        pub fn sum_to | try_sum_to(&self, shape: Shape) -> Tensor {
            if *self.shape() == shape {
                return Ok(self.clone());
            }
            let fits = shape.broadcast(self.shape()) == Some(*self.shape());
            if !fits {
                return Err(Error::misuse(format!("a tensor of shape {} is no broadcast of {shape}", self.shape())).in_op("sum_to", [(self.dtype(), *self.shape())]));
            }
            let lead = self.rank() - shape.rank();
            let mut dims = Dims::all(lead);
            for i in 0..shape.rank() {
                if shape[i] != self.shape()[lead + i] {
                    dims = dims.with(lead + i);
                }
            }
            self.try_reduce(ReduceOp::Sum, dims, true)?.try_reshape(shape)
        }
    }
}

impl Tensor {
    crate::fallible! {
        /// How many elements are not zero, over the named dimensions; `i64`. In PyTorch: `torch.count_nonzero`.
        pub fn count_nonzero | try_count_nonzero(&self, dims: &[isize]) -> Tensor {
            self.try_ne_scalar(0i64)?.try_to_dtype(DType::I64)?.try_sum_dims(dims, false)
        }
        /// The sum over the named dimensions, NaN counting as 0. ∂ = g for each number. In PyTorch: `torch.nansum`.
        pub fn nansum | try_nansum(&self, dims: &[isize], keep: bool) -> Tensor {
            self.try_masked_fill(&self.detach().try_is_nan()?, 0i64)?.try_sum_dims(dims, keep)
        }
        /// The mean over the named dimensions of what is not NaN; NaN if nothing is. In PyTorch: `torch.nanmean`.
        pub fn nanmean | try_nanmean(&self, dims: &[isize], keep: bool) -> Tensor {
            let numbers = self.detach().try_is_nan()?.try_logical_not()?.try_to_dtype(self.dtype())?;
            self.try_nansum(dims, keep)?.try_div(&numbers.try_sum_dims(dims, keep)?)
        }
        /// The smallest and the largest over the named dimensions; NaN wins. ∂: shared evenly by ties. In PyTorch: `torch.aminmax`.
        pub fn aminmax | try_aminmax(&self, dims: &[isize], keep: bool) -> (Tensor, Tensor) {
            Ok((self.try_amin(dims, keep)?, self.try_amax(dims, keep)?))
        }
    }
}
