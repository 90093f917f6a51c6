//! Comparisons and logic, which give `bool`, and choosing by it.

use super::binary::{broadcast, stretched, weak};
use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, Operand, View};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Op, Outs, Saves, new, one};
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// A row of the table, for the catalog.
pub(crate) struct Row {
    pub method: &'static str,
    pub torch: &'static str,
    pub doc: &'static str,
    pub run: fn(&Tensor, &Tensor) -> Result<Tensor>,
}

macro_rules! compare_ops {
    ($($(#[doc = $doc:literal])+ $op:ident => $method:ident | $try_method:ident | $scalar:ident | $try_scalar:ident, $torch:literal;)*) => {
        /// The comparisons of two elements.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum CompareOp {$($(#[doc = $doc])+ $op,)*}

        impl CompareOp {
            /// Every variant.
            pub const ALL: &'static [CompareOp] = &[$(CompareOp::$op),*];
            /// The method's name.
            pub const fn name(self) -> &'static str {
                match self { $(CompareOp::$op => stringify!($method),)* }
            }
        }

        pub(crate) fn rows() -> Vec<Row> {
            vec![$(Row { method: stringify!($method), torch: $torch, doc: concat!($($doc, "\n"),+), run: |a, b| a.$try_method(b) }),*]
        }

        impl Tensor {
            crate::fallible! {$(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nThe shapes broadcast, the dtypes promote. In PyTorch: `", $torch, "`.")]
                pub fn $method | $try_method(&self, other: &Tensor) -> Tensor { self.try_compare(CompareOp::$op, other) }
                $(#[doc = $doc])+
                #[doc = "\n\nWith one number for every element."]
                pub fn $scalar | $try_scalar<S: Into<Scalar>>(&self, other: S) -> Tensor { self.try_compare_scalar(CompareOp::$op, other.into()) }
            )*}
        }
    };
}

compare_ops! {
    /// Whether both are equal.
    Eq => eq | try_eq | eq_scalar | try_eq_scalar, "torch.eq";
    /// Whether they differ.
    Ne => ne | try_ne | ne_scalar | try_ne_scalar, "torch.ne";
    /// Whether the first is less.
    Lt => lt | try_lt | lt_scalar | try_lt_scalar, "torch.lt";
    /// Whether the first is not greater.
    Le => le | try_le | le_scalar | try_le_scalar, "torch.le";
    /// Whether the first is greater.
    Gt => gt | try_gt | gt_scalar | try_gt_scalar, "torch.gt";
    /// Whether the first is not less.
    Ge => ge | try_ge | ge_scalar | try_ge_scalar, "torch.ge";
    /// Whether both are not zero.
    LogicalAnd => logical_and | try_logical_and | logical_and_scalar | try_logical_and_scalar, "torch.logical_and";
    /// Whether either is not zero.
    LogicalOr => logical_or | try_logical_or | logical_or_scalar | try_logical_or_scalar, "torch.logical_or";
    /// Whether one alone is not zero.
    LogicalXor => logical_xor | try_logical_xor | logical_xor_scalar | try_logical_xor_scalar, "torch.logical_xor";
}

/// A comparison of two tensors' elements.
#[derive(Clone, Copy, Debug)]
pub struct Compare(pub CompareOp);

impl Op for Compare {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        Ok(one(DType::Bool, broadcast(&x[0].shape, &x[1].shape)?))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        let (a, b) = stretched(x)?;
        let view = |i: usize, layout| Operand::View(View { buffer: x[i].buffer, layout, dtype: x[i].dtype });
        Ok(new(on.compare(self.0, view(0, &a), view(1, &b))?))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        cx.no_gradient("it gives bool")
    }
}

/// A comparison of a tensor's elements with one number.
#[derive(Clone, Debug)]
pub struct CompareScalar {
    /// The comparison.
    pub op: CompareOp,
    /// The right operand.
    pub scalar: Scalar,
}

impl Op for CompareScalar {
    fn name(&self) -> &'static str {
        self.op.name()
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        Ok(one(DType::Bool, x[0].shape))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        Ok(new(on.compare(self.op, Operand::View(x[0]), Operand::Scalar(self.scalar.clone()))?))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        cx.no_gradient("it gives bool")
    }
}

/// `a` where a condition holds, else `b`.
#[derive(Clone, Copy, Debug)]
pub struct Where;

impl Op for Where {
    fn name(&self) -> &'static str {
        "where"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        if x[0].dtype != DType::Bool {
            return Err(Error::misuse(format!("the condition must be bool, not {}", x[0].dtype)));
        }
        if x[1].dtype != x[2].dtype {
            return Err(Error::misuse("both choices must have one dtype here"));
        }
        Ok(one(x[1].dtype, broadcast(&broadcast(&x[0].shape, &x[1].shape)?, &x[2].shape)?))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        let shape = broadcast(&broadcast(x[0].shape(), x[1].shape())?, x[2].shape())?;
        let l: Vec<_> = x.iter().map(|v| v.layout.expand(&shape)).collect();
        let view = |i: usize| View { buffer: x[i].buffer, layout: &l[i], dtype: x[i].dtype };
        Ok(new(on.select(view(0), view(1), view(2))?))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING.input(0)
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let (g, c) = (cx.grad(), cx.x(0));
        let a = cx.needs(1).then(|| g.masked_fill(&c.logical_not(), 0.0));
        let b = cx.needs(2).then(|| g.masked_fill(&c, 0.0));
        smallvec![None, a, b]
    }
}

impl Tensor {
    /// A comparison of two tensors' elements: dtypes promote, shapes broadcast.
    pub fn try_compare(&self, op: CompareOp, other: &Tensor) -> Result<Tensor> {
        if self.dtype() == other.dtype() {
            return Tensor::try_apply1(Compare(op), &[self, other]);
        }
        let dtype = self.dtype().promote(other.dtype());
        Tensor::try_apply1(Compare(op), &[&self.try_to_dtype(dtype)?, &other.try_to_dtype(dtype)?])
    }

    /// A comparison of each element with a (weak) number.
    pub fn try_compare_scalar(&self, op: CompareOp, scalar: Scalar) -> Result<Tensor> {
        let dtype = weak(self.dtype(), &scalar, false);
        let op = CompareScalar { op, scalar };
        if dtype == self.dtype() {
            Tensor::try_apply1(op, &[self])
        } else {
            Tensor::try_apply1(op, &[&self.try_to_dtype(dtype)?])
        }
    }

    crate::fallible! {
        /// This tensor's elements where `condition` holds, else `other`'s. ∂: g to the one that was chosen.
        ///
        /// The three shapes broadcast. In PyTorch: `torch.where(condition, self, other)`.
        pub fn where_ | try_where(&self, condition: &Tensor, other: &Tensor) -> Tensor {
            let dtype = self.dtype().promote(other.dtype());
            Tensor::try_apply1(Where, &[condition, &self.try_to_dtype(dtype)?, &other.try_to_dtype(dtype)?])
        }
        /// This tensor with `value` where `mask` holds. ∂ = g where it does not. In PyTorch: `Tensor.masked_fill`.
        pub fn masked_fill | try_masked_fill<S: Into<Scalar>>(&self, mask: &Tensor, value: S) -> Tensor {
            let value = Tensor::try_full((), value, self.place())?;
            Tensor::try_apply1(Where, &[mask, &value, self])
        }
    }
}
