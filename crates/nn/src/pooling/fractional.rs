//! Fractional max pooling (Graham, 2014): windows that lie at random, so that lengths shrink by any factor.

use crate::layer::layer;
use crate::{Cx, Module, Site, State};
use gradus_core::error::or_raise;
use gradus_core::functional::window::PerDim;
use gradus_core::{Error, Result, Tensor};

/// How long the output is.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Output {
    Lens(PerDim),
    /// ⌊L·ratio⌋
    Ratio([f64; 3]),
}

macro_rules! fractional_pools {
    ($($t:ident, $rank:literal, $shape:literal, $order:expr;)*) => {$(
        #[doc = concat!("The largest of each of so many windows of `", $shape, "` (or without the batch), which begin at pseudo-random places, other ones for each image and channel. In PyTorch: `torch.nn.", stringify!($t), "`.")]
        ///
        /// With a draw u of a dimension, window i of n begins at ⌊(i + u)·α⌋ − ⌊u·α⌋ for α = (L − kernel)/(n − 1), the last one at
        /// L − kernel. The draws are pure functions of (seed, step, the layer's path, call), also outside training, as in PyTorch.
        /// Places are found on the host: each call reads its draws back.
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, Layer, ", stringify!($t), "};")]
        #[doc = concat!("let x = Tensor::zeros(&[[2, 3].to_vec(), vec![9; ", stringify!($rank), "]].concat(), gradus_cpu::device());")]
        #[doc = concat!("let y = ", stringify!($t), "::new(2, 5).call(&x, &Cx::train(0, 0));")]
        #[doc = concat!("assert_eq!(y.dims()[2..], [5; ", stringify!($rank), "]);")]
        /// ```
        #[derive(Module, Clone, Debug)]
        pub struct $t {
            kernel: PerDim,
            #[module(skip)]
            output: Output,
            /// Draws in [0, 1) to use in place of random ones, `[batch, channels, spatial dimensions]`.
            #[module(rename = "_random_samples")]
            pub samples: Option<State>,
            site: Site,
        }
        impl $t {
            /// So many windows of `kernel` places.
            pub fn new(kernel: impl Into<PerDim>, output: impl Into<PerDim>) -> $t {
                $t { kernel: kernel.into(), output: Output::Lens(output.into()), samples: None, site: Site::default() }
            }
            /// Windows of `kernel` places; a length L becomes ⌊L·ratio⌋.
            pub fn with_ratio(kernel: impl Into<PerDim>, ratio: [f64; $rank]) -> $t {
                let mut all = [1.0; 3];
                all[..$rank].copy_from_slice(&ratio);
                $t { kernel: kernel.into(), output: Output::Ratio(all), samples: None, site: Site::default() }
            }
            /// With these draws in [0, 1), `[batch, channels, spatial dimensions]`, in place of random ones.
            pub fn samples(mut self, samples: Tensor) -> $t {
                self.samples = Some(State::new(samples));
                self
            }
            /// The largest of each window, and their places in the input (counted row-major over the spatial dimensions; `i64`).
            /// Panics at the caller's line if the input does not fit. In PyTorch: `return_indices=True`.
            #[track_caller]
            pub fn with_indices(&self, x: &Tensor, cx: &Cx) -> (Tensor, Tensor) {
                let _scope = cx.enter(self);
                or_raise(self.run(x, cx))
            }
            #[track_caller]
            fn run(&self, x: &Tensor, cx: &Cx) -> Result<(Tensor, Tensor)> {
                if x.rank() != $rank + 1 && x.rank() != $rank + 2 {
                    let message = concat!("needs an input `", $shape, "`, or without the batch").replace('`', "");
                    return Err(Error::misuse(message).in_op("fractional_max_pool", [(x.dtype(), *x.shape())]));
                }
                let (input, planes) = (&x.dims()[x.rank() - $rank..], x.dims()[..x.rank() - $rank].iter().product());
                let output = self.output.of(input)?;
                let kernel = self.kernel.lens("the kernel", $rank, 1)?;
                let samples = match &self.samples {
                    Some(samples) => samples.value(),
                    None => Tensor::try_rand([planes, $rank], x.device(), cx.key(self.site.stream()))?,
                };
                let order: [usize; $rank] = $order;
                let places = places(&samples, planes, input, &output, &kernel[..$rank], &order)?;
                pooled(x, &places, input, &output, kernel[..$rank].iter().product())
            }
        }
        layer!($t, |self, x, cx| self.run(x, cx).map(|(y, _)| y));
    )*};
}
fractional_pools! {
    // PyTorch's draws of two dimensions belong to the width first.
    FractionalMaxPool2d, 2, "[batch, channels, height, width]", [1, 0];
    FractionalMaxPool3d, 3, "[batch, channels, depth, height, width]", [0, 1, 2];
}

