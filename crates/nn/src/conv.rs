//! Convolutions and their transposes, over one to three spatial dimensions.

use crate::init::{Init, Initializer, fans};
use crate::layer::layer;
use crate::linear::{bias_like, uniform_bias};
use crate::{Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::functional::convolution::{ConvOptions, Padding};
use gradus_core::functional::window::PerDim;
use gradus_core::ops::PadMode;
use gradus_core::{Error, Result, Tensor};

/// The options that change no parameter, as builder methods.
macro_rules! convolution_options {
    ($t:ident) => {
        /// With this stride: the distance of neighbouring windows.
        pub fn stride(mut self, stride: impl Into<PerDim>) -> $t {
            self.options = self.options.stride(stride);
            self
        }
        /// With so much padding on either side of each spatial dimension.
        pub fn padding(mut self, padding: impl Into<PerDim>) -> $t {
            self.options = self.options.padding(padding);
            self
        }
        /// With this dilation: the distance of neighbouring places of a window.
        pub fn dilation(mut self, dilation: impl Into<PerDim>) -> $t {
            self.options = self.options.dilation(dilation);
            self
        }
        /// Whether it adds a bias.
        pub fn bias(mut self, bias: bool) -> $t {
            self.bias = self.bias.filter(|_| bias);
            self
        }
        /// Stride, padding, dilation and groups.
        pub fn options(&self) -> &ConvOptions {
            &self.options
        }
    };
}

macro_rules! convolutions {
    ($($t:ident, $try_conv:ident, $rank:literal, $shape:literal;)*) => {$(
        #[doc = concat!("The convolution of x `[batch, inputs, ", $shape, "]` (or without the batch) with `outputs` kernels. In PyTorch: `torch.nn.", stringify!($t), "`.")]
        ///
        /// The weight `[outputs, inputs/groups, kernel..]` and the bias `[outputs]` start uniform on ±1/√(inputs/groups · places of the
        /// kernel). A length L becomes ⌊(L + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1.
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, Init, Layer, ", stringify!($t), "};")]
        /// let device = gradus_cpu::device();
        #[doc = concat!("let conv = ", stringify!($t), "::new(3, 5, 3, &mut Init::new(device, 0)).padding(1);")]
        #[doc = concat!("let x = Tensor::ones(&[vec![2, 3], vec![6; ", stringify!($rank), "]].concat(), device);")]
        #[doc = concat!("assert_eq!(conv.call(&x, &Cx::eval()).dims(), &[vec![2, 5], vec![6; ", stringify!($rank), "]].concat()[..]);")]
        /// ```
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            /// The kernels, `[outputs, inputs/groups, kernel..]`.
            pub weight: Param,
            /// Added to each output channel, `[outputs]`.
            pub bias: Option<Param>,
            options: ConvOptions,
            #[module(skip)]
            padding_mode: Option<PadMode>,
            site: Site,
        }

        impl $t {
            /// Kernels of `kernel` places (one number for all dimensions, or one for each). Panics at the caller's line on misuse.
            #[track_caller]
            pub fn new(inputs: usize, outputs: usize, kernel: impl Into<PerDim>, init: &mut Init) -> $t {
                or_raise($t::try_new(inputs, outputs, kernel, 1, init))
            }
            /// As [`new`](Self::new), with channels in `groups` that see nothing of each other; `groups = inputs` is a depthwise
            /// convolution.
            #[track_caller]
            pub fn grouped(inputs: usize, outputs: usize, kernel: impl Into<PerDim>, groups: usize, init: &mut Init) -> $t {
                or_raise($t::try_new(inputs, outputs, kernel, groups, init))
            }
            /// As [`grouped`](Self::grouped), with misuse returned as an error.
            pub fn try_new(inputs: usize, outputs: usize, kernel: impl Into<PerDim>, groups: usize, init: &mut Init) -> Result<$t> {
                let shape = weight_shape(outputs, inputs, kernel.into(), groups, $rank)?;
                let key = init.next_key();
                let weight = Initializer::layer_default().try_draw(&shape[..], init.place(), key.fold("weight"))?;
                let bias = Some(bias_like(&weight, init, &key)?);
                let options = ConvOptions::default().groups(groups);
                Ok($t { weight: Param::try_new(weight)?, bias, options, padding_mode: None, site: Site::default() })
            }
            convolution_options!($t);
            /// With padding of this kind, in place of zeros. In PyTorch: `padding_mode`.
            pub fn padding_mode(mut self, mode: PadMode) -> $t {
                self.padding_mode = (mode != PadMode::Constant(0.0)).then_some(mode);
                self
            }
            /// With the padding that keeps the lengths (stride 1 only).
            pub fn same(mut self) -> $t {
                self.options = self.options.same();
                self
            }
            fn described(&self) -> String {
                let (out, inputs) = (self.weight.dim(0), self.weight.dim(1) * self.options.groups);
                described(inputs, out, &self.weight, &self.options, self.bias.is_some())
            }
            /// With another tensor in the weight's place.
            #[track_caller]
            pub(crate) fn convolve(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
                let Some(mode) = self.padding_mode else {
                    return x.$try_conv(weight, self.bias.as_deref(), &self.options);
                };
                let amounts = amounts(weight, &self.options, $rank)?;
                x.try_pad(&amounts, mode)?.$try_conv(weight, self.bias.as_deref(), &self.options.padding(0))
            }
        }

        layer!($t, |self, x, _cx| self.convolve(x, &self.weight));
    )*};
}
convolutions! {
    Conv1d, try_conv1d, 1, "length";
    Conv2d, try_conv2d, 2, "height, width";
    Conv3d, try_conv3d, 3, "depth, height, width";
}

