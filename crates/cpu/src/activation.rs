//! Activations with their slopes, which share most of the work: one place for the elementwise ops, their gradients, and what is
//! done to a product's result. Who needs one of the two pays for no other, as these are inlined.

use crate::math::Float;

pub(crate) trait Activation: Float {
    /// x·sigmoid(x) and its slope.
    fn silu<const FMA: bool>(self) -> (Self, Self);
    /// x·Φ(x) and its slope.
    fn gelu<const FMA: bool>(self) -> (Self, Self);
    /// The approximation of [`gelu`](Activation::gelu) by tanh, and its slope.
    fn gelu_tanh<const FMA: bool>(self) -> (Self, Self);
}

macro_rules! activation {
    ($t:ty) => {
        impl Activation for $t {
            #[inline(always)]
            fn silu<const FMA: bool>(self) -> (Self, Self) {
                let s = Float::sigmoid::<FMA>(self); // of −∞: 0·−∞, NaN, as in PyTorch
                (self * s, s * self.madd::<FMA>(1.0 - s, 1.0))
            }
            #[inline(always)]
            fn gelu<const FMA: bool>(self) -> (Self, Self) {
                const HEIGHT: $t = 0.398_942_280_401_432_7; // 1/√(2π)
                let (below, density) = Float::normal::<FMA>(self);
                (self * below, (self * density).madd::<FMA>(HEIGHT, below))
            }
            #[inline(always)]
            fn gelu_tanh<const FMA: bool>(self) -> (Self, Self) {
                const BY: $t = 1.595_769_121_605_730_8; // 2·√(2/π)
                let (s, square) = (Float::gelu_share::<FMA>(self), self * self);
                let inner = square.madd::<FMA>(3.0 * 0.044_715 * BY, BY);
                (self * s, (self * (s * (1.0 - s))).madd::<FMA>(inner, s))
            }
        }
    };
}
activation!(f32);
activation!(f64);
