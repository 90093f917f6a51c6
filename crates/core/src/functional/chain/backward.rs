//! The backward of a chain: its links in reverse, as a chain of the same inputs and the output's gradient.

use super::{Chain, Link, Term};
use crate::autodiff::{Grads, Vjp};
use crate::error::or_raise;
use crate::op::Saves;
use crate::ops::{BinaryOp, UnaryOp};
use crate::tensor::Tensor;
use smallvec::SmallVec;

/// The gradients of a chain of one output by another chain; `None` where a link's gradient is no short chain itself: then the
/// definition is differentiated.
pub(super) fn gradients(chain: &Chain, cx: &Vjp<'_>) -> Option<Grads> {
    let &[output] = chain.outputs.as_slice() else { return None };
    let wanted: Vec<usize> = (0..chain.inputs).filter(|&i| cx.needs(i)).collect();
    let (backward, made) = reversed(chain, output, &wanted)?;
    let x: Vec<Tensor> = (0..chain.inputs).map(|i| cx.x(i)).chain([cx.grad()]).collect();
    let mut outputs = Tensor::compose(backward, &x.iter().collect::<Vec<_>>()).into_iter();
    let mut grads: Grads = (0..chain.inputs).map(|_| None).collect();
    for (&i, made) in wanted.iter().zip(made) {
        // An input that the output does not depend on has no gradient to speak of: zeros.
        let of_shape = |g: Tensor| g.try_sum_to(*x[i].shape());
        grads[i] = Some(match made {
            true => or_raise(of_shape(outputs.next()?)),
            false => x[i].zeros_like(),
        });
    }
    Some(grads)
}

/// The chain that gives the gradients of the wanted inputs, of those that have one: the last input is the gradient of the output.
fn reversed(chain: &Chain, output: usize, wanted: &[usize]) -> Option<(Chain, Vec<bool>)> {
    let mut back = Back {
        links: chain.links.clone(),
        of_links: vec![None; chain.links.len()],
        of_inputs: vec![None; chain.inputs],
    };
    back.of_links[output] = Some(Term::Input(chain.inputs));
    for i in (0..chain.links.len()).rev() {
        let Some(g) = back.of_links[i] else { continue };
        back.link(chain.links[i], Term::Link(i), g)?;
    }
    let of_wanted: Vec<Option<Term>> = wanted.iter().map(|&i| back.of_inputs[i]).collect();
    let mut outputs = Vec::new();
    for term in of_wanted.iter().flatten() {
        let link = match *term {
            // Each output is a link of its own; −(−g) is g, in every bit.
            Term::Link(l) if !outputs.contains(&l) => l,
            other => {
                let negated = back.push(Link::Unary(UnaryOp::Neg, other));
                let Term::Link(l) = back.push(Link::Unary(UnaryOp::Neg, negated)) else { return None };
                l
            }
        };
        outputs.push(link);
    }
    let all = Chain { inputs: chain.inputs + 1, links: back.links, outputs };
    Some((pruned(all), of_wanted.iter().map(|t| t.is_some()).collect()))
}

/// Links, forward and backward, and the gradients that are known so far.
struct Back {
    links: Vec<Link>,
    of_links: Vec<Option<Term>>,
    of_inputs: Vec<Option<Term>>,
}

impl Back {
    fn push(&mut self, link: Link) -> Term {
        self.links.push(link);
        Term::Link(self.links.len() - 1)
    }
    fn binary(&mut self, op: BinaryOp, a: Term, b: Term) -> Term {
        self.push(Link::Binary(op, a, b))
    }

    /// Adds to the gradient of a term. (What a number's would be is pruned.)
    fn add(&mut self, to: Term, g: Term) {
        let before = match to {
            Term::Link(i) => self.of_links[i],
            Term::Input(i) => self.of_inputs[i],
            Term::Number(_) => return,
        };
        let sum = before.map_or(g, |before| self.binary(BinaryOp::Add, before, g));
        match to {
            Term::Link(i) => self.of_links[i] = Some(sum),
            Term::Input(i) => self.of_inputs[i] = Some(sum),
            Term::Number(_) => {}
        }
    }

    /// Carries the gradient `g` of a link, which gave `y`, on to what it read.
    fn link(&mut self, link: Link, y: Term, g: Term) -> Option<()> {
        match link {
            Link::Unary(UnaryOp::Neg, a) => {
                let before = self.push(Link::Unary(UnaryOp::Neg, g));
                self.add(a, before);
            }
            Link::Unary(op, a) if op.saves() == Saves::INPUTS || op.saves() == Saves::OUTPUT => {
                let saved = if op.saves() == Saves::INPUTS { a } else { y };
                let before = self.push(Link::UnaryGrad(op, g, saved));
                self.add(a, before);
            }
            Link::Binary(BinaryOp::Add, a, b) => {
                self.add(a, g);
                self.add(b, g);
            }
            Link::Binary(BinaryOp::Sub, a, b) => {
                let negated = self.push(Link::Unary(UnaryOp::Neg, g));
                self.add(a, g);
                self.add(b, negated);
            }
            Link::Binary(BinaryOp::Mul, a, b) => {
                let (of_a, of_b) = (self.binary(BinaryOp::Mul, g, b), self.binary(BinaryOp::Mul, g, a));
                self.add(a, of_a);
                self.add(b, of_b);
            }
            Link::Binary(BinaryOp::Div, a, b) => {
                let of_a = self.binary(BinaryOp::Div, g, b);
                let product = self.binary(BinaryOp::Mul, of_a, y);
                let of_b = self.push(Link::Unary(UnaryOp::Neg, product));
                self.add(a, of_a);
                self.add(b, of_b);
            }
            _ => return None,
        }
        Some(())
    }
}

/// The chain without the links that no output needs.
fn pruned(chain: Chain) -> Chain {
    let mut needed = vec![false; chain.links.len()];
    chain.outputs.iter().for_each(|&o| needed[o] = true);
    for i in (0..chain.links.len()).rev() {
        let read = chain.links[i].terms().filter(|_| needed[i]).collect::<SmallVec<[Term; 2]>>();
        read.into_iter().for_each(|t| {
            if let Term::Link(l) = t {
                needed[l] = true
            }
        });
    }
    let mut place = vec![usize::MAX; chain.links.len()];
    let mut links = Vec::new();
    for (i, link) in chain.links.iter().enumerate().filter(|(i, _)| needed[*i]) {
        let moved = |t: Term| if let Term::Link(l) = t { Term::Link(place[l]) } else { t };
        links.push(match *link {
            Link::Unary(op, a) => Link::Unary(op, moved(a)),
            Link::UnaryGrad(op, a, b) => Link::UnaryGrad(op, moved(a), moved(b)),
            Link::Binary(op, a, b) => Link::Binary(op, moved(a), moved(b)),
        });
        place[i] = links.len() - 1;
    }
    Chain { inputs: chain.inputs, links, outputs: chain.outputs.iter().map(|&o| place[o]).collect() }
}
