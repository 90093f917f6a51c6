//! Layers, losses and initializers of Gradus.
//!
//! | for | see |
//! |---|---|
//! | what a model is: names, parameters, states | [`Module`], [`Param`], [`State`] |

// The derive names this crate from outside; inside it, this is the same name.
extern crate self as gradus_nn;

mod module;
mod param;
mod site;
mod state;

pub use module::{Entry, EntryMut, Module, ParameterPath, Visitor, VisitorMut};
pub use param::Param;
pub use site::Site;
pub use state::State;
