//! The core of Gradus: tensors, automatic differentiation of any order, and the trait that devices implement.
//!
//! *A tensor is a value and where it came from. A device is a set of kernels. Everything else is ordinary Rust on top.*
//!
//! Users depend on the `gradus` crate, which brings a device with it; this crate names none. Where to look:
//!
//! | for | see |
//! |---|---|
//! | the tensor | [`Tensor`], [`Layout`], [`DType`], [`Device`] |
//! | the one doorway of all ops | [`op`] |
//! | each op | [`ops`], a file a family |
//! | functions defined by ops, with fused kernels | [`composite`], [`functional`] |
//! | factorizations, solutions, determinants | [`linalg`] |
//! | gradients | [`autodiff`] |
//! | mixed precision | [`precision`](mod@precision) |
//! | what a device must do | [`backend`] |
//! | every op with sample cases, for tests and docs | [`catalog`] |

pub mod autodiff;
pub mod backend;
pub mod capture;
pub mod catalog;
pub mod composite;
pub mod device;
pub mod dtype;
pub mod error;
pub mod functional;
pub mod layout;
pub mod linalg;
pub mod op;
pub mod ops;
pub mod precision;
pub mod rng;
pub mod scalar;
pub mod scope;
pub mod shape;
pub mod tensor;

pub use autodiff::{Backward, checkpoint, enable_grad, grad, no_grad};
pub use backend::{Backend, Buffer, Storage, View};
pub use composite::{Composite, by_definition};
pub use device::{Device, Place};
pub use dtype::{DType, Element};
pub use error::{Error, ErrorKind, Result};
pub use layout::Layout;
pub use op::{Meta, Op};
pub use precision::{Autocast, Precision, allows_tf32, precision, with_precision};
pub use rng::Key;
pub use scalar::{Scalar, Slot};
pub use shape::{IntoShape, Shape};
pub use tensor::{SliceSpec, Tensor};
