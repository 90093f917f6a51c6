//! Windows that slide over one, two or three spatial dimensions: the geometry that convolution and pooling share.
//!
//! A tensor is `[batch, channels, spatial..]`. Unused dimensions of a [`Window`] have length 1, so a kernel may always loop
//! over three. [`Window::unfold`] and [`Window::fold`] are each other's adjoints, and made of differentiable ops.

use crate::error::{Error, Result};
use crate::ops::{PadMode, Put, ViewSpec};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Lengths for each spatial dimension, or one for all: what strides, paddings, dilations and kernel sizes are given as.
///
/// Made from a number or an array: `2.into()`, `[1, 2].into()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PerDim {
    lens: [usize; 3],
    /// How many were given; 1 stands for all dimensions. A number beyond 3 is refused when the lengths are used.
    count: usize,
}

impl From<usize> for PerDim {
    fn from(n: usize) -> PerDim {
        PerDim { lens: [n; 3], count: 1 }
    }
}
impl From<&[usize]> for PerDim {
    fn from(lens: &[usize]) -> PerDim {
        if let [n] = lens {
            return (*n).into();
        }
        let mut p = PerDim { lens: [0; 3], count: lens.len() };
        p.lens.iter_mut().zip(lens).for_each(|(a, b)| *a = *b);
        p
    }
}
impl<const N: usize> From<[usize; N]> for PerDim {
    fn from(lens: [usize; N]) -> PerDim {
        PerDim::from(&lens[..])
    }
}

impl PerDim {
    /// The lengths of `rank` spatial dimensions; the unused ones get `unused`. `what` names them in errors.
    pub fn lens(&self, what: &str, rank: usize, unused: usize) -> Result<[usize; 3]> {
        if self.count != 1 && self.count != rank {
            let given = &self.lens[..self.count.min(3)];
            return Err(Error::misuse(format!(
                "{what} is given for {} dimensions {given:?}, but there are {rank} spatial ones",
                self.count
            )));
        }
        Ok(std::array::from_fn(|d| if d < rank { self.lens[d] } else { unused }))
    }
}

/// Windows over up to three spatial dimensions: window `o` of dimension `d` sees the places
/// `o·stride − before + k·dilation` for `k` below `size`; what lies outside the input is padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Number of spatial dimensions, 1 to 3.
    pub rank: usize,
    /// The input's spatial lengths.
    pub input: [usize; 3],
    /// How many windows there are in each dimension.
    pub output: [usize; 3],
    /// Places in a window.
    pub size: [usize; 3],
    /// The distance of neighbouring windows.
    pub stride: [usize; 3],
    /// How far the first window begins before the input.
    pub before: [usize; 3],
    /// The distance of neighbouring places of a window.
    pub dilation: [usize; 3],
}

/// (size − 1)·dilation + 1 in each dimension, or an error if a stride, dilation or size is 0 or a number overflows.
fn checked_spans(size: [usize; 3], stride: [usize; 3], dilation: [usize; 3], rank: usize) -> Result<[usize; 3]> {
    for (what, lens) in [("a stride", stride), ("a dilation", dilation), ("a kernel size", size)] {
        if lens[..rank].contains(&0) {
            return Err(Error::misuse(format!("{what} of 0 is no window: {:?}", &lens[..rank])));
        }
    }
    let mut spans = [1; 3];
    for d in 0..rank {
        let span =
            (size[d] - 1).checked_mul(dilation[d]).and_then(|n| n.checked_add(1)).filter(|&n| n < usize::MAX / 4);
        spans[d] = span.ok_or_else(|| {
            Error::misuse(format!("a window of {} places {} apart is too long", size[d], dilation[d]))
        })?;
    }
    Ok(spans)
}

/// The spatial lengths of `[batch, channels, spatial..]`, with 1 for the unused ones.
pub(crate) fn spatial(shape: &Shape) -> [usize; 3] {
    std::array::from_fn(|d| shape.get(2 + d).copied().unwrap_or(1))
}

