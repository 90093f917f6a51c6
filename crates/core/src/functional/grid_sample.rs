//! Images sampled at points that a grid names (Jaderberg et al., 2015), in two or three spatial dimensions.
//!
//! Each sample is a weighted sum of the places around its point: gathers and products, so it is differentiable to any order
//! by the image and by the grid. The weights of a point are computed dimension by dimension and multiplied.

use super::interpolate::cubic_taps;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How values between places are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SampleMode {
    /// Linearly in each dimension.
    #[default]
    Linear,
    /// The nearest place. The grid has no gradient.
    Nearest,
    /// By cubic convolution of four places in each dimension (Keys, 1981; a = −3/4).
    Cubic,
}

/// What lies outside the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SamplePadding {
    /// Zeros.
    #[default]
    Zeros,
    /// The border.
    Border,
    /// The image mirrored at its border.
    Reflection,
}

/// The options of [`Tensor::grid_sample`], as PyTorch's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GridSampleOptions {
    /// How values between places are found.
    pub mode: SampleMode,
    /// What lies outside.
    pub padding: SamplePadding,
    /// Whether −1 and 1 are the centres of the first and last places; else, their outer edges.
    pub align_corners: bool,
}

/// One of the places around the points, in one dimension: where (`i64`), and with what weight (0 outside the image).
struct Tap {
    at: Tensor,
    weight: Tensor,
}

impl GridSampleOptions {
    /// Points mirrored into the image.
    fn reflected(&self, at: &Tensor, len: usize) -> Result<Tensor> {
        let (low, span) = if self.align_corners { (0.0, len as f64 - 1.0) } else { (-0.5, len as f64) };
        if span <= 0.0 {
            return Ok(at * 0.0);
        }
        let from_low = (at - low).try_abs()?;
        let flips = (from_low.detach() / span).try_floor()?;
        let rest = from_low.try_sub(&(&flips * span))?;
        let even = (&flips % 2.0).try_eq_scalar(0.0)?;
        (&rest + low).try_where(&even, &(span + low - rest))?.try_clamp(Some(0.0), Some(len as f64 - 1.0))
    }

    /// Points brought into the image, as the padding says; as they are where zeros surround it.
    fn inside(&self, at: &Tensor, len: usize) -> Result<Tensor> {
        match self.padding {
            SamplePadding::Zeros => Ok(at.clone()),
            SamplePadding::Border => at.try_clamp(Some(0.0), Some(len as f64 - 1.0)),
            SamplePadding::Reflection => self.reflected(at, len),
        }
    }

    /// A place and its weight, which is 0 if the place lies outside.
    fn tap(&self, at: &Tensor, weight: Tensor, len: usize) -> Result<Tap> {
        let last = len as f64 - 1.0;
        let outside = at.try_ge_scalar(0.0)?.try_logical_and(&at.try_le_scalar(last)?)?.try_logical_not()?;
        let at = at.try_masked_fill(&outside, 0.0)?.try_to_dtype(DType::I64)?;
        Ok(Tap { at, weight: weight.try_masked_fill(&outside, 0.0)? })
    }

    /// The places around coordinates of the grid (−1 to 1) in a dimension of `len` places.
    fn taps(&self, grid: &Tensor, len: usize) -> Result<Vec<Tap>> {
        let n = len as f64;
        let at = if self.align_corners { (grid + 1.0) * ((n - 1.0) / 2.0) } else { ((grid + 1.0) * n - 1.0) / 2.0 };
        match self.mode {
            SampleMode::Nearest => {
                let at = self.inside(&at.detach(), len)?.try_round()?;
                Ok(vec![self.tap(&at, at.ones_like(), len)?])
            }
            SampleMode::Linear => {
                let at = self.inside(&at, len)?;
                let low = at.detach().try_floor()?;
                let high = &low + 1.0;
                let (near, far) = (high.try_sub(&at)?, at.try_sub(&low)?);
                Ok(vec![self.tap(&low, near, len)?, self.tap(&high, far, len)?])
            }
            SampleMode::Cubic => {
                let low = at.detach().try_floor()?;
                let weights = cubic_taps(&at.try_sub(&low)?);
                let tap = |(k, w): (usize, Tensor)| self.tap(&self.inside(&(&low + (k as f64 - 1.0)), len)?, w, len);
                weights.into_iter().enumerate().map(tap).collect()
            }
        }
    }
}

fn checked(x: &Tensor, grid: &Tensor) -> Result<usize> {
    let e = |m: String| {
        Err(Error::misuse(m).in_op("grid_sample", [(x.dtype(), *x.shape()), (grid.dtype(), *grid.shape())]))
    };
    let rank = x.rank().saturating_sub(2);
    if !(2..=3).contains(&rank) || grid.rank() != x.rank() || grid.dims()[rank + 1] != rank {
        return e(
            "needs an image [n, c, h, w] and a grid [n, .., .., 2], or [n, c, d, h, w] and [n, .., .., .., 3]".into()
        );
    }
    if !x.dtype().is_float() || grid.dtype() != x.dtype() || grid.dims()[0] != x.dims()[0] {
        return e("image and grid need one floating-point dtype and one batch".into());
    }
    if x.dims()[2..].contains(&0) {
        return e("an image without places has nothing to sample".into());
    }
    Ok(rank)
}

impl Tensor {
    crate::fallible! {
        /// This image `[n, c, h, w]` sampled at the points of `grid` `[n, p, q, 2]` (x, y; −1 to 1): `[n, c, p, q]`. In three
        /// dimensions `[n, c, d, h, w]` and `[n, p, q, r, 3]` (x, y, z). In PyTorch: `torch.nn.functional.grid_sample`.
        pub fn grid_sample | try_grid_sample(&self, grid: &Tensor, options: &GridSampleOptions) -> Tensor {
            let rank = checked(self, grid)?;
            let (n, c) = (self.dims()[0], self.dims()[1]);
            let points: usize = grid.dims()[1..=rank].iter().product();
            let flat = self.try_reshape([n, c, self.dims()[2..].iter().product::<usize>()])?;
            // Taps over the dimensions so far, as flat places and products of weights: [n, points].
            let mut taps: Vec<(Tensor, Tensor)> = Vec::new();
            for d in 0..rank {
                // The grid names the last dimension first.
                let coordinates = grid.try_select(-1, (rank - 1 - d) as isize)?.try_reshape([n, points])?;
                let len = self.dims()[2 + d];
                let new = options.taps(&coordinates, len)?;
                if taps.is_empty() {
                    taps = new.into_iter().map(|t| (t.at, t.weight)).collect();
                    continue;
                }
                let mut all = Vec::with_capacity(taps.len() * new.len());
                for (at, weight) in &taps {
                    for t in &new {
                        all.push(((at * len).try_add(&t.at)?, weight.try_mul(&t.weight)?));
                    }
                }
                taps = all;
            }
            let mut sum = Tensor::try_zeros([n, c, points], self.place())?;
            for (at, weight) in taps {
                let at = at.try_unsqueeze(1)?.try_expand([n, c, points])?;
                sum = sum.try_add(&flat.try_gather(2, &at)?.try_mul(&weight.try_unsqueeze(1)?)?)?;
            }
            sum.try_reshape([&[n, c], &grid.dims()[1..=rank]].concat())
        }
    }
}
