//! Layers, losses and initializers of Gradus.
//!
//! | for | see |
//! |---|---|
//! | what a model is: names, parameters, states | [`Module`], [`Param`], [`State`] |
//! | writing a layer | [`Layer`], [`Cx`], [`Site`] |
//! | where parameters start | [`Init`], [`init`] |
//! | losses | [`loss`] |
//! | a model as a table | [`Table`] |

// The derive names this crate from outside; inside it, this is the same name.
extern crate self as gradus_nn;

mod activation;
mod attention;
mod audit;
mod batch_norm;
mod conv;
mod cx;
mod dropout;
mod embedding;
pub mod init;
mod instance_norm;
mod layer;
mod linear;
pub mod loss;
mod module;
mod norm;
mod padding;
mod param;
mod pooling;
<<<<<<< HEAD
mod recurrent;
=======
mod regularization;
>>>>>>> opt
mod sequential;
mod shape;
mod site;
mod state;
mod table;
mod transformer;

pub use activation::*;
<<<<<<< HEAD
pub use attention::*;
=======
pub use attention::MultiheadAttention;
pub use audit::{GradientFlow, audit_gradients};
>>>>>>> opt
pub use batch_norm::{BatchNorm1d, BatchNorm2d, BatchNorm3d, Running};
pub use conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};
pub use cx::{Call, Cx, Mode};
pub use dropout::{ChannelDropout, Dropout};
pub use embedding::Embedding;
pub use gradus_macros::Module;
pub use init::Init;
pub use instance_norm::{InstanceNorm1d, InstanceNorm2d, InstanceNorm3d};
pub use layer::Layer;
pub use linear::Linear;
pub use module::{Entry, EntryMut, Module, ParameterPath, Visitor, VisitorMut};
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
pub use padding::*;
pub use param::Param;
pub use pooling::*;
<<<<<<< HEAD
pub use recurrent::*;
=======
pub use regularization::{DropBlock, DropPath, GaussianNoise, gradient_penalty};
>>>>>>> opt
pub use sequential::{AnyLayer, Sequential};
pub use shape::{Flatten, Unflatten};
pub use site::Site;
pub use state::State;
pub use table::{Row, Table};
pub use transformer::*;

/// What most programs need of this crate. ([`loss::L1`] stays behind its module: `gradus-optim` has a penalty of that name.)
pub mod prelude {
    pub use crate::activation::*;
    pub use crate::init::{Fan, Initializer, Nonlinearity};
    pub use crate::loss::{BceWithLogits, CrossEntropy, Huber, Loss, Mse, Nll, Reduction, SmoothL1};
    pub use crate::pooling::*;
    pub use crate::{
        BatchNorm1d, BatchNorm2d, BatchNorm3d, ChannelDropout, Conv1d, Conv2d, Conv3d, ConvTranspose1d,
        ConvTranspose2d, ConvTranspose3d, Cx, Dropout, Embedding, Flatten, GroupNorm, Init, Layer, LayerNorm, Linear,
        Mode, Module, MultiheadAttention, Param, RmsNorm, Sequential, Site, State, Table, Unflatten,
    };
}
