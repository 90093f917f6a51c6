//! A bare tensor could be a parameter or not: the message says what to write.

use gradus_core::Tensor;
use gradus_nn::Module;

#[derive(Module)]
struct Affine {
    scale: Tensor,
    activation: fn(f32) -> f32,
}

fn main() {}
