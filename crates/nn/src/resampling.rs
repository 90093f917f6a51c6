//! Layers that trade places for channels, or make places more or fewer.

use crate::layer::layer;
use crate::{Module, Site};
use gradus_core::functional::interpolate::{InterpolateMode, InterpolateOptions};
use gradus_core::functional::window::PerDim;
use gradus_core::{Result, Tensor};

/// `[.., channels·factor², height, width]` → `[.., channels, height·factor, width·factor]` (Shi et al., 2016). In PyTorch:
/// `torch.nn.PixelShuffle`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Layer, PixelShuffle};
/// let y = PixelShuffle::new(2).call(&Tensor::ones([1, 12, 4, 4], gradus_cpu::device()), &Cx::eval());
/// assert_eq!(y.dims(), [1, 3, 8, 8]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct PixelShuffle {
    /// By how much height and width grow.
    pub factor: usize,
    site: Site,
}

impl PixelShuffle {
    /// By this factor.
    pub fn new(factor: usize) -> PixelShuffle {
        PixelShuffle { factor, site: Site::default() }
    }
}

layer!(PixelShuffle, |self, x, _cx| x.try_pixel_shuffle(self.factor));

/// `[.., channels, height·factor, width·factor]` → `[.., channels·factor², height, width]`: undoes [`PixelShuffle`]. In PyTorch:
/// `torch.nn.PixelUnshuffle`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Layer, PixelUnshuffle};
/// let y = PixelUnshuffle::new(2).call(&Tensor::ones([1, 3, 8, 8], gradus_cpu::device()), &Cx::eval());
/// assert_eq!(y.dims(), [1, 12, 4, 4]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct PixelUnshuffle {
    /// By how much height and width shrink.
    pub factor: usize,
    site: Site,
}

impl PixelUnshuffle {
    /// By this factor.
    pub fn new(factor: usize) -> PixelUnshuffle {
        PixelUnshuffle { factor, site: Site::default() }
    }
}

layer!(PixelUnshuffle, |self, x, _cx| x.try_pixel_unshuffle(self.factor));

/// Channels of groups dealt out in turn: channel i of group g becomes channel g of group i (Zhang et al., "ShuffleNet", 2018). In
/// PyTorch: `torch.nn.ChannelShuffle`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{ChannelShuffle, Cx, Layer};
/// let x = Tensor::from_vec(vec![0f32, 1.0, 2.0, 3.0], [1, 4, 1, 1], gradus_cpu::device());
/// assert_eq!(ChannelShuffle::new(2).call(&x, &Cx::eval()).to_vec::<f32>()?, [0.0, 2.0, 1.0, 3.0]);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug)]
pub struct ChannelShuffle {
    /// How many groups there are.
    pub groups: usize,
    site: Site,
}

impl ChannelShuffle {
    /// Of so many groups.
    pub fn new(groups: usize) -> ChannelShuffle {
        ChannelShuffle { groups, site: Site::default() }
    }
}

layer!(ChannelShuffle, |self, x, _cx| x.try_channel_shuffle(self.groups));

/// The spatial dimensions of `[batch, channels, spatial..]` resized, to given lengths or by a factor. In PyTorch:
/// `torch.nn.Upsample`, `UpsamplingNearest2d`, `UpsamplingBilinear2d` (which aligns corners).
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_core::functional::interpolate::InterpolateMode;
/// use gradus_nn::{Cx, Layer, Upsample};
/// let x = Tensor::ones([1, 3, 4, 4], gradus_cpu::device());
/// assert_eq!(Upsample::by(2.0, InterpolateMode::Nearest).call(&x, &Cx::eval()).dims(), [1, 3, 8, 8]);
/// assert_eq!(Upsample::to([5, 7], InterpolateMode::Linear).call(&x, &Cx::eval()).dims(), [1, 3, 5, 7]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct Upsample {
    #[module(skip)]
    target: Target,
    #[module(skip)]
    options: InterpolateOptions,
    site: Site,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Lens(PerDim),
    Factor(f64),
}

impl Upsample {
    /// To these lengths.
    pub fn to(lens: impl Into<PerDim>, mode: InterpolateMode) -> Upsample {
        Upsample { target: Target::Lens(lens.into()), options: InterpolateOptions::new(mode), site: Site::default() }
    }
    /// By this factor: a length L becomes ⌊L·factor⌋.
    pub fn by(factor: f64, mode: InterpolateMode) -> Upsample {
        Upsample { target: Target::Factor(factor), options: InterpolateOptions::new(mode), site: Site::default() }
    }
    /// Whether the first and last places' centres stay where they are (linear and cubic modes).
    pub fn align_corners(mut self, align: bool) -> Upsample {
        self.options = self.options.align_corners(align);
        self
    }
    #[track_caller]
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        match self.target {
            Target::Lens(lens) => x.try_interpolate(lens, &self.options),
            Target::Factor(factor) => x.try_interpolate_by(factor, &self.options),
        }
    }
}

layer!(Upsample, |self, x, _cx| self.run(x));
