//! Pools as they are called: their options, windows of one size, and as many windows as are asked for.

use super::pool::{AvgPool, MaxPool, PlaceTable};
use super::window::{Geometry, PerDim, Window, batched, spatial};
use crate::error::{Error, Result};
use crate::op::Tensors;
use crate::tensor::Tensor;

/// The options of pooling. By default: windows side by side, no padding, dilation 1, rounding down, padding counted in means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolOptions {
    /// Places in a window.
    pub kernel: PerDim,
    /// The distance of neighbouring windows; `None`: the kernel's lengths.
    pub stride: Option<PerDim>,
    /// Padding on either side: −∞ for maxima, 0 for means.
    pub padding: PerDim,
    /// The distance of neighbouring places of a window; 1 for means.
    pub dilation: PerDim,
    /// Whether a last window that reaches over the end counts.
    pub ceil_mode: bool,
    /// Whether zeros of the padding count as places of a mean.
    pub count_include_pad: bool,
    /// What sums are divided by to be means, in place of the number of places.
    pub divisor: Option<i64>,
}

impl PoolOptions {
    /// Windows of `kernel` places, side by side.
    pub fn new(kernel: impl Into<PerDim>) -> PoolOptions {
        let (stride, padding, dilation) = (None, 0.into(), 1.into());
        PoolOptions {
            kernel: kernel.into(),
            stride,
            padding,
            dilation,
            ceil_mode: false,
            count_include_pad: true,
            divisor: None,
        }
    }
    /// With this stride.
    pub fn stride(mut self, stride: impl Into<PerDim>) -> Self {
        self.stride = Some(stride.into());
        self
    }
    /// With so much padding on either side.
    pub fn padding(mut self, padding: impl Into<PerDim>) -> Self {
        self.padding = padding.into();
        self
    }
    /// With this dilation (maxima only).
    pub fn dilation(mut self, dilation: impl Into<PerDim>) -> Self {
        self.dilation = dilation.into();
        self
    }
    /// With a last window that reaches over the end, where places are left over.
    pub fn ceil_mode(mut self, ceil: bool) -> Self {
        self.ceil_mode = ceil;
        self
    }
    /// Whether zeros of the padding count as places of a mean.
    pub fn count_include_pad(mut self, count: bool) -> Self {
        self.count_include_pad = count;
        self
    }
    /// With sums divided by this number. In PyTorch: `divisor_override`.
    pub fn divisor(mut self, divisor: i64) -> Self {
        self.divisor = Some(divisor);
        self
    }

    fn geometry(&self, rank: usize) -> Result<Geometry> {
        let size = self.kernel.lens("the kernel", rank, 1)?;
        let padding = self.padding.lens("the padding", rank, 0)?;
        if (0..rank).any(|d| padding[d] > size[d] / 2) {
            return Err(Error::misuse(format!(
                "padding of {:?} is more than half the kernel {:?}",
                &padding[..rank],
                &size[..rank]
            )));
        }
        let stride = self.stride.unwrap_or(self.kernel).lens("the stride", rank, 1)?;
        let dilation = self.dilation.lens("the dilation", rank, 1)?;
        Ok(Geometry { rank, size, stride, before: padding, after: padding, dilation })
    }
}

#[track_caller]
fn max_pool(x: &Tensor, options: &PoolOptions, rank: usize, indices: bool) -> Result<Tensors> {
    let named = |e: Error| e.in_op("max_pool", [(x.dtype(), *x.shape())]);
    let (batch, had_batch) = batched(x, rank, "max_pool")?;
    let window =
        options.geometry(rank).and_then(|g| g.over(spatial(batch.shape()), options.ceil_mode)).map_err(named)?;
    let out = Tensor::try_compose(MaxPool { window, indices }, &[&batch])?;
    if had_batch { Ok(out) } else { out.iter().map(|t| t.try_squeeze(0)).collect() }
}

