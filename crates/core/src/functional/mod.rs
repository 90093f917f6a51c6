//! Functions defined by other ops: activations, norms, losses, attention, convolution. Each is a
//! [`Composite`](crate::Composite) where a fused kernel is worth having, else a plain function of tensors.

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod bilinear;
pub mod conv;
pub mod convolution;
pub mod distance;
pub mod dropout;
pub mod einsum;
pub mod elementwise;
pub mod embedding_bag;
pub mod fold;
pub mod global_norm;
pub mod grid_sample;
pub mod group_norm;
pub mod gru_sequence;
pub mod interpolate;
pub mod linear;
pub mod local_response_norm;
pub mod loss;
pub mod lstm;
pub mod lstm_sequence;
pub mod norm;
pub mod pool;
pub mod pooling;
pub mod rearrange;
pub mod rms_norm;
pub mod running_average;
pub mod shuffle;
pub mod softmax;
pub mod special;
pub mod statistics;
pub mod unpool;
pub mod update;
pub mod window;
