//! How a recorded call is differentiated, and how its node keeps that.

use super::node::Grads;
use super::vjp::Vjp;
use crate::composite::CompositeRule;
use crate::functional::linear::Linear;
use crate::op::OpRule;
use crate::ops::{Binary, Reduce, Unary};
use std::any::Any;
use std::fmt::Debug;
use std::ops::Deref;

/// How a recorded call is differentiated.
pub trait Rule: Debug + Send + Sync + 'static {
    /// The op's name.
    fn name(&self) -> &'static str;
    /// The gradients of the inputs.
    fn vjp(&self, cx: &Vjp<'_>) -> Grads;
}

/// A call's rule: any in a box, and the commonest, which are a few bytes, in place, as a box costs an allocation.
#[derive(Debug)]
pub(crate) enum CallRule {
    Unary(OpRule<Unary>),
    Binary(OpRule<Binary>),
    Reduce(OpRule<Reduce>),
    Linear(CompositeRule<Linear>),
    Other(Box<dyn Rule>),
}

impl CallRule {
    /// Which one it is, is known when this is compiled.
    #[inline]
    pub(crate) fn of<R: Rule>(rule: R) -> CallRule {
        let any: &dyn Any = &rule;
        if let Some(&rule) = any.downcast_ref() {
            CallRule::Unary(rule)
        } else if let Some(&rule) = any.downcast_ref() {
            CallRule::Binary(rule)
        } else if let Some(&rule) = any.downcast_ref() {
            CallRule::Reduce(rule)
        } else if let Some(&rule) = any.downcast_ref() {
            CallRule::Linear(rule)
        } else {
            CallRule::Other(Box::new(rule))
        }
    }
}

impl Deref for CallRule {
    type Target = dyn Rule;
    #[inline]
    fn deref(&self) -> &dyn Rule {
        match self {
            CallRule::Unary(rule) => rule,
            CallRule::Binary(rule) => rule,
            CallRule::Reduce(rule) => rule,
            CallRule::Linear(rule) => rule,
            CallRule::Other(rule) => &**rule,
        }
    }
}
