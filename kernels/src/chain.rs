//! A chain of elementwise functions in one launch: every link is a line of the kernel, and what lies between stays in registers.
//!
//! The chain is known when the kernel is compiled, its numbers when it is launched. CPU reference: the functions, one after another.

use crate::binary::{FloatBinary, float_binary};
use crate::strided::{Place, locate};
use crate::unary::{FloatUnary, float_unary};
use crate::unary_grad::{UnaryGrad, gradient};
use cubecl::prelude::*;

/// What a link reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Term {
    /// An input.
    Input(usize),
    /// What an earlier link gave.
    Link(usize),
    /// One of the launch's numbers.
    Number(usize),
}

/// A function of one or two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// Of one.
    Unary(FloatUnary, Term),
    /// The gradient before a function, of the one behind it and what the function saves.
    Grad(UnaryGrad, Term, Term),
    /// Of two.
    Binary(FloatBinary, Term, Term),
}

/// The links, each after those that it reads, and which of them are outputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// The links.
    pub links: Vec<Link>,
    /// The outputs.
    pub outputs: Vec<usize>,
}

/// `out[o][pos]` of the inputs at `view(pos)`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn chain_kernel<T: Numeric>(
    x: &Sequence<Array<T>>,
    out: &mut Sequence<Array<T>>,
    shape: Sequence<usize>,
    places: &Sequence<Place>,
    numbers: &Sequence<f32>,
    len: usize,
    #[comptime] program: Program,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let (inputs, links, outputs) = comptime!((x.len(), program.links.len(), program.outputs.len()));
        let mut read = Sequence::<f32>::new();
        #[unroll]
        for i in 0..inputs {
            let at = locate(ABSOLUTE_POS, &shape, places.index(i));
            let x = x.index(i);
            read.push(f32::cast_from(x[usize::cast_from(at)]));
        }
        let mut values = Sequence::<f32>::new();
        #[unroll]
        for i in 0..links {
            let value = link(&read, &values, numbers, comptime!(program.links[i]));
            values.push(value);
        }
        #[unroll]
        for o in 0..outputs {
            let to = out.index_mut(o);
            to[ABSOLUTE_POS] = T::cast_from(*values.index(comptime!(program.outputs[o])));
        }
    }
}

#[cube]
fn link(read: &Sequence<f32>, values: &Sequence<f32>, numbers: &Sequence<f32>, #[comptime] link: Link) -> f32 {
    match comptime!(link) {
        Link::Unary(op, a) => float_unary::<f32>(term(read, values, numbers, a), op),
        Link::Grad(op, g, a) => gradient(term(read, values, numbers, g), term(read, values, numbers, a), op),
        Link::Binary(op, a, b) => {
            float_binary::<f32>(term(read, values, numbers, a), term(read, values, numbers, b), op)
        }
    }
}

#[cube]
fn term(read: &Sequence<f32>, values: &Sequence<f32>, numbers: &Sequence<f32>, #[comptime] term: Term) -> f32 {
    match comptime!(term) {
        Term::Input(i) => *read.index(i),
        Term::Link(i) => *values.index(i),
        Term::Number(i) => *numbers.index(i),
    }
}
