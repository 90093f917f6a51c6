//! Pools of sliding windows: the largest, the mean, or a power mean of each; a row each.

use crate::conv::by;
use crate::layer::layer;
use crate::{Cx, Module, Site};
use gradus_core::error::or_raise;
use gradus_core::functional::pooling::PoolOptions;
use gradus_core::functional::window::PerDim;
use gradus_core::{Error, Result, Tensor};

/// What the pools share: how their windows lie.
macro_rules! window_options {
    ($t:ident) => {
        /// Windows of `kernel` places, side by side.
        pub fn new(kernel: impl Into<PerDim>) -> $t {
            PoolOptions::new(kernel).into()
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
        /// With a last window that reaches over the end, where places are left over.
        pub fn ceil_mode(mut self, ceil: bool) -> $t {
            self.options = self.options.ceil_mode(ceil);
            self
        }
    };
}

macro_rules! max_pools {
    ($($t:ident, $rank:literal, $shape:literal, $try_pool:ident, $try_pool_at:ident;)*) => {$(
        #[doc = concat!("The largest of each window of `", $shape, "` (or without the batch). In PyTorch: `torch.nn.", stringify!($t), "`.")]
        ///
        /// A length L becomes ⌊(L + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1.
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, Layer, ", stringify!($t), "};")]
        #[doc = concat!("let x = Tensor::zeros(&[[2, 3].to_vec(), vec![8; ", stringify!($rank), "]].concat(), gradus_cpu::device());")]
        #[doc = concat!("let y = ", stringify!($t), "::new(2).call(&x, &Cx::eval());")]
        #[doc = concat!("assert_eq!(y.dims()[2..], [4; ", stringify!($rank), "]);")]
        /// ```
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            /// Kernel, stride, padding, dilation, rounding.
            pub options: PoolOptions,
            site: Site,
        }
        impl $t {
            window_options!($t);
            /// With this distance of neighbouring places of a window.
            pub fn dilation(mut self, dilation: impl Into<PerDim>) -> $t {
                self.options = self.options.dilation(dilation);
                self
            }
            /// The largest of each window, and their places in the input (counted row-major over the spatial dimensions; `i64`), as an
            /// unpooling layer wants them. Panics at the caller's line if the input does not fit. In PyTorch: `return_indices=True`.
            #[track_caller]
            pub fn with_indices(&self, x: &Tensor, cx: &Cx) -> (Tensor, Tensor) {
                let _scope = cx.enter(self);
                or_raise(x.$try_pool_at(&self.options))
            }
            fn described(&self) -> String {
                described(&self.options, $rank)
            }
        }
        impl From<PoolOptions> for $t {
            fn from(options: PoolOptions) -> $t {
                $t { options, site: Site::default() }
            }
        }
        layer!($t, |self, x, _cx| x.$try_pool(&self.options));
    )*};
}
max_pools! {
    MaxPool1d, 1, "[batch, channels, length]", try_max_pool1d, try_max_pool1d_with_indices;
    MaxPool2d, 2, "[batch, channels, height, width]", try_max_pool2d, try_max_pool2d_with_indices;
    MaxPool3d, 3, "[batch, channels, depth, height, width]", try_max_pool3d, try_max_pool3d_with_indices;
}

macro_rules! avg_pools {
    ($($t:ident, $rank:literal, $shape:literal, $try_pool:ident;)*) => {$(
        #[doc = concat!("The mean of each window of `", $shape, "` (or without the batch). In PyTorch: `torch.nn.", stringify!($t), "`.")]
        ///
        /// A length L becomes ⌊(L + 2·padding − kernel)/stride⌋ + 1.
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, Layer, ", stringify!($t), "};")]
        #[doc = concat!("let x = Tensor::ones(&[[2, 3].to_vec(), vec![8; ", stringify!($rank), "]].concat(), gradus_cpu::device());")]
        #[doc = concat!("let y = ", stringify!($t), "::new(2).call(&x, &Cx::eval());")]
        #[doc = concat!("assert_eq!(y.dims()[2..], [4; ", stringify!($rank), "]);")]
        /// ```
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            /// Kernel, stride, padding, rounding, and whether padding counts.
            pub options: PoolOptions,
            site: Site,
        }
        impl $t {
            window_options!($t);
            /// Whether zeros of the padding count as places of a mean.
            pub fn count_include_pad(mut self, count: bool) -> $t {
                self.options = self.options.count_include_pad(count);
                self
            }
            /// With sums divided by this number, not by their places. In PyTorch: `divisor_override`.
            pub fn divisor(mut self, divisor: i64) -> $t {
                self.options = self.options.divisor(divisor);
                self
            }
            fn described(&self) -> String {
                described(&self.options, $rank)
            }
        }
        impl From<PoolOptions> for $t {
            fn from(options: PoolOptions) -> $t {
                $t { options, site: Site::default() }
            }
        }
        layer!($t, |self, x, _cx| x.$try_pool(&self.options));
    )*};
}
avg_pools! {
    AvgPool1d, 1, "[batch, channels, length]", try_avg_pool1d;
    AvgPool2d, 2, "[batch, channels, height, width]", try_avg_pool2d;
    AvgPool3d, 3, "[batch, channels, depth, height, width]", try_avg_pool3d;
}