#[track_caller]
fn avg_pool(x: &Tensor, options: &PoolOptions, rank: usize) -> Result<Tensor> {
    let named = |e: Error| e.in_op("avg_pool", [(x.dtype(), *x.shape())]);
    let (batch, had_batch) = batched(x, rank, "avg_pool")?;
    let geometry = options.geometry(rank).map_err(named)?;
    if geometry.dilation != [1; 3] {
        return Err(named(Error::misuse("the mean of windows has no dilation")));
    }
    let window = geometry.over(spatial(batch.shape()), options.ceil_mode).map_err(named)?;
    let y = match options.divisor {
        Some(0) => return Err(named(Error::misuse("nothing can be divided by 0"))),
        Some(by) => {
            let dims: Vec<isize> = (2..2 + rank as isize).collect();
            window.unfold(&batch)?.try_sum_dims(&dims, false)? / by as f64
        }
        None => {
            let op = AvgPool { window, after: geometry.after, count_padding: options.count_include_pad };
            Tensor::try_compose1(op, &[&batch])?
        }
    };
    if had_batch { Ok(y) } else { y.try_squeeze(0) }
}

/// Where window `o` of `output` begins and ends in a dimension of `input` places.
pub(crate) fn adaptive_bounds(o: usize, input: usize, output: usize) -> (usize, usize) {
    (o * input / output, ((o + 1) * input).div_ceil(output))
}

fn adaptive_lens(x: &Tensor, output: PerDim, rank: usize, op: &'static str) -> Result<(Tensor, bool, [usize; 3])> {
    let (batch, had_batch) = batched(x, rank, op)?;
    let named = |e: Error| e.in_op(op, [(x.dtype(), *x.shape())]);
    let lens = output.lens("the output size", rank, 1).map_err(named)?;
    let bad =
        |d: &usize| lens[*d] == 0 || batch.dims()[2 + *d] == 0 || lens[*d].checked_mul(batch.dims()[2 + *d]).is_none();
    if let Some(d) = (0..rank).find(bad) {
        return Err(named(Error::misuse(format!(
            "spatial dimension {d} of length {} cannot become {}",
            batch.dims()[2 + d],
            lens[d]
        ))));
    }
    Ok((batch, had_batch, lens))
}

#[track_caller]
fn adaptive_avg_pool(x: &Tensor, output: PerDim, rank: usize) -> Result<Tensor> {
    if !x.dtype().is_float() {
        let e = Error::misuse("adaptive means need a floating-point tensor; cast it first (`to_dtype`)");
        return Err(e.in_op("adaptive_avg_pool", [(x.dtype(), *x.shape())]));
    }
    let (mut y, had_batch, lens) = adaptive_lens(x, output, rank, "adaptive_avg_pool")?;
    let input = spatial(y.shape());
    if (0..rank).all(|d| input[d].is_multiple_of(lens[d])) {
        // Windows of one size, side by side.
        let size = std::array::from_fn(|d| input[d] / lens[d]);
        let window = Window { rank, input, output: lens, size, stride: size, before: [0; 3], dilation: [1; 3] };
        y = Tensor::try_compose1(AvgPool { window, after: [0; 3], count_padding: true }, &[&y])?;
    } else {
        // The mean of a box is the mean over each dimension in turn.
        for d in 0..rank {
            y = super::interpolate::resampled(&y, 2 + d, lens[d], |o| {
                let (start, end) = adaptive_bounds(o, input[d], lens[d]);
                (start..end).map(|i| (i, 1.0 / (end - start) as f64)).collect()
            })?;
        }
    }
    if had_batch { Ok(y) } else { y.try_squeeze(0) }
}

