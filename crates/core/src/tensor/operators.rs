//! `+ - * / % -x` and their kin on tensors, references and numbers. They panic at the caller's line on misuse.

use super::Tensor;
use crate::ops::BinaryOp;
use crate::scalar::{Scalar, Slot};
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

/// A number that may stand on the right of an operator. On the left, an operator takes `f64` and `i64` alone, so that the
/// type of a literal is always known.
pub trait Number: Into<Scalar> {}
impl Number for f32 {}
impl Number for f64 {}
impl Number for i32 {}
impl Number for i64 {}
impl Number for usize {}
impl Number for Scalar {}
impl Number for &Slot {}

macro_rules! operator {
    ($($trait:ident :: $method:ident => $op:expr;)*) => {$(
        impl $trait<&Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor { self.binary($op, other) }
        }
        impl $trait<Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor { self.binary($op, &other) }
        }
        impl $trait<&Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor { self.binary($op, other) }
        }
        impl $trait<Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor { self.binary($op, &other) }
        }
        impl<N: Number> $trait<N> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: N) -> Tensor { self.binary_scalar($op, other) }
        }
        impl<N: Number> $trait<N> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: N) -> Tensor { self.binary_scalar($op, other) }
        }
        operator!(@left $trait $method $op; f64 i64);
    )*};
    (@left $trait:ident $method:ident $op:expr; $($t:ty)*) => {$(
        impl $trait<&Tensor> for $t {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor { other.scalar_binary($op, self) }
        }
        impl $trait<Tensor> for $t {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor { other.scalar_binary($op, self) }
        }
    )*};
}

operator! {
    Add::add => BinaryOp::Add;
    Sub::sub => BinaryOp::Sub;
    Mul::mul => BinaryOp::Mul;
    Div::div => BinaryOp::Div;
    Rem::rem => BinaryOp::Remainder;
}

impl Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(self)
    }
}
impl Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(&self)
    }
}
