//! Where a layer stands in its model.

use crate::module::{Module, Visitor, VisitorMut};
use std::fmt;
use std::sync::Arc;

/// A layer's place in its model, `encoder.layers.3.norm`: a field of each layer, filled by [`Module::assign_paths`].
///
/// Errors and random streams are told apart by it. A layer that was never given a path goes by its type's name, and its
/// random numbers by the order of calls.
#[derive(Clone, Default)]
pub struct Site {
    path: Option<Arc<str>>,
}

impl Site {
    /// The path from the model's root, once assigned. The root's own is empty.
    pub fn path(&self) -> Option<&Arc<str>> {
        self.path.as_ref()
    }
    /// The name of the layer's stream of random numbers: its path, or, while it has none, one shared by all such layers.
    pub fn stream(&self) -> &str {
        self.path.as_deref().unwrap_or_default()
    }
    pub(crate) fn assign(&mut self, path: &str) {
        if self.path.as_deref() != Some(path) {
            self.path = Some(path.into());
        }
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Site({})", self.path.as_deref().unwrap_or("unnamed"))
    }
}

impl Module for Site {
    fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>) {
        v.site(self);
    }
    fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>) {
        v.site(self);
    }
}