#[track_caller]
fn adaptive_max_pool(x: &Tensor, output: PerDim, rank: usize) -> Result<(Tensor, Tensor)> {
    let (batch, had_batch, lens) = adaptive_lens(x, output, rank, "adaptive_max_pool")?;
    let input = spatial(batch.shape());
    let bounds = |d: usize, o: usize| adaptive_bounds(o, input[d], lens[d]);
    let size = std::array::from_fn(|d| (0..lens[d]).map(|o| bounds(d, o).1 - bounds(d, o).0).max().unwrap_or(1));
    let place = |d: usize, o: usize, k: usize| Some(bounds(d, o).0 + k).filter(|&i| i < bounds(d, o).1);
    let (values, at) = PlaceTable::of(input, lens, size, place)?.largest(&batch)?;
    let mut shape = [&batch.dims()[..2], &lens[..rank]].concat();
    if !had_batch {
        shape.remove(0);
    }
    Ok((values.try_reshape(&shape)?, at.try_reshape(&shape)?))
}

macro_rules! pools {
    ($($rank:literal: $max:ident | $try_max:ident, $max_at:ident | $try_max_at:ident, $avg:ident | $try_avg:ident,
        $aavg:ident | $try_aavg:ident, $amax:ident | $try_amax:ident;)*) => {
        impl Tensor {
            crate::fallible! {$(
                #[doc = concat!("The largest of each window of `[batch, channels, spatial..]` (or without the batch). ∂: g to the first of the largest. In PyTorch: `torch.nn.functional.", stringify!($max), "`.")]
                pub fn $max | $try_max(&self, options: &PoolOptions) -> Tensor {
                    max_pool(self, options, $rank, false)?.pop().ok_or_else(|| Error::misuse("max_pool gave no output"))
                }
                #[doc = concat!("As [`", stringify!($max), "`](Self::", stringify!($max), "), with the places in the spatial dimensions (counted row-major; `i64`) besides.")]
                pub fn $max_at | $try_max_at(&self, options: &PoolOptions) -> (Tensor, Tensor) {
                    let mut out = max_pool(self, options, $rank, true)?;
                    match (out.pop(), out.pop()) {
                        (Some(at), Some(values)) => Ok((values, at)),
                        _ => Err(Error::misuse("max_pool gave fewer than two outputs")),
                    }
                }
                #[doc = concat!("The mean of each window of `[batch, channels, spatial..]` (or without the batch). ∂: g/places to each. In PyTorch: `torch.nn.functional.", stringify!($avg), "`.")]
                pub fn $avg | $try_avg(&self, options: &PoolOptions) -> Tensor { avg_pool(self, options, $rank) }
                #[doc = concat!("Means of `output` windows in each spatial dimension: window o of n covers ⌊o·L/n⌋ to ⌈(o+1)·L/n⌉. In PyTorch: `torch.nn.functional.", stringify!($aavg), "`.")]
                pub fn $aavg | $try_aavg<P: Into<PerDim>>(&self, output: P) -> Tensor { adaptive_avg_pool(self, output.into(), $rank) }
                #[doc = concat!("The largest of `output` windows in each spatial dimension, and their places (counted row-major; `i64`): window o of n covers ⌊o·L/n⌋ to ⌈(o+1)·L/n⌉. In PyTorch: `torch.nn.functional.", stringify!($amax), "`.")]
                pub fn $amax | $try_amax<P: Into<PerDim>>(&self, output: P) -> (Tensor, Tensor) { adaptive_max_pool(self, output.into(), $rank) }
            )*}
        }
    };
}
pools! {
    1: max_pool1d | try_max_pool1d, max_pool1d_with_indices | try_max_pool1d_with_indices, avg_pool1d | try_avg_pool1d,
        adaptive_avg_pool1d | try_adaptive_avg_pool1d, adaptive_max_pool1d | try_adaptive_max_pool1d;
    2: max_pool2d | try_max_pool2d, max_pool2d_with_indices | try_max_pool2d_with_indices, avg_pool2d | try_avg_pool2d,
        adaptive_avg_pool2d | try_adaptive_avg_pool2d, adaptive_max_pool2d | try_adaptive_max_pool2d;
    3: max_pool3d | try_max_pool3d, max_pool3d_with_indices | try_max_pool3d_with_indices, avg_pool3d | try_avg_pool3d,
        adaptive_avg_pool3d | try_adaptive_avg_pool3d, adaptive_max_pool3d | try_adaptive_max_pool3d;
}
