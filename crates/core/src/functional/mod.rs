//! Functions defined by other ops: activations, norms, losses, attention, convolution. Each is a
//! [`Composite`](crate::Composite) where a fused kernel is worth having, else a plain function of tensors.

pub mod activation;
pub mod conv;
pub mod dropout;
pub mod interpolate;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod pool;
pub mod softmax;
pub mod statistics;
pub mod window;
