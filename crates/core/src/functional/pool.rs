//! Pooling: the largest or the mean of each window. [`pooling`](super::pooling) has what users call.

use super::window::{Window, spatial};
use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// The largest of each window (the first of equals; NaN wins), and, if asked for, where in the input's spatial dimensions,
/// counted row-major, it was; `i64`. Padding is never chosen.
///
/// Input: `[batch, channels, input..]`. A fused kernel keeps the place in the window ([`MaxPool::places_dtype`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaxPool {
    /// The windows.
    pub window: Window,
    /// Whether the places are a second output.
    pub indices: bool,
}

/// The gradient of [`MaxPool`]: each output's gradient added to the place that it came from. Inputs: g `[batch, channels,
/// output..]`, and the place in the window, of the same shape and [`MaxPool::places_dtype`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaxPoolGrad(pub Window);

/// The mean of each window. Input: `[batch, channels, input..]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AvgPool {
    /// The windows.
    pub window: Window,
    /// The padding at the end, which (unlike what a window in ceil mode sees beyond it) counts as places.
    pub after: [usize; 3],
    /// Whether zeros of the padding count as places of the mean.
    pub count_padding: bool,
}

/// The gradient of [`AvgPool`], which is linear: its adjoint. Input: `[batch, channels, output..]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AvgPoolGrad(pub AvgPool);

fn check_input(x: &Meta, rank: usize, lens: [usize; 3]) -> Result<()> {
    if !x.dtype.is_float() || x.shape.rank() != 2 + rank || spatial(&x.shape) != lens {
        return Err(Error::misuse(format!("needs a floating-point tensor [batch, channels, {:?}]", &lens[..rank])));
    }
    Ok(())
}

/// For each place of each window (place-major), where it lies in the input's spatial dimensions, counted row-major; padding is
/// replaced by the window's first real place, which changes no maximum.
pub(super) struct PlaceTable {
    places: usize,
    windows: usize,
    /// `[places, windows]`.
    at: Vec<i64>,
}

impl PlaceTable {
    pub(super) fn of(
        input: [usize; 3],
        output: [usize; 3],
        size: [usize; 3],
        place: impl Fn(usize, usize, usize) -> Option<usize>,
    ) -> Result<PlaceTable> {
        let (places, windows) = (size.iter().product(), output.iter().product());
        let mut at = vec![-1i64; places * windows];
        for w in 0..windows {
            let o = unravel(w, output);
            let mut first = None;
            for k in 0..places {
                let kk = unravel(k, size);
                let lens = (place(0, o[0], kk[0]), place(1, o[1], kk[1]), place(2, o[2], kk[2]));
                if let (Some(a), Some(b), Some(c)) = lens {
                    let i = ((a * input[1] + b) * input[2] + c) as i64;
                    first = first.or(Some(i));
                    at[k * windows + w] = i;
                }
            }
            let Some(first) = first else {
                return Err(Error::misuse("a window sees nothing but padding, of which there is no largest"));
            };
            (0..places)
                .map(|k| k * windows + w)
                .filter(|&i| at[i] < 0)
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|i| at[i] = first);
        }
        Ok(PlaceTable { places, windows, at })
    }

    fn of_window(w: &Window) -> Result<PlaceTable> {
        let place = |d: usize, o: usize, k: usize| {
            (o * w.stride[d] + k * w.dilation[d]).checked_sub(w.before[d]).filter(|&i| i < w.input[d])
        };
        PlaceTable::of(w.input, w.output, w.size, place)
    }

    /// The largest of each window of x `[n, c, input..]`, and where it was: `[n, c, windows]` both.
    pub(super) fn largest(self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (n, c) = (x.dims()[0], x.dims()[1]);
        let flat = x.try_reshape([n, c, x.dims()[2..].iter().product()])?;
        let table = Tensor::try_from_vec(self.at, [self.places, self.windows], x.device())?;
        let seen = flat.detach().try_index_select(2, &table)?; // [n, c, places, windows]
        let place = seen.try_argmax(2, true)?;
        let at = table.try_expand([n, c, self.places, self.windows])?.try_gather(2, &place)?.try_reshape([
            n,
            c,
            self.windows,
        ])?;
        Ok((flat.try_gather(2, &at)?, at))
    }
}

/// The row-major index of place `i`.
fn unravel(i: usize, lens: [usize; 3]) -> [usize; 3] {
    [i / (lens[1] * lens[2]), i / lens[2] % lens[1], i % lens[2]]
}

impl MaxPool {
    /// The dtype of the places in a window that a fused kernel keeps.
    pub fn places_dtype(window: &Window) -> DType {
        if window.places() <= 256 { DType::U8 } else { DType::I32 }
    }
}

