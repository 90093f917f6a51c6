//! Functions defined by other ops: activations, norms, losses, attention, convolution. Each is a
//! [`Composite`](crate::Composite) where a fused kernel is worth having, else a plain function of tensors.

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod conv;
pub mod dropout;
pub mod einsum;
pub mod group_norm;
pub mod interpolate;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod pool;
pub mod rms_norm;
pub mod softmax;
pub mod statistics;
pub mod update;
pub mod window;
