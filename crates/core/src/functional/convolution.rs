//! Convolutions as they are called: their options, and the checks that a composite's geometry needs.

use super::conv::{Conv, ConvInputGrad, ConvThen};
use super::window::{Geometry, PerDim, batched, spatial};
use crate::composite::first;
use crate::error::{Error, Result};
use crate::ops::UnaryOp;
use crate::tensor::Tensor;

/// What is put around the input of a convolution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Padding {
    /// So many zeros on either side of each dimension.
    Zeros(PerDim),
    /// As many zeros as give an output of the input's lengths (for stride 1; an odd one goes to the end).
    Same,
}

/// The options of a convolution. By default: stride 1, no padding, dilation 1, one group.
///
/// ```
/// use gradus_core::functional::convolution::ConvOptions;
/// let options = ConvOptions::default().stride(2).padding([1, 2]).groups(4);
/// assert_eq!(options.groups, 4);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConvOptions {
    /// The distance of neighbouring windows.
    pub stride: PerDim,
    /// What is put around the input (of a transposed convolution: taken off its output).
    pub padding: Padding,
    /// The distance of neighbouring places of a window.
    pub dilation: PerDim,
    /// Channels fall into this many groups, which see nothing of each other.
    pub groups: usize,
    /// Places added at the end of a transposed convolution's output; must be 0 otherwise.
    pub output_padding: PerDim,
}

impl Default for ConvOptions {
    fn default() -> Self {
        let one = PerDim::from(1);
        ConvOptions {
            stride: one,
            padding: Padding::Zeros(0.into()),
            dilation: one,
            groups: 1,
            output_padding: 0.into(),
        }
    }
}

impl ConvOptions {
    /// With this stride.
    pub fn stride(mut self, stride: impl Into<PerDim>) -> Self {
        self.stride = stride.into();
        self
    }
    /// With so many zeros on either side.
    pub fn padding(mut self, padding: impl Into<PerDim>) -> Self {
        self.padding = Padding::Zeros(padding.into());
        self
    }
    /// With the padding that keeps the input's lengths. In PyTorch: `padding='same'`.
    pub fn same(mut self) -> Self {
        self.padding = Padding::Same;
        self
    }
    /// With this dilation.
    pub fn dilation(mut self, dilation: impl Into<PerDim>) -> Self {
        self.dilation = dilation.into();
        self
    }
    /// With so many groups.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }
    /// With so many places added at the end of a transposed convolution's output.
    pub fn output_padding(mut self, places: impl Into<PerDim>) -> Self {
        self.output_padding = places.into();
        self
    }

    fn geometry(&self, weight: &Tensor, rank: usize) -> Result<Geometry> {
        if weight.rank() != rank + 2 {
            return Err(Error::misuse(format!(
                "needs a weight of {} dimensions, {rank} of them spatial; got {}",
                rank + 2,
                weight.shape()
            )));
        }
        let (size, stride) = (spatial(weight.shape()), self.stride.lens("the stride", rank, 1)?);
        let dilation = self.dilation.lens("the dilation", rank, 1)?;
        let (before, after) = match self.padding {
            Padding::Zeros(p) => [p.lens("the padding", rank, 0)?; 2].into(),
            Padding::Same if stride != [1; 3] => {
                return Err(Error::misuse(format!(
                    "padding that keeps the lengths needs stride 1, not {:?}",
                    &stride[..rank]
                )));
            }
            Padding::Same => {
                let total: [usize; 3] = std::array::from_fn(|d| size[d].saturating_sub(1).saturating_mul(dilation[d]));
                (total.map(|t| t / 2), total.map(|t| t - t / 2))
            }
        };
        Ok(Geometry { rank, size, stride, before, after, dilation })
    }
}

/// Which of the convolutions.
#[derive(Clone, Copy)]
struct Kind {
    rank: usize,
    transposed: bool,
    activation: Option<UnaryOp>,
}