macro_rules! transposed_convolutions {
    ($($t:ident, $try_conv:ident, $rank:literal, $shape:literal;)*) => {$(
        #[doc = concat!("The transposed convolution of x `[batch, inputs, ", $shape, "]` (or without the batch): the adjoint of a convolution, used to enlarge. In PyTorch: `torch.nn.", stringify!($t), "`.")]
        ///
        /// The weight `[inputs, outputs/groups, kernel..]` and the bias `[outputs]` start uniform on ±1/√(outputs/groups · places of
        /// the kernel). A length L becomes (L − 1)·stride − 2·padding + dilation·(kernel − 1) + output padding + 1.
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, Init, Layer, ", stringify!($t), "};")]
        /// let device = gradus_cpu::device();
        #[doc = concat!("let conv = ", stringify!($t), "::new(3, 5, 3, &mut Init::new(device, 0)).padding(1);")]
        #[doc = concat!("let x = Tensor::ones(&[vec![2, 3], vec![6; ", stringify!($rank), "]].concat(), device);")]
        #[doc = concat!("assert_eq!(conv.call(&x, &Cx::eval()).dims(), &[vec![2, 5], vec![6; ", stringify!($rank), "]].concat()[..]);")]
        /// ```
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            /// The kernels, `[inputs, outputs/groups, kernel..]`.
            pub weight: Param,
            /// Added to each output channel, `[outputs]`.
            pub bias: Option<Param>,
            options: ConvOptions,
            site: Site,
        }

        impl $t {
            /// Kernels of `kernel` places (one number for all dimensions, or one for each). Panics at the caller's line on misuse.
            #[track_caller]
            pub fn new(inputs: usize, outputs: usize, kernel: impl Into<PerDim>, init: &mut Init) -> $t {
                or_raise($t::try_new(inputs, outputs, kernel, 1, init))
            }
            /// As [`new`](Self::new), with channels in `groups` that see nothing of each other.
            #[track_caller]
            pub fn grouped(inputs: usize, outputs: usize, kernel: impl Into<PerDim>, groups: usize, init: &mut Init) -> $t {
                or_raise($t::try_new(inputs, outputs, kernel, groups, init))
            }
            /// As [`grouped`](Self::grouped), with misuse returned as an error.
            pub fn try_new(inputs: usize, outputs: usize, kernel: impl Into<PerDim>, groups: usize, init: &mut Init) -> Result<$t> {
                let shape = weight_shape(inputs, outputs, kernel.into(), groups, $rank)?;
                let key = init.next_key();
                let weight = Initializer::layer_default().try_draw(&shape[..], init.place(), key.fold("weight"))?;
                let bound = 1.0 / (fans(weight.shape())?.0.max(1) as f64).sqrt();
                let bias = Some(uniform_bias(outputs, bound, init, &key)?);
                Ok($t { weight: Param::try_new(weight)?, bias, options: ConvOptions::default().groups(groups), site: Site::default() })
            }
            convolution_options!($t);
            /// With so many places added at the end of each dimension of the output.
            pub fn output_padding(mut self, places: impl Into<PerDim>) -> $t {
                self.options = self.options.output_padding(places);
                self
            }
            fn described(&self) -> String {
                let (inputs, out) = (self.weight.dim(0), self.weight.dim(1) * self.options.groups);
                described(inputs, out, &self.weight, &self.options, self.bias.is_some())
            }
            /// With another tensor in the weight's place.
            #[track_caller]
            pub(crate) fn convolve(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
                x.$try_conv(weight, self.bias.as_deref(), &self.options)
            }
        }

        layer!($t, |self, x, _cx| self.convolve(x, &self.weight));
    )*};
}
transposed_convolutions! {
    ConvTranspose1d, try_conv_transpose1d, 1, "length";
    ConvTranspose2d, try_conv_transpose2d, 2, "height, width";
    ConvTranspose3d, try_conv_transpose3d, 3, "depth, height, width";
}

