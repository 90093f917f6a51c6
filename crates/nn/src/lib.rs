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
mod bilinear;
mod conv;
mod cx;
mod dropout;
mod embedding;
mod embedding_bag;
mod feed_forward;
pub mod init;
mod instance_norm;
mod layer;
mod linear;
mod local_response_norm;
mod lora;
pub mod loss;
mod module;
mod norm;
mod padding;
mod param;
mod parametrizations;
mod patches;
mod pooling;
mod recurrent;
mod regularization;
mod resampling;
mod sequential;
mod shape;
mod similarity;
mod site;
mod state;
mod table;
mod transformer;

pub use activation::*;
pub use attention::*;
pub use audit::{GradientFlow, audit_gradients};
pub use batch_norm::{BatchNorm1d, BatchNorm2d, BatchNorm3d, Running};
pub use bilinear::Bilinear;
pub use conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};
pub use cx::{Call, Cx, Mode};
pub use dropout::*;
pub use embedding::Embedding;
pub use embedding_bag::{BagMode, EmbeddingBag};
pub use feed_forward::GatedFeedForward;
pub use gradus_macros::Module;
pub use init::Init;
pub use instance_norm::{InstanceNorm1d, InstanceNorm2d, InstanceNorm3d};
pub use layer::Layer;
pub use linear::Linear;
pub use local_response_norm::LocalResponseNorm;
pub use lora::*;
pub use module::{Entry, EntryMut, Module, ParameterPath, Unmatched, Visitor, VisitorMut};
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
pub use padding::*;
pub use param::Param;
pub use parametrizations::*;
pub use patches::{Fold, Unfold};
pub use pooling::*;
pub use recurrent::*;
pub use regularization::{DropBlock, DropPath, GaussianNoise, gradient_penalty};
pub use resampling::{ChannelShuffle, PixelShuffle, PixelUnshuffle, Upsample};
pub use sequential::{AnyLayer, Sequential};
pub use shape::{Flatten, Unflatten};
pub use similarity::{CosineSimilarity, PairwiseDistance};
pub use site::Site;
pub use state::State;
pub use table::{Row, Table};
pub use transformer::*;

/// What most programs need of this crate. ([`loss::L1`] stays behind its module: `gradus-optim` has a penalty of that name.)
pub mod prelude {
    pub use crate::activation::*;
    pub use crate::attention::*;
    pub use crate::dropout::*;
    pub use crate::init::{Fan, Initializer, Nonlinearity};
    pub use crate::lora::*;
    pub use crate::loss::{
        Bce, BceWithLogits, BinaryFocal, CosineEmbedding, CrossEntropy, Ctc, Dice, Focal, GaussianNll, HingeEmbedding,
        Huber, InfoNce, KlDiv, LinearCrossEntropy, Loss, MarginRanking, Mse, MultiLabelMargin, MultiLabelSoftMargin,
        MultiMargin, Nll, PairLoss, PoissonNll, Reduction, SmoothL1, SoftMargin, TripletMargin,
    };
    pub use crate::padding::*;
    pub use crate::parametrizations::*;
    pub use crate::pooling::*;
    pub use crate::recurrent::*;
    pub use crate::transformer::*;
    pub use crate::{
        BagMode, BatchNorm1d, BatchNorm2d, BatchNorm3d, Bilinear, ChannelShuffle, Conv1d, Conv2d, Conv3d,
        ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, CosineSimilarity, Cx, Embedding, EmbeddingBag, Flatten,
        Fold, GatedFeedForward, GroupNorm, Init, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, Layer, LayerNorm,
        Linear, LocalResponseNorm, Mode, Module, PairwiseDistance, Param, PixelShuffle, PixelUnshuffle, RmsNorm,
        Sequential, Site, State, Table, Unflatten, Unfold, Upsample,
    };
}