impl Output {
    fn of(&self, input: &[usize]) -> Result<Vec<usize>> {
        Ok(match self {
            Output::Lens(lens) => lens.lens("the output", input.len(), 1)?[..input.len()].to_vec(),
            Output::Ratio(ratio) => input.iter().zip(ratio).map(|(&n, r)| (n as f64 * r) as usize).collect(),
        })
    }
}

/// Where each window of a dimension begins.
fn starts(u: f64, input: usize, output: usize, kernel: usize) -> Vec<usize> {
    let alpha = (input - kernel) as f64 / (output.max(2) - 1) as f64;
    let mut starts: Vec<usize> =
        (0..output).map(|i| ((i as f64 + u) * alpha) as usize - (u * alpha) as usize).collect();
    if let Some(last) = starts.last_mut() {
        *last = input - kernel;
    }
    starts
}

/// The places that each window of each plane sees, row-major: planes · windows · places of a window.
fn places(
    samples: &Tensor,
    planes: usize,
    input: &[usize],
    output: &[usize],
    kernel: &[usize],
    order: &[usize],
) -> Result<Vec<i64>> {
    let rank = input.len();
    if samples.elements() < planes * rank {
        return Err(Error::misuse(format!(
            "{} draws do not suit {planes} planes of {rank} dimensions",
            samples.shape()
        )));
    }
    if let Some(d) = (0..rank).find(|&d| output[d] == 0 || output[d] + kernel[d] > input[d] + 1 || kernel[d] == 0) {
        let (n, k, l) = (output[d], kernel[d], input[d]);
        return Err(Error::misuse(format!("{n} windows of {k} places do not fit spatial dimension {d} of length {l}")));
    }
    let draws: Vec<f64> = samples.to_vec()?;
    let mut all = Vec::new();
    for plane in 0..planes {
        let at = |d: usize| starts(draws[plane * rank + order[d]], input[d], output[d], kernel[d]);
        let starts: Vec<Vec<usize>> = (0..rank).map(at).collect();
        for_each(output, &mut |window| {
            for_each(kernel, &mut |place| {
                let flat = (0..rank).fold(0, |flat, d| flat * input[d] + starts[d][window[d]] + place[d]);
                all.push(flat as i64);
            });
        });
    }
    Ok(all)
}

/// Calls `f` with every index of an array of these lengths, row-major.
fn for_each(lens: &[usize], f: &mut dyn FnMut(&[usize])) {
    let mut at = vec![0; lens.len()];
    for _ in 0..lens.iter().product() {
        f(&at);
        for d in (0..lens.len()).rev() {
            at[d] += 1;
            if at[d] < lens[d] {
                break;
            }
            at[d] = 0;
        }
    }
}

fn pooled(x: &Tensor, places: &[i64], input: &[usize], output: &[usize], size: usize) -> Result<(Tensor, Tensor)> {
    let lead = &x.dims()[..x.rank() - input.len()];
    let (planes, windows): (usize, usize) = (lead.iter().product(), output.iter().product());
    let index = Tensor::try_from_vec(places.to_vec(), [planes, windows * size], x.device())?;
    let flat = x.try_reshape([planes, input.iter().product::<usize>()])?;
    let seen = flat.try_gather(1, &index)?.try_reshape([planes, windows, size])?;
    let (y, at) = seen.try_max_dim(-1, true)?;
    let at = index.try_reshape([planes, windows, size])?.try_gather(-1, &at)?;
    let shape = [lead, output].concat();
    Ok((y.try_reshape(&shape)?, at.try_reshape(&shape)?))
}