#[track_caller]
fn convolve(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, options: &ConvOptions, kind: Kind) -> Result<Tensor> {
    let Kind { rank, transposed, activation } = kind;
    let name = if transposed { "conv_transpose" } else { "conv" };
    let named = |e: Error| e.in_op(name, [x, w].into_iter().chain(bias).map(|t| (t.dtype(), *t.shape())));
    let (batch, had_batch) = batched(x, rank, name).map_err(named)?;
    let geometry = options.geometry(w, rank).map_err(named)?;
    let extra = options.output_padding.lens("the output padding", rank, 0).map_err(named)?;
    let lens = spatial(batch.shape());
    let inputs: Vec<&Tensor> = [&batch, w].into_iter().chain(bias).collect();
    let y = if transposed {
        let window = geometry.under(lens, extra).map_err(named)?;
        let conv = ConvInputGrad(Conv { window, groups: options.groups });
        match activation {
            Some(activation) => Tensor::try_compose(ConvThen { conv, activation }, &inputs),
            None => Tensor::try_compose(conv, &inputs),
        }
    } else if extra != [0; 3] {
        Err(Error::misuse("only a transposed convolution has output padding"))
    } else {
        let window = geometry.over(lens, false).map_err(named)?;
        let conv = Conv { window, groups: options.groups };
        match activation {
            Some(activation) => Tensor::try_compose(ConvThen { conv, activation }, &inputs),
            None => Tensor::try_compose(conv, &inputs),
        }
    };
    let y = first(name, y.map_err(named))?;
    if had_batch { Ok(y) } else { y.try_squeeze(0) }
}

macro_rules! convolutions {
    ($($rank:literal: $conv:ident | $try_conv:ident, $conv_then:ident | $try_conv_then:ident, $transpose:ident | $try_transpose:ident, $transpose_then:ident | $try_transpose_then:ident, $lens:literal;)*) => {
        impl Tensor {
            crate::fallible! {$(
                #[doc = concat!("The convolution of this tensor `[batch, in, ", $lens, "]` (or without the batch) with a weight `[out, in/groups, ", $lens, " of the kernel]` and a bias `[out]`.")]
                #[doc = concat!("∂ = (transposed convolution of g with w, correlation of x with g, Σ g). In PyTorch: `torch.nn.functional.", stringify!($conv), "`.")]
                pub fn $conv | $try_conv(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvOptions) -> Tensor {
                    convolve(self, weight, bias, options, Kind { rank: $rank, transposed: false, activation: None })
                }
                #[doc = concat!("f of [`", stringify!($conv), "`](Self::", stringify!($conv), "), in one pass where the device can (relu, tanh, sigmoid).")]
                pub fn $conv_then | $try_conv_then(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvOptions, f: UnaryOp) -> Tensor {
                    convolve(self, weight, bias, options, Kind { rank: $rank, transposed: false, activation: Some(f) })
                }
                #[doc = concat!("The transposed convolution of this tensor `[batch, in, ", $lens, "]` (or without the batch) with a weight `[in, out/groups, ", $lens, " of the kernel]` and a bias `[out]`:")]
                #[doc = concat!("the adjoint of [`", stringify!($conv), "`](Self::", stringify!($conv), "). A length L becomes (L − 1)·stride − 2·padding + dilation·(size − 1) + output_padding + 1. In PyTorch: `torch.nn.functional.", stringify!($transpose), "`.")]
                pub fn $transpose | $try_transpose(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvOptions) -> Tensor {
                    convolve(self, weight, bias, options, Kind { rank: $rank, transposed: true, activation: None })
                }
                #[doc = concat!("f of [`", stringify!($transpose), "`](Self::", stringify!($transpose), "), in one pass where the device can (relu, tanh, sigmoid).")]
                pub fn $transpose_then | $try_transpose_then(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvOptions, f: UnaryOp) -> Tensor {
                    convolve(self, weight, bias, options, Kind { rank: $rank, transposed: true, activation: Some(f) })
                }
            )*}
        }
    };
}
convolutions! {
    1: conv1d | try_conv1d, conv1d_then | try_conv1d_then, conv_transpose1d | try_conv_transpose1d, conv_transpose1d_then | try_conv_transpose1d_then, "length";
    2: conv2d | try_conv2d, conv2d_then | try_conv2d_then, conv_transpose2d | try_conv_transpose2d, conv_transpose2d_then | try_conv_transpose2d_then, "height, width";
    3: conv3d | try_conv3d, conv3d_then | try_conv3d_then, conv_transpose3d | try_conv_transpose3d, conv_transpose3d_then | try_conv_transpose3d_then, "depth, height, width";
}
