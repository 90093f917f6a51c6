//! Resizing of the spatial dimensions. Every mode is a linear map of each dimension by itself, so resizing is a matrix product
//! (or a selection) for each dimension, differentiable to any order.

use super::window::{PerDim, batched, spatial};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How values between places are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InterpolateMode {
    /// The place ⌊o·scale⌋, as PyTorch's `nearest` has it.
    #[default]
    Nearest,
    /// The place whose centre is nearest. In PyTorch: `nearest-exact`.
    NearestExact,
    /// Linearly between the two neighbours: linear, bilinear or trilinear, by the number of spatial dimensions.
    Linear,
    /// By cubic convolution of four neighbours (Keys, 1981; a = −3/4); two spatial dimensions.
    Cubic,
    /// The mean of the places that an output place covers: adaptive average pooling.
    Area,
}

/// The options of [`Tensor::interpolate`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct InterpolateOptions {
    /// How values between places are found.
    pub mode: InterpolateMode,
    /// Whether the first and last places' centres stay where they are (linear and cubic modes).
    pub align_corners: bool,
    /// The scale to compute places with, one for each spatial dimension, in place of the ratio of lengths.
    pub scale: Option<[f64; 3]>,
}

impl InterpolateOptions {
    /// The given mode, without aligned corners.
    pub fn new(mode: InterpolateMode) -> InterpolateOptions {
        InterpolateOptions { mode, align_corners: false, scale: None }
    }
    /// Whether the first and last places' centres stay where they are.
    pub fn align_corners(mut self, align: bool) -> Self {
        self.align_corners = align;
        self
    }
    /// With places computed from these scale factors (output length over input length), as PyTorch does where it is given
    /// `scale_factor`.
    pub fn scale(mut self, scale: [f64; 3]) -> Self {
        self.scale = Some(scale);
        self
    }
}

/// Dimension `dim` mapped to `output` places, each a weighted sum of the places that `taps` names.
pub(crate) fn resampled(
    x: &Tensor,
    dim: usize,
    output: usize,
    taps: impl Fn(usize) -> Vec<(usize, f64)>,
) -> Result<Tensor> {
    let input = x.dims()[dim];
    let mut matrix = vec![0f64; input * output];
    for o in 0..output {
        taps(o).into_iter().for_each(|(i, w)| matrix[i * output + o] += w);
    }
    let place = x.place();
    let matrix = match place.dtype {
        DType::F64 => Tensor::try_from_vec(matrix, [input, output], place.device)?,
        d => Tensor::try_from_vec(matrix.into_iter().map(|w| w as f32).collect(), [input, output], place.device)?
            .try_to_dtype(d)?,
    };
    let last = x.try_movedim(dim as isize, -1)?;
    last.try_matmul(&matrix)?.try_movedim(-1, dim as isize)
}

/// The place, in the input, of output place `o`.
fn source(o: usize, scale: f64, align: bool, cubic: bool) -> f64 {
    if align {
        return scale * o as f64;
    }
    let at = scale * (o as f64 + 0.5) - 0.5;
    if cubic { at } else { at.max(0.0) }
}

