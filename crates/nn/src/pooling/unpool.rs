//! Max pooling undone in part.

use crate::{Cx, Module, Site};
use gradus_core::Tensor;
use gradus_core::error::or_raise;
use gradus_core::functional::pooling::PoolOptions;
use gradus_core::functional::window::PerDim;

macro_rules! unpools {
    ($($t:ident, $pool:ident, $rank:literal, $shape:literal, $try_unpool:ident;)*) => {$(
        #[doc = concat!("Zeros, with each value of x `", $shape, "` (or without the batch) in the place that [`", stringify!($pool), "::with_indices`](crate::", stringify!($pool), "::with_indices) found it in. In PyTorch: `torch.nn.", stringify!($t), "`.")]
        ///
        /// A length L becomes (L − 1)·stride − 2·padding + kernel, unless another is asked for, less than a stride away.
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, ", stringify!($pool), ", ", stringify!($t), "};")]
        #[doc = concat!("let x = Tensor::ones(&[vec![2, 3], vec![4; ", stringify!($rank), "]].concat(), gradus_cpu::device());")]
        #[doc = concat!("let (y, at) = ", stringify!($pool), "::new(2).with_indices(&x, &Cx::eval());")]
        #[doc = concat!("assert_eq!(", stringify!($t), "::new(2).place(&y, &at, None, &Cx::eval()).dims(), x.dims());")]
        /// ```
        #[derive(Module, Clone, Debug)]
        pub struct $t {
            /// Kernel, stride and padding of the pool that is undone.
            pub options: PoolOptions,
            site: Site,
        }
        impl $t {
            /// For windows of `kernel` places, side by side.
            pub fn new(kernel: impl Into<PerDim>) -> $t {
                $t { options: PoolOptions::new(kernel), site: Site::default() }
            }
            /// With this stride.
            pub fn stride(mut self, stride: impl Into<PerDim>) -> $t {
                self.options = self.options.stride(stride);
                self
            }
            /// With so much padding on either side.
            pub fn padding(mut self, padding: impl Into<PerDim>) -> $t {
                self.options = self.options.padding(padding);
                self
            }
            /// The values in their places, perhaps with these spatial lengths. Panics at the caller's line if they do not fit.
            #[track_caller]
            pub fn place(&self, x: &Tensor, at: &Tensor, output: Option<PerDim>, cx: &Cx) -> Tensor {
                let _scope = cx.enter(self);
                let y = or_raise(x.$try_unpool(at, &self.options, output));
                cx.observe(self, &y);
                y
            }
        }
    )*};
}
unpools! {
    MaxUnpool1d, MaxPool1d, 1, "[batch, channels, length]", try_max_unpool1d;
    MaxUnpool2d, MaxPool2d, 2, "[batch, channels, height, width]", try_max_unpool2d;
    MaxUnpool3d, MaxPool3d, 3, "[batch, channels, depth, height, width]", try_max_unpool3d;
}
