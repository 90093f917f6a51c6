//! What is asked of several tensors at once: their norm, and whether all of their numbers are finite.

use crate::adapter::{devices, turn};
use crate::{agrees, normal};
use gradus_core::functional::global_norm::GlobalNorm;
use gradus_core::{DType, Result, Tensor, by_definition};
use gradus_gpu::profile::profile;

#[test]
fn the_norm_of_several_tensors_is_its_definition() {
    let _turn = turn();
    for gpu in devices() {
        let x = [normal(&[3, 4], "a"), normal(&[20_000], "b"), normal(&[1], "c")];
        // All tensors, and their sum.
        for factor in [1.0, 0.03] {
            agrees(gpu, &format!("global_norm times {factor}"), &x, 2, false, &|x| {
                Ok(Tensor::try_compose(GlobalNorm { factor }, &x.iter().collect::<Vec<_>>())?.into_vec())
            });
        }
        // Squares that are no numbers of `f32`, but for the factor.
        let x = Tensor::full([2], 2f64.powi(100), gpu);
        let norm = Tensor::compose(GlobalNorm { factor: 2f64.powi(-100) }, &[&x]).swap_remove(0);
        assert_eq!(norm.item::<f32>().expect("the device works"), 2f32.sqrt());
    }
}

/// Sizes on both sides of a cube's chunk, more of them than a launch takes.
#[test]
fn a_number_that_is_not_finite_is_found_wherever_it_is() -> Result<()> {
    let _turn = turn();
    let sizes: Vec<usize> = [1, 255, 256, 257, 16_384, 16_385, 0, 40_000].into_iter().chain(1..14).collect();
    for gpu in devices() {
        for (dtype, largest) in [(DType::F32, f64::from(f32::MAX)), (DType::F16, 65504.0), (DType::Bf16, 3.38e38)] {
            if !gpu.backend().supports(dtype) {
                println!("{gpu} has no {dtype}");
                continue;
            }
            let place = gpu.with(dtype);
            let x: Vec<Tensor> = sizes.iter().map(|&n| Tensor::try_full([n], largest, place)).collect::<Result<_>>()?;
            let finite = |x: &[Tensor]| Tensor::try_all_finite(&x.iter().collect::<Vec<_>>())?.item::<bool>();
            let (all, counted) = profile(|| finite(&x));
            assert!(all?, "{dtype}: no number is infinite, though their sum is");
            let most = (gradus_gpu::strategies::bindings(gpu)? - 2).clamp(1, 16);
            let launches = (sizes.len() - 1).div_ceil(most) + 1;
            assert_eq!(counted.launches(), launches, "{counted}");
            for (at, &n) in sizes.iter().enumerate().filter(|(at, n)| **n > 0 && *at < 9) {
                for (i, bad) in [(0, f64::INFINITY), (n / 2, f64::NAN), (n - 1, f64::NEG_INFINITY)] {
                    let mut numbers = vec![-1.0; n];
                    numbers[i] = bad;
                    let mut x = x.clone();
                    x[at] = Tensor::try_from_vec(numbers, [n], gradus_cpu::device())?.try_to_dtype(dtype)?.to(gpu);
                    assert!(!finite(&x)?, "{bad} at {i} of {n} in {dtype} on {gpu}");
                    assert!(!by_definition(|| finite(&x))?, "by definition");
                }
            }
            // Of a view only what it shows.
            let mut numbers = vec![1.0; 60];
            numbers[59] = f64::NAN;
            let x = Tensor::try_from_vec(numbers, [6, 10], gradus_cpu::device())?.try_to_dtype(dtype)?.to(gpu);
            assert!(!finite(&[x.t()])? && finite(&[x.narrow(1, 0, 9).t()])?);
        }
    }
    Ok(())
}
