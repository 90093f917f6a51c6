//! Scattering with a reduction of what meets in one place: means, extremes, products.
//!
//! Made of sorts, gathers and scatters, so it runs on every device and is deterministic. Products are combined by doubling over
//! the elements in order of their places, without division: zeros are right, to any order of derivative.

use crate::autodiff::{Function, Grads, Vjp, try_apply_function};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// How elements that meet in one place are reduced.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScatterReduceOp {
    /// Their sum.
    Sum,
    /// Their arithmetic mean; of integers, rounded down.
    Mean,
    /// Their product.
    Prod,
    /// The largest; NaN wins.
    Max,
    /// The smallest; NaN wins.
    Min,
}

impl Tensor {
    crate::fallible! {
        /// This tensor with `source`'s elements reduced into the places along `dim` that `index` names; what was there counts if
        /// `include_self`, and is replaced otherwise. Places that the index does not name stay. The source has the index's
        /// shape. ∂: ties share the gradient of an extreme evenly. In PyTorch: `torch.scatter_reduce`.
        pub fn scatter_reduce | try_scatter_reduce(&self, dim: isize, index: &Tensor, source: &Tensor, op: ScatterReduceOp, include_self: bool) -> Tensor {
            if self.rank() == 0 {
                let up = |t: &Tensor| if t.rank() == 0 { t.try_reshape([1]) } else { Ok(t.clone()) };
                return up(self)?.try_scatter_reduce(dim, &up(index)?, &up(source)?, op, include_self)?.try_reshape(());
            }
            if source.shape() != index.shape() || !index.dtype().is_int() {
                let e = Error::misuse("the source must have the shape of the index, which holds integers");
                return Err(e.in_op("scatter_reduce", [self, index, source].map(|t| (t.dtype(), *t.shape()))));
            }
            let (dim, source) = (self.shape().dim(dim)? as isize, source.try_to_dtype(self.dtype())?);
            match op {
                ScatterReduceOp::Sum => cleared(self, dim, index, include_self, 0)?.try_scatter_add(dim, index, &source),
                ScatterReduceOp::Mean => mean(self, dim, index, &source, include_self),
                ScatterReduceOp::Prod => {
                    cleared(self, dim, index, include_self, 1)?.try_mul(&products(self, dim, index, &source)?)
                }
                ScatterReduceOp::Max => extreme(self, dim, index, &source, include_self),
                ScatterReduceOp::Min => extreme(&self.try_neg()?, dim, index, &source.try_neg()?, include_self)?.try_neg(),
            }
        }
    }
}

/// The base, with `value` in the places that the index names unless they count.
fn cleared(base: &Tensor, dim: isize, index: &Tensor, include_self: bool, value: i64) -> Result<Tensor> {
    if include_self {
        return Ok(base.clone());
    }
    base.try_scatter(dim, index, &Tensor::try_full(*index.shape(), value, base.place())?)
}

fn mean(base: &Tensor, dim: isize, index: &Tensor, source: &Tensor, include_self: bool) -> Result<Tensor> {
    let sum = cleared(base, dim, index, include_self, 0)?.try_scatter_add(dim, index, source)?;
    let ones = Tensor::try_ones(*index.shape(), base.place())?;
    let own = if include_self { base.ones_like() } else { base.zeros_like() };
    let count = own.try_scatter_add(dim, index, &ones)?;
    let count = count.try_masked_fill(&count.try_eq_scalar(0i64)?, 1i64)?;
    if base.dtype().is_float() { sum.try_div(&count) } else { sum.try_floor_divide(&count) }
}

/// The largest of what meets in each place.
fn extreme(base: &Tensor, dim: isize, index: &Tensor, source: &Tensor, include_self: bool) -> Result<Tensor> {
    let mut y =
        try_apply_function(ScatterMax { dim, include_self }, &[base, &index.try_to_dtype(DType::I64)?, source])?;
    Ok(y.swap_remove(0))
}

/// The largest of what meets in each place. Inputs: base, index (`i64`), source.
#[derive(Clone, Copy, Debug)]
struct ScatterMax {
    dim: isize,
    include_self: bool,
}

impl Function for ScatterMax {
    fn name(&self) -> &'static str {
        "scatter_max"
    }
    /// Ascending sources are put in place one after the other, so that the largest stays.
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (base, index, source, dim) = (x[0], x[1], x[2], self.dim);
        let order = source.try_argsort(dim, false)?;
        let sorted = source.try_gather(dim, &order)?;
        let found = base.try_scatter(dim, &index.try_gather(dim, &order)?, &sorted)?;
        Ok(vec![if self.include_self { base.try_maximum(&found)? } else { found }])
    }
    /// Whatever equals the largest of its place shares its gradient. Places without a source keep theirs.
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        let (dim, index, y) = (self.dim, cx.x(1), cx.y().detach());
        let wins = |t: &Tensor, y: &Tensor| t.eq(y).to_dtype(y.dtype());
        let mut own = wins(&cx.x(0).detach(), &y);
        if !self.include_self {
            let named = y.zeros_like().scatter(dim, &index, &Tensor::ones(*index.shape(), y.place()));
            own = own.masked_fill(&named.ne_scalar(0.0), 0.0).maximum(&(1.0 - named));
        }
        let others = wins(&cx.x(2).detach(), &y.gather(dim, &index));
        let count = own.scatter_add(dim, &index, &others);
        let share = cx.grad() / count.masked_fill(&count.eq_scalar(0.0), 1.0); // a NaN equals nothing
        let source = cx.needs(2).then(|| share.gather(dim, &index) * others);
        smallvec![cx.needs(0).then(|| share * own), None, source]
    }
}

/// The product of the sources of each place, 1 where there is none; the base gives the shape.
fn products(base: &Tensor, dim: isize, index: &Tensor, source: &Tensor) -> Result<Tensor> {
    let order = index.try_argsort(dim, false)?;
    let (place, mut y) = (index.try_gather(dim, &order)?, source.try_gather(dim, &order)?);
    let (n, mut by) = (index.dim(dim), 1);
    // Within a run of equal places each element gathers those before it, twice as many at each step.
    while by < n {
        let (now, before) = (place.try_narrow(dim, by, n - by)?, place.try_narrow(dim, 0, n - by)?);
        let ahead = y.try_narrow(dim, 0, n - by)?;
        let factor = ahead.try_where(&now.try_eq(&before)?, &ahead.ones_like())?;
        let grown = y.try_narrow(dim, by, n - by)?.try_mul(&factor)?;
        y = Tensor::try_cat(&[&y.try_narrow(dim, 0, by)?, &grown], dim)?;
        by *= 2;
    }
    // The last of each run holds the whole product; the others are left out, of the gradient too.
    let (one, zeros) = (base.ones_like(), base.zeros_like());
    if n == 0 {
        return Ok(one);
    }
    let ends = place.try_narrow(dim, 0, n - 1)?.try_ne(&place.try_narrow(dim, 1, n - 1)?)?;
    let end = Tensor::try_ones(place.shape().with(dim as usize, 1), ends.place())?;
    let inside = Tensor::try_cat(&[&ends, &end], dim)?.try_logical_not()?;
    let unnamed = one.try_scatter(dim, &place, &Tensor::try_zeros(*place.shape(), one.place())?)?;
    zeros.try_scatter_add(dim, &place, &y.try_masked_fill(&inside, 0i64)?)?.try_add(&unnamed)
}
