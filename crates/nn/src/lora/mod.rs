//! Low-rank adapters (Hu et al., "LoRA", 2021): a frozen layer and a trained product of two thin matrices beside it.

mod adapter;
mod attention;
mod embedding;
mod linear;

pub use adapter::{LoraAdapter, LoraOptions};
pub use attention::{LoraAttention, LoraTargets};
pub use embedding::LoraEmbedding;
pub use linear::LoraLinear;
