//! What is done to a convolution's results as soon as they are there, while they are in the cache: an activation.

use crate::math::Float;
use crate::simd::vectorized;
use gradus_core::ops::UnaryOp;

#[derive(Clone, Copy)]
pub(super) enum Epilogue<T> {
    Nothing,
    /// Also by registers on their way ([`from_pixels`](super::pixels::from_pixels)).
    Relu,
    /// A loop over some of the results.
    Each(fn(&mut [T])),
}

impl<T: Float> Epilogue<T> {
    /// That of an activation whose output tells its slope; others go by definition.
    pub(super) fn of(f: UnaryOp) -> Option<Epilogue<T>> {
        match f {
            UnaryOp::Relu => Some(Epilogue::Relu),
            UnaryOp::Tanh => Some(Epilogue::Each(tanh::<T>)),
            UnaryOp::Sigmoid => Some(Epilogue::Each(sigmoid::<T>)),
            _ => None,
        }
    }
    /// Of results that did not come from pixels.
    pub(super) fn finish(self, y: &mut [T]) {
        match self {
            Epilogue::Nothing => {}
            Epilogue::Relu => relu(y),
            Epilogue::Each(f) => f(y),
        }
    }
}

vectorized! {
    fn relu<T: Float>(y: &mut [T]) {
        for y in y.iter_mut() { *y = if *y < T::ZERO { T::ZERO } else { *y }; } // NaN stays
    }
    fn tanh<T: Float>(y: &mut [T]) {
        for y in y.iter_mut() { *y = y.tanh::<FMA>(); }
    }
    fn sigmoid<T: Float>(y: &mut [T]) {
        for y in y.iter_mut() { *y = y.sigmoid::<FMA>(); }
    }
}