/// The weights of the four neighbours of a point `t` beyond the second.
fn cubic_weights(t: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// [`cubic_weights`] of tensors of points, differentiable.
pub(crate) fn cubic_taps(t: &Tensor) -> [Tensor; 4] {
    const A: f64 = -0.75;
    let near = |x: &Tensor| (x * (A + 2.0) - (A + 3.0)) * x * x + 1.0;
    let far = |x: &Tensor| ((x * A - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let back = 1.0 - t;
    [far(&(t + 1.0)), near(t), near(&back), far(&(&back + 1.0))]
}

fn resize_dim(
    x: &Tensor,
    dim: usize,
    output: usize,
    options: &InterpolateOptions,
    factor: Option<f64>,
) -> Result<Tensor> {
    let input = x.dims()[dim];
    let (last, align) = (input - 1, options.align_corners);
    let ratio = factor.map_or(input as f64 / output as f64, |f| 1.0 / f);
    let scale = match align {
        true if output > 1 => last as f64 / (output - 1) as f64,
        true => 0.0,
        false => ratio,
    };
    match options.mode {
        InterpolateMode::Nearest | InterpolateMode::NearestExact => {
            let half = if options.mode == InterpolateMode::NearestExact { 0.5 } else { 0.0 };
            // PyTorch computes the place in f32 for every dtype but f64; so do we, for the same choice of place.
            let place = |o: usize| match x.dtype() {
                DType::F64 => ((o as f64 + half) * ratio).floor(),
                _ => ((o as f32 + half as f32) * ratio as f32).floor() as f64,
            };
            let index: Vec<i64> = (0..output).map(|o| (place(o) as i64).min(last as i64)).collect();
            x.try_index_select(dim as isize, &Tensor::try_from_vec(index, [output], x.device())?)
        }
        InterpolateMode::Linear => resampled(x, dim, output, |o| {
            let at = source(o, scale, align, false);
            let low = (at as usize).min(last);
            let t = (at - low as f64).clamp(0.0, 1.0);
            vec![(low, 1.0 - t), ((low + 1).min(last), t)]
        }),
        InterpolateMode::Cubic => resampled(x, dim, output, |o| {
            let at = source(o, scale, align, true);
            let low = at.floor();
            let clamped = |k: usize| (low as i64 + k as i64 - 1).clamp(0, last as i64) as usize;
            cubic_weights(at - low).into_iter().enumerate().map(|(k, w)| (clamped(k), w)).collect()
        }),
        InterpolateMode::Area => resampled(x, dim, output, |o| {
            let (start, end) = super::pooling::adaptive_bounds(o, input, output);
            (start..end).map(|i| (i, 1.0 / (end - start) as f64)).collect()
        }),
    }
}

impl Tensor {
    crate::fallible! {
        /// The spatial dimensions of `[batch, channels, spatial..]` (one to three) resized to `size`. ∂: g by the transposed map.
        /// In PyTorch: `torch.nn.functional.interpolate`.
        pub fn interpolate | try_interpolate<P: Into<PerDim>>(&self, size: P, options: &InterpolateOptions) -> Tensor {
            let e = |m: String| Error::misuse(m).in_op("interpolate", [(self.dtype(), *self.shape())]);
            let rank = self.rank().saturating_sub(2);
            if !(1..=3).contains(&rank) || !self.dtype().is_float() {
                return Err(e("needs a floating-point tensor [batch, channels, 1 to 3 spatial dimensions]".into()));
            }
            if options.mode == InterpolateMode::Cubic && rank != 2 {
                return Err(e(format!("cubic interpolation is for 2 spatial dimensions, not {rank}")));
            }
            if options.align_corners && !matches!(options.mode, InterpolateMode::Linear | InterpolateMode::Cubic) {
                return Err(e(format!("corners are aligned in linear and cubic modes only, not in {:?}", options.mode)));
            }
            let (mut y, _) = batched(self, rank, "interpolate")?;
            let output = size.into().lens("the size", rank, 1).map_err(|err| e(err.to_string()))?;
            let input = spatial(self.shape());
            if let Some(d) = (0..rank).find(|&d| input[d] == 0 || output[d] == 0 || input[d].checked_mul(output[d]).is_none()) {
                return Err(e(format!("spatial dimension {d} of length {} cannot become {}", input[d], output[d])));
            }
            let factors = options.scale;
            if let Some(f) = factors.filter(|f| f[..rank].iter().any(|s| !(s.is_finite() && *s > 0.0))) {
                return Err(e(format!("scale factors must be positive, not {:?}", &f[..rank])));
            }
            for d in 0..rank {
                if input[d] != output[d] || factors.is_some_and(|f| f[d] != 1.0) {
                    y = resize_dim(&y, 2 + d, output[d], options, factors.map(|f| f[d]))?;
                }
            }
            Ok(y)
        }
        /// The spatial dimensions resized by a factor: a length L becomes ⌊L·factor⌋. In PyTorch:
        /// `torch.nn.functional.interpolate(x, scale_factor=..)`.
        pub fn interpolate_by | try_interpolate_by(&self, factor: f64, options: &InterpolateOptions) -> Tensor {
            let e = |m: String| Error::misuse(m).in_op("interpolate", [(self.dtype(), *self.shape())]);
            if !(factor.is_finite() && factor > 0.0 && factor < 1e9) {
                return Err(e(format!("the factor must be positive, not {factor}")));
            }
            let size: Vec<usize> = self.dims().iter().skip(2).map(|&n| (n as f64 * factor) as usize).collect();
            self.try_interpolate(&size[..], &InterpolateOptions { scale: Some([factor; 3]), ..*options })
        }
    }
}
