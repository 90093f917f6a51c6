//! A chain of elementwise functions as one pass over its inputs: what lies between its links is never written to memory.
//!
//! A chain is a list of links, each of which reads inputs, earlier links and numbers. It is defined by the ops of its links; a
//! backend runs it block by block in the cache (CPU), or as a kernel of its own (GPU). Its backward is a chain, too, made by going
//! through the links in reverse (`backward.rs`). How a user writes one: `expression.rs`.

mod backward;
mod expression;

pub use expression::{Expression, Operand};

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Tensors};
use crate::ops::{BinaryOp, UnaryGrad, UnaryKind, UnaryOp, broadcast};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// What a link reads.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Term {
    /// An input of the chain.
    Input(usize),
    /// What an earlier link gave.
    Link(usize),
    /// A number.
    Number(f64),
}

/// A function of one or two elements.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Link {
    /// A function of an element.
    Unary(UnaryOp, Term),
    /// The gradient before such a function: of the gradient behind it and what it saves, its input or its output.
    UnaryGrad(UnaryOp, Term, Term),
    /// A function of two, at most one of which is a number.
    Binary(BinaryOp, Term, Term),
}

impl Link {
    /// What it reads.
    pub fn terms(&self) -> impl Iterator<Item = Term> {
        let (a, b) = match *self {
            Link::Unary(_, a) => (a, None),
            Link::UnaryGrad(_, a, b) | Link::Binary(_, a, b) => (a, Some(b)),
        };
        [Some(a), b].into_iter().flatten()
    }
}

/// A chain of elementwise functions. Inputs: tensors of one floating-point dtype, which broadcast. Outputs: each of the common shape.
#[derive(Clone, PartialEq, Debug)]
pub struct Chain {
    /// How many inputs it has.
    pub inputs: usize,
    /// The links, each after those that it reads.
    pub links: Vec<Link>,
    /// The links that are outputs.
    pub outputs: Vec<usize>,
}

impl Chain {
    /// By which link each one is last read: `None` for an output, which stays, and for one that nobody reads.
    pub fn last_readers(&self) -> Vec<Option<usize>> {
        let mut last = vec![None; self.links.len()];
        for (reader, link) in self.links.iter().enumerate() {
            for term in link.terms() {
                if let Term::Link(read) = term {
                    last[read] = Some(reader);
                }
            }
        }
        self.outputs.iter().for_each(|&o| last[o] = None);
        last
    }

    /// An error unless every link gives a float of what comes before it.
    fn check(&self, inputs: usize) -> Result<()> {
        if inputs != self.inputs {
            return Err(Error::misuse(format!("takes {} inputs; got {inputs}", self.inputs)));
        }
        for (i, link) in self.links.iter().enumerate() {
            let known = |t: Term| match t {
                Term::Input(n) => n < inputs,
                Term::Link(n) => n < i,
                Term::Number(_) => true,
            };
            let float = match link {
                Link::Unary(op, _) | Link::UnaryGrad(op, ..) => {
                    matches!(op.kind(), UnaryKind::Float | UnaryKind::Number)
                }
                Link::Binary(..) => true,
            };
            if !link.terms().all(known) || link.terms().all(|t| matches!(t, Term::Number(_))) || !float {
                return Err(Error::misuse(format!("link {i}, {link:?}, is no float of what comes before it")));
            }
        }
        let twice = |i: usize| self.outputs[..i].contains(&self.outputs[i]);
        match (0..self.outputs.len()).find(|&i| self.outputs[i] >= self.links.len() || twice(i)) {
            Some(i) => Err(Error::misuse(format!("output {i} is no link of its own: {}", self.outputs[i]))),
            None => Ok(()),
        }
    }
}

impl Composite for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        self.check(x.len())?;
        let dtype = x.first().map(|m| m.dtype).filter(|d| d.is_float() && x.iter().all(|m| m.dtype == *d));
        let Some(dtype) = dtype else {
            return Err(Error::misuse("needs inputs, all of one floating-point dtype"));
        };
        let shape = x.iter().try_fold(Shape::SCALAR, |shape, m| broadcast(&shape, &m.shape))?;
        Ok(self.outputs.iter().map(|_| Meta::new(dtype, shape)).collect())
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let mut values: Vec<Tensor> = Vec::with_capacity(self.links.len());
        for link in &self.links {
            let tensor = |t: Term| match t {
                Term::Input(i) => Ok(x[i].clone()),
                Term::Link(i) => Ok(values[i].clone()),
                Term::Number(n) => Tensor::try_full((), n, x[0].device().with(x[0].dtype())),
            };
            let value = match *link {
                Link::Unary(op, a) => tensor(a)?.try_unary(op)?,
                Link::UnaryGrad(op, g, of) => {
                    let (g, of) = (tensor(g)?, tensor(of)?);
                    let shape = broadcast(g.shape(), of.shape())?;
                    Tensor::try_compose1(UnaryGrad(op), &[&g.try_expand(shape)?, &of.try_expand(shape)?])?
                }
                Link::Binary(op, a, Term::Number(n)) => tensor(a)?.try_binary_scalar(op, n)?,
                Link::Binary(op, Term::Number(n), b) => tensor(b)?.try_scalar_binary(op, n)?,
                Link::Binary(op, a, b) => tensor(a)?.try_binary(op, &tensor(b)?)?,
            };
            values.push(value);
        }
        let shape = x.iter().try_fold(Shape::SCALAR, |shape, t| broadcast(&shape, t.shape()))?;
        self.outputs.iter().map(|&o| values[o].try_expand(shape)).collect()
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        backward::gradients(self, cx)
    }
}
