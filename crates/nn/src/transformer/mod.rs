//! The transformer of Vaswani et al., "Attention is all you need" (2017), with PyTorch's names for its parameters.

mod decoder;
mod encoder;
mod feed_forward;
mod options;
mod seq2seq;

pub use decoder::{TransformerDecoder, TransformerDecoderLayer};
pub use encoder::{TransformerEncoder, TransformerEncoderLayer};
pub use options::{FeedForwardActivation, TransformerOptions};
pub use seq2seq::Transformer;
