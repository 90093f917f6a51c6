//! Attention layers, and what they are made of.

mod cache;
mod grouped;
mod mask;
mod multihead;
mod rotary;

pub use cache::KvCache;
pub use grouped::GroupedQueryAttention;
pub use mask::AttentionMask;
pub use multihead::{MultiheadAttention, MultiheadOptions};
pub use rotary::RotaryEmbedding;