/// The geometry before the number of windows is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub rank: usize,
    pub size: [usize; 3],
    pub stride: [usize; 3],
    pub before: [usize; 3],
    pub after: [usize; 3],
    pub dilation: [usize; 3],
}

impl Geometry {
    /// As many windows as fit into the padded input; in `ceil` mode one more, where places are left over, if it begins before
    /// the padding at the end.
    pub(crate) fn over(self, input: [usize; 3], ceil: bool) -> Result<Window> {
        let Geometry { rank, size, stride, before, after, dilation } = self;
        let spans = checked_spans(size, stride, dilation, rank)?;
        let mut output = [1; 3];
        for d in 0..rank {
            let padded =
                input[d].checked_add(before[d]).and_then(|n| n.checked_add(after[d])).filter(|&n| n < usize::MAX / 4);
            let padded = padded
                .ok_or_else(|| Error::misuse(format!("padding of {} and {} is too long", before[d], after[d])))?;
            if spans[d] > padded {
                return Err(Error::misuse(format!(
                    "a window of {} places does not fit spatial dimension {d} of length {} with padding {} and {}",
                    spans[d], input[d], before[d], after[d]
                )));
            }
            let room = padded - spans[d];
            output[d] = if ceil { room.div_ceil(stride[d]) } else { room / stride[d] } + 1;
            if ceil && (output[d] - 1) * stride[d] >= input[d] + before[d] {
                output[d] -= 1;
            }
        }
        Ok(Window { rank, input, output, size, stride, before, dilation })
    }

    /// The geometry whose adjoint gives `extra` more places at the end than `output` windows reach: a transposed convolution.
    pub(crate) fn under(self, output: [usize; 3], extra: [usize; 3]) -> Result<Window> {
        let Geometry { rank, size, stride, before, after, dilation } = self;
        let spans = checked_spans(size, stride, dilation, rank)?;
        let mut input = [1; 3];
        for d in 0..rank {
            if extra[d] >= stride[d].max(dilation[d]) && extra[d] > 0 {
                return Err(Error::misuse(format!(
                    "an output padding of {} must be less than the stride {} or the dilation {}",
                    extra[d], stride[d], dilation[d]
                )));
            }
            let reach = output[d]
                .checked_sub(1)
                .and_then(|n| n.checked_mul(stride[d]))
                .and_then(|n| n.checked_add(spans[d] + extra[d]));
            input[d] = reach
                .and_then(|n| n.checked_sub(before[d] + after[d]))
                .filter(|&n| n > 0 && n < usize::MAX / 4)
                .ok_or_else(|| {
                    Error::misuse(format!(
                        "spatial dimension {d} of length {} gives a result without places",
                        output[d]
                    ))
                })?;
        }
        Ok(Window { rank, input, output, size, stride, before, dilation })
    }
}

impl Window {
    /// (size − 1)·dilation + 1: how far a window reaches.
    pub fn span(&self, d: usize) -> usize {
        (self.size[d] - 1) * self.dilation[d] + 1
    }
    /// Places in a window, over all dimensions.
    pub fn places(&self) -> usize {
        self.size.iter().product()
    }
    /// Number of windows, over all dimensions.
    pub fn windows(&self) -> usize {
        self.output.iter().product()
    }
    /// The shape `[batch, channels, input..]`.
    pub fn input_shape(&self, batch: usize, channels: usize) -> Result<Shape> {
        Shape::try_new(&[&[batch, channels], &self.input[..self.rank]].concat())
    }
    /// The shape `[batch, channels, output..]`.
    pub fn output_shape(&self, batch: usize, channels: usize) -> Result<Shape> {
        Shape::try_new(&[&[batch, channels], &self.output[..self.rank]].concat())
    }
    /// Whether each window is one place, and they cover the input one by one.
    pub fn is_pointwise(&self) -> bool {
        self.size == [1; 3] && self.stride == [1; 3] && self.before == [0; 3] && self.input == self.output
    }

