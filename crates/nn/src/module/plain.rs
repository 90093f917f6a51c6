//! Plain data as modules without parts, so that a layer's configuration stands beside its parameters unmarked.

use super::{Module, Visitor, VisitorMut};
use gradus_core::functional::convolution::ConvOptions;
use gradus_core::functional::loss::Reduction;
use gradus_core::functional::pooling::PoolOptions;
use gradus_core::functional::window::PerDim;
use gradus_core::{DType, Device, Key, Shape};
use std::marker::PhantomData;

macro_rules! plain {
    ($($t:ty),* $(,)?) => {$(
        impl Module for $t {
            fn visit<'a>(&'a self, _: &mut dyn Visitor<'a>) {}
            fn visit_mut<'a>(&'a mut self, _: &mut dyn VisitorMut<'a>) {}
        }
    )*};
}
plain! {
    (), bool, char, String, &'static str,
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64,
    DType, Device, gradus_core::device::Place, Key, Shape, Reduction, PerDim, ConvOptions, PoolOptions,
}

impl<T: Send + Sync> Module for PhantomData<T> {
    fn visit<'a>(&'a self, _: &mut dyn Visitor<'a>) {}
    fn visit_mut<'a>(&'a mut self, _: &mut dyn VisitorMut<'a>) {}
}
