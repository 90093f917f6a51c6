//! Pooling layers: a row each.

use crate::conv::by;
use crate::layer::layer;
use crate::{Module, Site};
use gradus_core::functional::pool::PoolOptions;
use gradus_core::functional::window::PerDim;

macro_rules! window_pools {
    ($($(#[$doc:meta])* $t:ident, $rank:literal, $try_pool:ident;)*) => {$(
        $(#[$doc])*
        #[doc = concat!("In PyTorch: `torch.nn.", stringify!($t), "`.")]
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            /// Kernel, stride, padding, dilation, rounding.
            pub options: PoolOptions,
            site: Site,
        }
        impl $t {
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

window_pools! {
    /// The largest of each window of `[batch, channels, length]`.
    MaxPool1d, 1, try_max_pool1d;
    /// The largest of each window of `[batch, channels, height, width]`.
    MaxPool2d, 2, try_max_pool2d;
    /// The largest of each window of `[batch, channels, depth, height, width]`.
    MaxPool3d, 3, try_max_pool3d;
    /// The mean of each window of `[batch, channels, length]`.
    AvgPool1d, 1, try_avg_pool1d;
    /// The mean of each window of `[batch, channels, height, width]`.
    AvgPool2d, 2, try_avg_pool2d;
    /// The mean of each window of `[batch, channels, depth, height, width]`.
    AvgPool3d, 3, try_avg_pool3d;
}

macro_rules! adaptive_pools {
    ($($(#[$doc:meta])* $t:ident, $rank:literal, |$x:ident, $output:ident| $pool:expr;)*) => {$(
        $(#[$doc])*
        #[doc = concat!("Window o of n covers ⌊o·L/n⌋ to ⌈(o+1)·L/n⌉. In PyTorch: `torch.nn.", stringify!($t), "`.")]
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            output: PerDim,
            site: Site,
        }
        impl $t {
            /// So many windows in each spatial dimension.
            pub fn new(output: impl Into<PerDim>) -> $t {
                $t { output: output.into(), site: Site::default() }
            }
            fn described(&self) -> String {
                self.output.lens("output", $rank, 1).map_or_else(|_| String::new(), |lens| format!("to {}", by(&lens[..$rank])))
            }
        }
        layer!($t, |self, $x, _cx| {
            let $output = self.output;
            $pool
        });
    )*};
}

adaptive_pools! {
    /// Means of so many windows of `[batch, channels, length]` as are wanted.
    AdaptiveAvgPool1d, 1, |x, n| x.try_adaptive_avg_pool1d(n);
    /// Means of so many windows of `[batch, channels, height, width]` as are wanted.
    AdaptiveAvgPool2d, 2, |x, n| x.try_adaptive_avg_pool2d(n);
    /// Means of so many windows of `[batch, channels, depth, height, width]` as are wanted.
    AdaptiveAvgPool3d, 3, |x, n| x.try_adaptive_avg_pool3d(n);
    /// The largest of so many windows of `[batch, channels, length]` as are wanted.
    AdaptiveMaxPool1d, 1, |x, n| x.try_adaptive_max_pool1d(n).map(|(y, _)| y);
    /// The largest of so many windows of `[batch, channels, height, width]` as are wanted.
    AdaptiveMaxPool2d, 2, |x, n| x.try_adaptive_max_pool2d(n).map(|(y, _)| y);
    /// The largest of so many windows of `[batch, channels, depth, height, width]` as are wanted.
    AdaptiveMaxPool3d, 3, |x, n| x.try_adaptive_max_pool3d(n).map(|(y, _)| y);
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