macro_rules! power_pools {
    ($($t:ident, $rank:literal, $shape:literal, $try_pool:ident;)*) => {$(
        #[doc = concat!("The power sum (Σ xᵖ)^(1/p) of each window of `", $shape, "` (or without the batch). In PyTorch: `torch.nn.", stringify!($t), "`.")]
        ///
        /// Without padding. For odd p a negative sum counts as 0 would; a fractional p is for inputs of at least 0.
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, Layer, ", stringify!($t), "};")]
        #[doc = concat!("let x = Tensor::ones(&[[2, 3].to_vec(), vec![8; ", stringify!($rank), "]].concat(), gradus_cpu::device());")]
        #[doc = concat!("let y = ", stringify!($t), "::new(2.0, 2).call(&x, &Cx::eval());")]
        #[doc = concat!("assert_eq!(y.dims()[2..], [4; ", stringify!($rank), "]);")]
        /// ```
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            /// The power, not 0.
            pub p: f64,
            /// Kernel, stride and rounding.
            pub options: PoolOptions,
            site: Site,
        }
        impl $t {
            /// With this power, windows of `kernel` places side by side.
            pub fn new(p: f64, kernel: impl Into<PerDim>) -> $t {
                $t { p, options: PoolOptions::new(kernel), site: Site::default() }
            }
            /// With this stride.
            pub fn stride(mut self, stride: impl Into<PerDim>) -> $t {
                self.options = self.options.stride(stride);
                self
            }
            /// With a last window that reaches over the end, where places are left over.
            pub fn ceil_mode(mut self, ceil: bool) -> $t {
                self.options = self.options.ceil_mode(ceil);
                self
            }
            fn described(&self) -> String {
                format!("p = {}, {}", self.p, described(&self.options, $rank))
            }
            #[track_caller]
            fn run(&self, x: &Tensor) -> Result<Tensor> {
                if self.p == 0.0 || !self.p.is_finite() {
                    return Err(Error::misuse(format!("lp_pool: p must be a number other than 0; got {}", self.p)));
                }
                let places: usize = self.options.kernel.lens("the kernel", $rank, 1)?.iter().product();
                let mean = x.try_powf(self.p)?.$try_pool(&self.options)?;
                (mean.try_sign()?.try_mul(&mean.try_abs()?.try_relu()?)? * places as f64).try_powf(1.0 / self.p)
            }
        }
        layer!($t, |self, x, _cx| self.run(x));
    )*};
}
power_pools! {
    LpPool1d, 1, "[batch, channels, length]", try_avg_pool1d;
    LpPool2d, 2, "[batch, channels, height, width]", try_avg_pool2d;
    LpPool3d, 3, "[batch, channels, depth, height, width]", try_avg_pool3d;
}

/// `2×2, stride 1`.
fn described(options: &PoolOptions, rank: usize) -> String {
    let lens =
        |given: PerDim, unused| given.lens("", rank, unused).map_or_else(|_| "?".into(), |lens| by(&lens[..rank]));
    let mut out = lens(options.kernel, 1);
    if let Some(stride) = options.stride.filter(|&s| lens(s, 1) != out) {
        out += &format!(", stride {}", lens(stride, 1));
    }
    if options.padding != 0.into() {
        out += &format!(", padding {}", lens(options.padding, 0));
    }
    if options.dilation != 1.into() {
        out += &format!(", dilation {}", lens(options.dilation, 1));
    }
    out
}