/// What the options put before and after each spatial dimension.
fn amounts(weight: &Tensor, options: &ConvOptions, rank: usize) -> Result<Vec<(isize, isize)>> {
    let dilation = options.dilation.lens("the dilation", rank, 1)?;
    let sides = |d: usize, p: [usize; 3]| match options.padding {
        Padding::Zeros(_) => (p[d] as isize, p[d] as isize),
        Padding::Same => {
            let total = (weight.dims()[2 + d] - 1).saturating_mul(dilation[d]);
            ((total / 2) as isize, (total - total / 2) as isize)
        }
    };
    let given = match options.padding {
        Padding::Zeros(p) => p.lens("the padding", rank, 0)?,
        Padding::Same => [0; 3],
    };
    Ok((0..rank).map(|d| sides(d, given)).collect())
}

/// `[first, second/groups, kernel..]`.
fn weight_shape(first: usize, second: usize, kernel: PerDim, groups: usize, rank: usize) -> Result<Vec<usize>> {
    let kernel = kernel.lens("the kernel", rank, 1)?;
    if groups == 0 || !first.is_multiple_of(groups) || !second.is_multiple_of(groups) {
        return Err(Error::misuse(format!(
            "a convolution's channels, {first} and {second}, do not fall into {groups} equal groups"
        )));
    }
    if kernel[..rank].contains(&0) {
        return Err(Error::misuse(format!(
            "a kernel has at least 1 place in each dimension, not {:?}",
            &kernel[..rank]
        )));
    }
    Ok([&[first, second / groups], &kernel[..rank]].concat())
}

/// `16 → 32, 3×3, stride 2, padding 1`.
fn described(inputs: usize, outputs: usize, weight: &Tensor, options: &ConvOptions, bias: bool) -> String {
    let rank = weight.rank() - 2;
    let mut out = format!("{inputs} → {outputs}, {}", by(&weight.dims()[2..]));
    out += &noted("stride", options.stride, rank, 1);
    out += &match options.padding {
        Padding::Zeros(p) => noted("padding", p, rank, 0),
        Padding::Same => ", same padding".into(),
    };
    out += &noted("dilation", options.dilation, rank, 1);
    out += &noted("output padding", options.output_padding, rank, 0);
    if options.groups != 1 {
        out += &format!(", {} groups", options.groups);
    }
    if !bias {
        out += ", no bias";
    }
    out
}

/// `, stride 2`, or nothing where it is as usual. (Lengths of another rank are reported by the first forward.)
fn noted(what: &str, given: PerDim, rank: usize, usual: usize) -> String {
    match given.lens(what, rank, usual) {
        Ok(lens) if lens[..rank].iter().any(|&n| n != usual) => format!(", {what} {}", by(&lens[..rank])),
        _ => String::new(),
    }
}

/// `3×3`.
pub(crate) fn by(lens: &[usize]) -> String {
    lens.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}