    /// Whether some window of dimension `d` sees nothing but padding.
    pub(crate) fn is_blind(&self, d: usize) -> bool {
        let place = |o: usize, k: usize| (o * self.stride[d] + k * self.dilation[d]).checked_sub(self.before[d]);
        let sees = |o: usize| (0..self.size[d]).any(|k| place(o, k).is_some_and(|i| i < self.input[d]));
        // Windows that begin inside the input see its first place.
        let early = (0..self.output[d]).take_while(|&o| place(o, 0).is_none());
        early.chain(self.output[d].checked_sub(1)).any(|o| !sees(o))
    }

    /// How long a dimension is from the first window's first place to the last one's last.
    fn needed(&self, d: usize) -> usize {
        self.output[d].saturating_sub(1) * self.stride[d] + self.span(d)
    }
    /// How long it is if it also covers the input.
    fn total(&self, d: usize) -> usize {
        self.needed(d).max(self.before[d] + self.input[d])
    }

    /// What each place of the windows sees: `[n, c, input..] → [n, c, size.., output..]`, with zeros as padding.
    pub fn unfold(&self, x: &Tensor) -> Result<Tensor> {
        let r = self.rank;
        let amounts: Vec<(isize, isize)> = (0..r)
            .map(|d| (self.before[d] as isize, (self.total(d) - self.before[d] - self.input[d]) as isize))
            .collect();
        let mut x =
            if amounts.iter().all(|a| *a == (0, 0)) { x.clone() } else { x.try_pad(&amounts, PadMode::Constant(0.0))? };
        for d in 0..r {
            x = x.try_narrow(2 + d as isize, 0, self.needed(d))?.try_unfold(
                2 + d as isize,
                self.span(d),
                self.stride[d],
            )?;
            x = x.try_slice(-1, None, None, self.dilation[d] as isize)?;
        }
        // [n, c, output.., size..] → [n, c, size.., output..]
        let order: Vec<isize> =
            [0, 1].into_iter().chain(2 + r..2 + 2 * r).chain(2..2 + r).map(|d| d as isize).collect();
        x.try_permute(&order)
    }

    /// The adjoint of [`unfold`](Self::unfold): each place of the input gets the sum of what the windows hold for it.
    pub fn fold(&self, columns: &Tensor) -> Result<Tensor> {
        let r = self.rank;
        let order: Vec<isize> =
            [0, 1].into_iter().chain(2 + r..2 + 2 * r).chain(2..2 + r).map(|d| d as isize).collect();
        let mut x = columns.try_permute(&order)?; // [n, c, output.., size..]
        for d in (0..r).rev() {
            let last = x.rank() - 1;
            if self.dilation[d] > 1 {
                let spec = ViewSpec::Slice { dim: last, start: 0, len: self.size[d], step: self.dilation[d] as isize };
                x = Tensor::try_apply1(Put { spec, shape: x.shape().with(last, self.span(d)) }, &[&x])?;
            }
            let spec = ViewSpec::Unfold { dim: 2 + d, size: self.span(d), step: self.stride[d] };
            x = Tensor::try_apply1(Put { spec, shape: x.shape().without(last).with(2 + d, self.needed(d)) }, &[&x])?;
        }
        let amounts: Vec<(isize, isize)> = (0..r).map(|d| (0, (self.total(d) - self.needed(d)) as isize)).collect();
        if amounts.iter().any(|a| *a != (0, 0)) {
            x = x.try_pad(&amounts, PadMode::Constant(0.0))?;
        }
        for d in 0..r {
            x = x.try_narrow(2 + d as isize, self.before[d], self.input[d])?;
        }
        Ok(x)
    }
}

/// `x` with a batch of one, if it has no batch dimension; and whether it had one.
pub(crate) fn batched(x: &Tensor, rank: usize, op: &'static str) -> Result<(Tensor, bool)> {
    match x.rank() {
        r if r == rank + 2 => Ok((x.clone(), true)),
        r if r == rank + 1 => Ok((x.try_unsqueeze(0)?, false)),
        r => Err(Error::misuse(format!(
            "needs an input [batch, channels, {rank} spatial dimensions], or one without the batch; got {r} dimensions"
        ))
        .in_op(op, [(x.dtype(), *x.shape())])),
    }
}
