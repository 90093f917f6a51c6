//! Sample inputs of the catalog's cases: a pure function of the case's place in the catalog and a seed.

use gradus_core::catalog::{Case, Fill, Input};
use gradus_core::rng::{Key, uniform};
use gradus_core::tensor::{permutation, to_device};
use gradus_core::{DType, Device, Result, Shape, Tensor};

/// The elements of an input, as `f64`.
pub fn elements(input: &Input, key: &Key) -> Vec<f64> {
    let n: usize = input.shape.iter().product();
    let word = |i: usize| key.block(i as u32 / 4)[i % 4];
    // 32 bits each, and never the very ends of the range.
    let unit = |i: usize| (f64::from(word(i)) + 0.5) / 4_294_967_296.0;
    let between = |lo: f64, hi: f64, u: f64| lo + (hi - lo) * u;
    match input.fill {
        Fill::Real(lo, hi) => (0..n).map(|i| between(lo, hi, unit(i))).collect(),
        Fill::Zeros(lo, hi) => (0..n).map(|i| if i % 3 == 1 { 0.0 } else { between(lo, hi, unit(i)) }).collect(),
        Fill::Spread(lo, hi) => {
            // The middles of n equal steps, a little off them, in random order.
            let off = (f64::from(uniform(word(n))) - 0.5) * 0.4;
            permutation(n, &key.fold("order"))
                .into_iter()
                .map(|i| between(lo, hi, (i as f64 + 0.5 + off) / n as f64))
                .collect()
        }
        Fill::Int(lo, hi) => {
            (0..n).map(|i| (lo + (f64::from(word(i)) / 4_294_967_296.0 * (hi - lo) as f64) as i64) as f64).collect()
        }
        Fill::Bool => (0..n).map(|i| f64::from(word(i) & 1)).collect(),
    }
}

/// A tensor of a dtype with these elements. They are rounded on the CPU: other devices may have no `f64`.
pub fn tensor(data: &[f64], shape: &[usize], dtype: DType, device: Device) -> Result<Tensor> {
    let here = Tensor::try_from_vec(data.to_vec(), Shape::try_new(shape)?, gradus_cpu::device())?;
    to_device(&here.try_to_dtype(dtype)?, device)
}

/// The inputs of a case, floating-point ones in `float`.
pub fn inputs(case: &Case, float: DType, key: &Key, device: Device) -> Result<Vec<Tensor>> {
    let make = |(i, input): (usize, &Input)| {
        tensor(&elements(input, &key.fold_in(i as u64)), &input.shape, input.fill.dtype(float), device)
    };
    case.inputs.iter().enumerate().map(make).collect()
}

/// Numbers between −1 and 1 of the same shape and dtype: a direction, or an output's gradient.
pub fn direction(like: &Tensor, key: &Key) -> Result<Tensor> {
    let input = Input { shape: like.dims().to_vec(), fill: Fill::Real(-1.0, 1.0) };
    tensor(&elements(&input, key), like.dims(), like.dtype(), like.device())
}

/// The case with other shapes.
pub fn reshaped(case: &Case, shape: impl Fn(usize, &[usize]) -> Vec<usize>) -> Case {
    let inputs =
        case.inputs.iter().enumerate().map(|(i, x)| Input { shape: shape(i, &x.shape), fill: x.fill }).collect();
    Case { inputs, ..case.clone() }
}
