//! Walking over a model's parts.

use super::Module;
use crate::{Param, Site, State};
use gradus_core::Tensor;

/// Sees a module's parts. A module shows its own parameters and states by the methods that take them, and a named part by
/// [`child`](Visitor::child), which goes into it (by `module.visit(self)`) if it wants to.
pub trait Visitor<'a> {
    /// The part called `name`.
    fn child(&mut self, name: &str, module: &'a dyn Module);
    /// The module is, or flattens into itself, this parameter.
    fn parameter(&mut self, _parameter: &'a Param) {}
    /// The module is, or flattens into itself, this state.
    fn state(&mut self, _state: &'a State) {}
    /// The module's note of where it stands.
    fn site(&mut self, _site: &'a Site) {}
}

/// As [`Visitor`], for changing the parts.
pub trait VisitorMut<'a> {
    /// The part called `name`.
    fn child(&mut self, name: &str, module: &'a mut dyn Module);
    /// The module is, or flattens into itself, this parameter.
    fn parameter(&mut self, _parameter: &'a mut Param) {}
    /// The module is, or flattens into itself, this state.
    fn state(&mut self, _state: &'a mut State) {}
    /// The module's note of where it stands.
    fn site(&mut self, _site: &'a mut Site) {}
}

/// A dotted name under construction, for visitors.
#[derive(Clone, Debug)]
pub struct ParameterPath(String);

impl Default for ParameterPath {
    fn default() -> ParameterPath {
        ParameterPath(String::with_capacity(64)) // most names fit: it seldom grows
    }
}

impl ParameterPath {
    /// Goes into the part called `name`; gives what [`leave`](Self::leave) wants.
    #[must_use = "`leave` wants it"]
    pub fn enter(&mut self, name: &str) -> usize {
        let before = self.0.len();
        if before > 0 {
            self.0.push('.');
        }
        self.0.push_str(name);
        before
    }
    /// Leaves the part that `enter` went into.
    pub fn leave(&mut self, before: usize) {
        self.0.truncate(before);
    }
    /// The name so far.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A leaf of the tree of parts.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A trainable value, under its name.
    Parameter(&'a Param),
    /// A kept value, under its name.
    State(&'a State),
    /// A layer's note of its place, under the layer's path.
    Site(&'a Site),
}

impl Entry<'_> {
    /// The value, untracked, of a parameter or state.
    pub fn value(&self) -> Option<Tensor> {
        match self {
            Entry::Parameter(p) => Some(p.detach()),
            Entry::State(s) => Some(s.value()),
            Entry::Site(_) => None,
        }
    }
}

/// A leaf of the tree of parts, to be changed.
#[derive(Debug)]
pub enum EntryMut<'a> {
    /// A trainable value, under its name.
    Parameter(&'a mut Param),
    /// A kept value, under its name.
    State(&'a mut State),
    /// A layer's note of its place, under the layer's path.
    Site(&'a mut Site),
}

impl EntryMut<'_> {
    /// The value, untracked, of a parameter or state.
    pub fn value(&self) -> Option<Tensor> {
        match self {
            EntryMut::Parameter(p) => Some(p.detach()),
            EntryMut::State(s) => Some(s.value()),
            EntryMut::Site(_) => None,
        }
    }
}

/// Goes everywhere, and calls a function with each leaf.
pub(super) struct Each<'f, 'a> {
    path: ParameterPath,
    f: &'f mut dyn FnMut(&str, Entry<'a>),
}

impl<'f, 'a> Each<'f, 'a> {
    pub(super) fn new(f: &'f mut dyn FnMut(&str, Entry<'a>)) -> Self {
        Each { path: ParameterPath::default(), f }
    }
}

impl<'a> Visitor<'a> for Each<'_, 'a> {
    fn child(&mut self, name: &str, module: &'a dyn Module) {
        let before = self.path.enter(name);
        module.visit(self);
        self.path.leave(before);
    }
    fn parameter(&mut self, parameter: &'a Param) {
        (self.f)(self.path.as_str(), Entry::Parameter(parameter));
    }
    fn state(&mut self, state: &'a State) {
        (self.f)(self.path.as_str(), Entry::State(state));
    }
    fn site(&mut self, site: &'a Site) {
        (self.f)(self.path.as_str(), Entry::Site(site));
    }
}

/// As [`Each`], for changing the leaves.
pub(super) struct EachMut<'f, 'a> {
    path: ParameterPath,
    f: &'f mut dyn FnMut(&str, EntryMut<'a>),
}

impl<'f, 'a> EachMut<'f, 'a> {
    pub(super) fn new(f: &'f mut dyn FnMut(&str, EntryMut<'a>)) -> Self {
        EachMut { path: ParameterPath::default(), f }
    }
}

impl<'a> VisitorMut<'a> for EachMut<'_, 'a> {
    fn child(&mut self, name: &str, module: &'a mut dyn Module) {
        let before = self.path.enter(name);
        module.visit_mut(self);
        self.path.leave(before);
    }
    fn parameter(&mut self, parameter: &'a mut Param) {
        (self.f)(self.path.as_str(), EntryMut::Parameter(parameter));
    }
    fn state(&mut self, state: &'a mut State) {
        (self.f)(self.path.as_str(), EntryMut::State(state));
    }
    fn site(&mut self, site: &'a mut Site) {
        (self.f)(self.path.as_str(), EntryMut::Site(site));
    }
}
