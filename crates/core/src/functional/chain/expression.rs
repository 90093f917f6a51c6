//! How a chain is written: as a closure over expressions, which look like tensors.

use super::{Chain, Link, Term};
use crate::dtype::DType;
use crate::error::{Error, Result, or_raise};
use crate::ops::{BinaryOp, UnaryOp};
use crate::tensor::Tensor;
use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A value inside a [chain](Tensor::chain): an input, or what functions of inputs and numbers gave.
#[derive(Clone, Copy, Debug)]
pub struct Expression<'a> {
    links: &'a RefCell<Vec<Link>>,
    term: Term,
}

/// What a function of two takes beside an expression: another of the same chain, or a number.
pub trait Operand: private::Sealed {
    #[doc(hidden)]
    fn term(&self, links: &RefCell<Vec<Link>>) -> Term;
}

mod private {
    pub trait Sealed {}
    impl Sealed for f64 {}
    impl Sealed for super::Expression<'_> {}
}

impl Operand for f64 {
    fn term(&self, _: &RefCell<Vec<Link>>) -> Term {
        Term::Number(*self)
    }
}
impl Operand for Expression<'_> {
    fn term(&self, links: &RefCell<Vec<Link>>) -> Term {
        // An expression of another chain is none of this one's links: the chain's check refuses it.
        if std::ptr::eq(self.links, links) { self.term } else { Term::Link(usize::MAX) }
    }
}

impl<'a> Expression<'a> {
    fn then(self, link: Link) -> Expression<'a> {
        let mut links = self.links.borrow_mut();
        links.push(link);
        Expression { links: self.links, term: Term::Link(links.len() - 1) }
    }
    /// Any function of one element that gives a float.
    pub fn unary(self, op: UnaryOp) -> Expression<'a> {
        self.then(Link::Unary(op, self.term))
    }
    /// Any function of two elements.
    pub fn binary(self, op: BinaryOp, other: impl Operand) -> Expression<'a> {
        self.then(Link::Binary(op, self.term, other.term(self.links)))
    }
    /// selfⁿ.
    pub fn powf(self, n: f64) -> Expression<'a> {
        self.binary(BinaryOp::Pow, n)
    }
    /// The larger one; NaN wins.
    pub fn maximum(self, other: impl Operand) -> Expression<'a> {
        self.binary(BinaryOp::Maximum, other)
    }
    /// The smaller one; NaN wins.
    pub fn minimum(self, other: impl Operand) -> Expression<'a> {
        self.binary(BinaryOp::Minimum, other)
    }
}

macro_rules! functions {
    ($($op:ident => $name:ident),* $(,)?) => {
        impl<'a> Expression<'a> {$(
            #[doc = concat!("As [`Tensor::", stringify!($name), "`].")]
            pub fn $name(self) -> Expression<'a> {
                self.unary(UnaryOp::$op)
            }
        )*}
    };
}
functions! {
    Abs => abs, Sign => sign, Square => square, Sqrt => sqrt, Rsqrt => rsqrt, Reciprocal => reciprocal, Exp => exp,
    Expm1 => expm1, Log => log, Log1p => log1p, Sin => sin, Cos => cos, Tanh => tanh, Erf => erf, Sigmoid => sigmoid,
    Softplus => softplus, Relu => relu, Gelu => gelu, GeluTanh => gelu_tanh, Silu => silu,
}

impl<'a> Neg for Expression<'a> {
    type Output = Expression<'a>;
    fn neg(self) -> Expression<'a> {
        self.unary(UnaryOp::Neg)
    }
}

macro_rules! operators {
    ($($op:ident => $trait:ident, $method:ident);*) => {$(
        impl<'a, O: Operand> $trait<O> for Expression<'a> {
            type Output = Expression<'a>;
            fn $method(self, other: O) -> Expression<'a> {
                self.binary(BinaryOp::$op, other)
            }
        }
        impl<'a> $trait<Expression<'a>> for f64 {
            type Output = Expression<'a>;
            fn $method(self, other: Expression<'a>) -> Expression<'a> {
                other.then(Link::Binary(BinaryOp::$op, Term::Number(self), other.term))
            }
        }
    )*};
}
operators! { Add => Add, add; Sub => Sub, sub; Mul => Mul, mul; Div => Div, div }

impl Tensor {
    /// Elementwise functions of tensors in one pass: what lies between them is never written to memory, forward and backward. The
    /// shapes broadcast, the dtypes promote, and integers become `f32`.
    ///
    /// Every op on tensors reads its operands from memory and writes its result there, which takes most of the time of a simple
    /// function of many numbers. The gradient is a chain, too, that computes again what it needs instead of reading it. Of a million
    /// numbers, `(x * 2.0 + y).relu() * y - x` took 0.4 of the ops' time on a CPU, and the one below with its gradients 0.9; of a
    /// few thousand, which are in the cache anyway, gradients take longer. Panics at the caller's line on misuse;
    /// [`try_chain`](Self::try_chain) returns the error instead. In PyTorch: what `torch.compile` does.
    ///
    /// ```
    /// # use gradus_core::Tensor;
    /// # fn on(device: gradus_core::Device) -> gradus_core::Result<()> {
    /// let x = Tensor::from_slice(&[0.5f32, 1.0], device).requires_grad();
    /// let scale = Tensor::from_slice(&[2.0f32], device);
    /// let y = Tensor::chain([&x, &scale], |[x, scale]| (x * 2.0 + scale).tanh() * scale);
    /// y.sum().backward();
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn chain<const N: usize>(
        x: [&Tensor; N],
        f: impl for<'a> FnOnce([Expression<'a>; N]) -> Expression<'a>,
    ) -> Tensor {
        or_raise(Tensor::try_chain(x, f))
    }

    /// As [`chain`](Self::chain), with misuse returned as an error.
    #[track_caller]
    pub fn try_chain<const N: usize>(
        x: [&Tensor; N],
        f: impl for<'a> FnOnce([Expression<'a>; N]) -> Expression<'a>,
    ) -> Result<Tensor> {
        let links = RefCell::new(Vec::new());
        let last = f(std::array::from_fn(|i| Expression { links: &links, term: Term::Input(i) })).term(&links);
        let output = match last {
            Term::Link(output) if output < links.borrow().len() => output,
            // An input itself: −(−x) is x, in every bit.
            Term::Input(_) => {
                let mut links = links.borrow_mut();
                let first = links.len();
                links.extend([Link::Unary(UnaryOp::Neg, last), Link::Unary(UnaryOp::Neg, Term::Link(first))]);
                first + 1
            }
            _ => return Err(Error::misuse("chain: what the closure gave is of another chain")),
        };
        let dtype = x.iter().map(|t| t.dtype()).reduce(DType::promote).unwrap_or(DType::F32);
        let dtype = if dtype.is_float() { dtype } else { DType::F32 };
        let alike = x.iter().map(|t| t.try_to_dtype(dtype)).collect::<Result<Vec<_>>>()?;
        let chain = Chain { inputs: N, links: links.into_inner(), outputs: vec![output] };
        Tensor::try_compose1(chain, &std::array::from_fn::<&Tensor, N, _>(|i| &alike[i]))
    }
}
