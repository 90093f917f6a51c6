//! Images as columns of patches, and back.

use crate::layer::layer;
use crate::{Module, Site};
use gradus_core::functional::fold::PatchOptions;
use gradus_core::functional::window::PerDim;

/// How patches lie, as builder methods.
macro_rules! patch_options {
    ($t:ident) => {
        /// With this stride.
        pub fn stride(mut self, stride: impl Into<PerDim>) -> $t {
            self.options = self.options.stride(stride);
            self
        }
        /// With so many zeros on either side.
        pub fn padding(mut self, padding: impl Into<PerDim>) -> $t {
            self.options = self.options.padding(padding);
            self
        }
        /// With this distance of neighbouring places of a patch.
        pub fn dilation(mut self, dilation: impl Into<PerDim>) -> $t {
            self.options = self.options.dilation(dilation);
            self
        }
    };
}

/// The patches of images `[batch, channels, height, width]` (or without the batch) as columns `[batch, channels·places, patches]`.
/// In PyTorch: `torch.nn.Unfold`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Layer, Unfold};
/// let y = Unfold::new(2).stride(2).call(&Tensor::ones([1, 3, 4, 6], gradus_cpu::device()), &Cx::eval());
/// assert_eq!(y.dims(), [1, 12, 6]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct Unfold {
    #[module(skip)]
    options: PatchOptions,
    site: Site,
}

impl Unfold {
    /// Patches of `kernel` places, one apart.
    pub fn new(kernel: impl Into<PerDim>) -> Unfold {
        Unfold { options: PatchOptions::new(kernel), site: Site::default() }
    }
    patch_options!(Unfold);
}

layer!(Unfold, |self, x, _cx| x.try_im2col(&self.options));

/// Columns of patches `[batch, channels·places, patches]` (or without the batch) summed into images: the adjoint of [`Unfold`].
/// In PyTorch: `torch.nn.Fold`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Fold, Layer};
/// let y = Fold::new([4, 6], 2).stride(2).call(&Tensor::ones([1, 12, 6], gradus_cpu::device()), &Cx::eval());
/// assert_eq!(y.dims(), [1, 3, 4, 6]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct Fold {
    output: PerDim,
    #[module(skip)]
    options: PatchOptions,
    site: Site,
}

impl Fold {
    /// Into images of `output` places, from patches of `kernel` places, one apart.
    pub fn new(output: impl Into<PerDim>, kernel: impl Into<PerDim>) -> Fold {
        Fold { output: output.into(), options: PatchOptions::new(kernel), site: Site::default() }
    }
    patch_options!(Fold);
}

layer!(Fold, |self, x, _cx| x.try_col2im(self.output, &self.options));
