//! Images as columns of patches, and patches summed back into images: convolution as a matrix product, by hand.

use super::window::{Geometry, PerDim, Window, spatial};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The geometry of patches. By default: stride 1, no padding, dilation 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PatchOptions {
    /// Places in a patch.
    pub kernel: PerDim,
    /// The distance of neighbouring patches.
    pub stride: PerDim,
    /// Zeros on either side.
    pub padding: PerDim,
    /// The distance of neighbouring places of a patch.
    pub dilation: PerDim,
}

impl PatchOptions {
    /// Patches of `kernel` places, one apart.
    pub fn new(kernel: impl Into<PerDim>) -> PatchOptions {
        PatchOptions { kernel: kernel.into(), stride: 1.into(), padding: 0.into(), dilation: 1.into() }
    }
    /// With this stride.
    pub fn stride(mut self, stride: impl Into<PerDim>) -> Self {
        self.stride = stride.into();
        self
    }
    /// With so many zeros on either side.
    pub fn padding(mut self, padding: impl Into<PerDim>) -> Self {
        self.padding = padding.into();
        self
    }
    /// With this dilation.
    pub fn dilation(mut self, dilation: impl Into<PerDim>) -> Self {
        self.dilation = dilation.into();
        self
    }

    fn window(&self, input: [usize; 3]) -> Result<Window> {
        let padding = self.padding.lens("the padding", 2, 0)?;
        let geometry = Geometry {
            rank: 2,
            size: self.kernel.lens("the kernel", 2, 1)?,
            stride: self.stride.lens("the stride", 2, 1)?,
            before: padding,
            after: padding,
            dilation: self.dilation.lens("the dilation", 2, 1)?,
        };
        geometry.over(input, false)
    }
}

impl Tensor {
    crate::fallible! {
        /// The patches of an image as columns: `[n, c, h, w] → [n, c·kh·kw, patches]` (or without the batch). ∂: overlapping
        /// patches' gradients add up. In PyTorch: `torch.nn.functional.unfold`.
        pub fn im2col | try_im2col(&self, options: &PatchOptions) -> Tensor {
            let (x, had_batch) = super::window::batched(self, 2, "im2col")?;
            let window = options.window(spatial(x.shape())).map_err(|e| e.in_op("im2col", [(self.dtype(), *self.shape())]))?;
            let (rows, columns) = (x.dims()[1] * window.places(), window.windows());
            let y = window.unfold(&x)?.try_reshape([x.dims()[0], rows, columns])?;
            if had_batch { Ok(y) } else { y.try_squeeze(0) }
        }
        /// Columns of patches summed into an image of `output` places: `[n, c·kh·kw, patches] → [n, c, h, w]` (or without the
        /// batch), the adjoint of [`im2col`](Self::im2col). In PyTorch: `torch.nn.functional.fold`.
        pub fn col2im | try_col2im<P: Into<PerDim>>(&self, output: P, options: &PatchOptions) -> Tensor {
            let named = |e: Error| e.in_op("col2im", [(self.dtype(), *self.shape())]);
            let window = output.into().lens("the output size", 2, 1).and_then(|lens| options.window(lens)).map_err(named)?;
            let x = if self.rank() == 2 { self.try_unsqueeze(0)? } else { self.clone() };
            let fits = x.rank() == 3 && x.dims()[1].is_multiple_of(window.places()) && x.dims()[2] == window.windows();
            if !fits {
                return Err(named(Error::misuse(format!("columns [n, c·{}, {}] would fit", window.places(), window.windows()))));
            }
            let (n, c) = (x.dims()[0], x.dims()[1] / window.places());
            let columns = x.try_reshape([&[n, c], &window.size[..2], &window.output[..2]].concat())?;
            let y = window.fold(&columns)?;
            if self.rank() == 2 { y.try_squeeze(0) } else { Ok(y) }
        }
    }
}