impl Composite for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let w = &self.window;
        check_input(&x[0], w.rank, w.input)?;
        if let Some(d) = (0..w.rank).find(|&d| w.is_blind(d)) {
            return Err(Error::misuse(format!(
                "a window of {} places on spatial dimension {d} of length {} sees nothing but padding, of which there is no largest",
                w.size[d], w.input[d]
            )));
        }
        let shape = w.output_shape(x[0].shape[0], x[0].shape[1])?;
        let mut metas = one(x[0].dtype, shape);
        if self.indices {
            metas.push(Meta::new(DType::I64, shape));
        }
        Ok(metas)
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let shape = self.window.output_shape(x[0].dims()[0], x[0].dims()[1])?;
        let (values, at) = PlaceTable::of_window(&self.window)?.largest(x[0])?;
        let mut outputs: Tensors = smallvec![values.try_reshape(shape)?];
        if self.indices {
            outputs.push(at.try_reshape(shape)?);
        }
        Ok(outputs)
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING // the places are enough
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let places = cx.aux(0)?;
        Some(smallvec![Tensor::compose(MaxPoolGrad(self.window), &[&cx.grad(), &places]).pop()])
    }
}

impl Composite for MaxPoolGrad {
    fn name(&self) -> &'static str {
        "max_pool_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check_input(&x[0], self.0.rank, self.0.output)?;
        if x[1].shape != x[0].shape || x[1].dtype != MaxPool::places_dtype(&self.0) {
            return Err(Error::misuse(format!(
                "places of {} {} would fit",
                MaxPool::places_dtype(&self.0),
                x[0].shape
            )));
        }
        Ok(one(x[0].dtype, self.0.input_shape(x[0].shape[0], x[0].shape[1])?))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (n, c) = (x[0].dims()[0], x[0].dims()[1]);
        let table = PlaceTable::of_window(&self.0)?;
        let (places, windows) = (table.places, table.windows);
        let place = x[1].try_to_dtype(DType::I64)?.try_reshape([n, c, 1, windows])?;
        let table = Tensor::try_from_vec(table.at, [places, windows], x[0].device())?;
        let at = table.try_expand([n, c, places, windows])?.try_gather(2, &place)?.try_reshape([n, c, windows])?;
        let zeros = Tensor::try_zeros([n, c, self.0.input.iter().product()], x[0].place())?;
        let dx = zeros.try_scatter_add(2, &at, &x[0].try_reshape([n, c, windows])?)?;
        Ok(smallvec![dx.try_reshape(self.0.input_shape(n, c)?)?])
    }
}

impl AvgPool {
    /// By how many places window `o` of dimension `d` is divided.
    pub fn divisor(&self, d: usize, o: usize) -> usize {
        let w = &self.window;
        let start = o * w.stride[d];
        let end = (start + w.size[d]).min(w.before[d] + w.input[d] + self.after[d]);
        let (start, end) =
            if self.count_padding { (start, end) } else { (start.max(w.before[d]), end.min(w.before[d] + w.input[d])) };
        end.saturating_sub(start).max(1)
    }

    /// One over the places of each window, `[output..]`.
    fn scale(&self, like: &Tensor) -> Result<Tensor> {
        let w = &self.window;
        let at = |i| unravel(i, w.output);
        let scale: Vec<f64> = (0..w.windows())
            .map(|i| 1.0 / (0..w.rank).map(|d| self.divisor(d, at(i)[d])).product::<usize>() as f64)
            .collect();
        let place = like.place();
        let shape = Shape::try_new(&w.output[..w.rank])?;
        if place.dtype == DType::F64 {
            return Tensor::try_from_vec(scale, shape, place.device);
        }
        Tensor::try_from_vec(scale.into_iter().map(|s| s as f32).collect(), shape, place.device)?
            .try_to_dtype(place.dtype)
    }
}

impl Composite for AvgPool {
    fn name(&self) -> &'static str {
        "avg_pool"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check_input(&x[0], self.window.rank, self.window.input)?;
        Ok(one(x[0].dtype, self.window.output_shape(x[0].shape[0], x[0].shape[1])?))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let dims: Vec<isize> = (2..2 + self.window.rank as isize).collect();
        Ok(smallvec![self.window.unfold(x[0])?.try_sum_dims(&dims, false)?.try_mul(&self.scale(x[0])?)?])
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        Some(smallvec![Tensor::compose(AvgPoolGrad(*self), &[&cx.grad()]).pop()])
    }
}

impl Composite for AvgPoolGrad {
    fn name(&self) -> &'static str {
        "avg_pool_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let w = &self.0.window;
        check_input(&x[0], w.rank, w.output)?;
        Ok(one(x[0].dtype, w.input_shape(x[0].shape[0], x[0].shape[1])?))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let w = &self.0.window;
        let g = x[0].try_mul(&self.0.scale(x[0])?)?;
        let (ones, n, c) = ([1; 3], g.dims()[0], g.dims()[1]);
        let flat = g.try_reshape([&[n, c], &ones[..w.rank], &w.output[..w.rank]].concat())?;
        let columns = flat.try_expand([&[n, c], &w.size[..w.rank], &w.output[..w.rank]].concat())?;
        Ok(smallvec![w.fold(&columns)?])
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        Some(smallvec![Tensor::compose(self.0, &[&cx.grad()]).pop()])
    }
}
