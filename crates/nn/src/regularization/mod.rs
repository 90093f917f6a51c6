//! Regularization inside a model: parts of the computation dropped or made noisy in training, and gradients kept near a length.
//!
//! What acts on the weights or on their gradients (penalties, constraints, decay, gradient noise) is the optimizer's: see
//! `gradus-optim`. Dropout of elements and channels has a file of its own; label smoothing is [`CrossEntropy`](crate::loss)'s, mixing
//! of samples `gradus-data`'s.

mod drop_block;
mod drop_path;
mod gradient_penalty;
mod noise;

pub use drop_block::DropBlock;
pub use drop_path::DropPath;
pub use gradient_penalty::gradient_penalty;
pub use noise::GaussianNoise;
