//! The fused kernels against the definitions of their composites, on the CPU in `f64`: outputs, gradients and second gradients, at
//! sizes on both sides of every tile; and that a device runs the kernel, in as many launches as it should, and no definition.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

#[path = "../adapter/mod.rs"]
mod adapter;

mod attention;
mod elementwise;
mod recurrent;
mod rows;
mod several;
mod table;

use gradus_core::tensor::to_device;
use gradus_core::{Backward, DType, Device, Key, Result, Tensor, autodiff, by_definition};
use gradus_gpu::profile::profile;

/// Numbers of a run, as `f64`: the outputs, the gradients, the second gradients.
pub(crate) type Numbers = Vec<Vec<f64>>;

/// What runs on every device.
pub(crate) type Case<'a> = &'a dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>;

/// A normal number for each place, the same everywhere.
pub(crate) fn normal(shape: &[usize], name: &str) -> Tensor {
    Tensor::randn(shape, gradus_cpu::device(), Key::new(17).fold(name))
}

pub(crate) fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    to_device(&x.detach(), gradus_cpu::device())?.try_to_dtype(DType::F64)?.to_vec()
}

/// Σ c·t with uneven weights c: a scalar to differentiate.
pub(crate) fn weighed(tensors: &[Tensor], float: DType) -> Result<Tensor> {
    let mut sum = Tensor::try_zeros((), tensors[0].device().with(float))?;
    for t in tensors {
        let weights: Vec<f64> = (0..t.elements()).map(|i| 0.25 + ((i * 37) % 11) as f64 / 8.0).collect();
        let weights = Tensor::try_from_vec(weights, *t.shape(), gradus_cpu::device())?.try_to_dtype(float)?;
        sum = sum.try_add(&t.try_mul(&to_device(&weights, t.device())?)?.try_sum()?)?;
    }
    Ok(sum)
}

pub(crate) fn run(x: &[Tensor], device: Device, float: DType, second: bool, f: Case<'_>) -> Result<Numbers> {
    let place = |t: &Tensor| -> Result<Tensor> {
        let t = if t.dtype().is_float() { t.try_to_dtype(float)? } else { t.clone() };
        let there = to_device(&t, device)?;
        Ok(if t.dtype().is_float() { there.requires_grad() } else { there })
    };
    let x = x.iter().map(place).collect::<Result<Vec<_>>>()?;
    let leaves: Vec<&Tensor> = x.iter().filter(|t| t.is_tracked()).collect();
    let y = f(&x)?;
    let first = autodiff::try_grad(&[&weighed(&y, float)?], &leaves, Backward::graph())?;
    let mut all: Vec<Tensor> = y.iter().chain(&first).cloned().collect();
    if second {
        let grads = autodiff::try_grad_allow_unused(&[&weighed(&first, float)?], &leaves, Backward::default())?;
        all.extend(grads.into_iter().flatten());
    }
    all.iter().map(numbers).collect()
}

/// The kernel's numbers lie within max(1e-5 · max(1, scale), 4 × the error of the definition in `f32`) of the definition in `f64`,
/// and its forward pass makes `launches` launches.
pub(crate) fn agrees(gpu: Device, name: &str, x: &[Tensor], launches: usize, second: bool, f: Case<'_>) {
    let cpu = gradus_cpu::device();
    let defined = |float| by_definition(|| run(x, cpu, float, second, f)).expect("the definition runs");
    let (exact, narrow) = (defined(DType::F64), defined(DType::F32));
    let got = run(x, gpu, DType::F32, second, f).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(got.len(), exact.len(), "{name}");
    for (part, ((got, narrow), exact)) in got.iter().zip(&narrow).zip(&exact).enumerate() {
        assert_eq!(got.len(), exact.len(), "{name}: the size of result {part}");
        let scale = exact.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, ((g, n), e)) in got.iter().zip(narrow).zip(exact).enumerate() {
            let room = (1e-5 * scale).max(4.0 * (n - e).abs());
            assert!((g - e).abs() <= room, "{name}, result {part}, element {i}: {g} on {gpu}, {n} in f32, {e} exactly");
        }
    }
    let there: Vec<Tensor> = x.iter().map(|t| t.to(gpu)).collect();
    let (_, profile) = profile(|| f(&there).expect("it runs"));
    assert_eq!(profile.launches(), launches, "{name}: launches of the forward pass\n{profile}");
}
