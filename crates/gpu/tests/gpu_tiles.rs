//! Products and convolutions cut in every way that a table of strategies may ask for: the same bits, and those are right.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

mod adapter;

use adapter::{devices, turn};
use gradus_core::functional::convolution::ConvOptions;
use gradus_core::tensor::to_device;
use gradus_core::{DType, Device, Key, Result, Tensor};
use gradus_gpu::strategies::{Strategies, set_strategies, strategies};

/// The same normal numbers on every device.
fn normal(shape: &[usize], name: &str, device: Device, dtype: DType) -> Result<Tensor> {
    let x = Tensor::try_randn(shape, gradus_cpu::device(), Key::new(5).fold(name))?;
    to_device(&x.try_to_dtype(dtype)?, device)
}

/// A convolution and its gradients; `x` and the weight have one to three spatial dimensions.
fn convolution(x: &Tensor, w: &Tensor, options: &ConvOptions) -> Result<Vec<Tensor>> {
    let (x, w) = (x.detach().requires_grad(), w.detach().requires_grad());
    let y = match x.rank() {
        3 => x.try_conv1d(&w, None, options)?,
        4 => x.try_conv2d(&w, None, options)?,
        _ => x.try_conv3d(&w, None, options)?,
    };
    y.try_mul(&y)?.try_sum()?.try_backward()?;
    Ok([Some(y.detach()), x.grad(), w.grad()].into_iter().flatten().collect())
}

/// What is cut in tiles, with lengths on both sides of 16, 32, 64 and 128 and sums that end in the middle of four and of sixteen.
fn results(device: Device, dtype: DType) -> Result<Vec<Tensor>> {
    let make = |shape: &[usize], name: &str| normal(shape, name, device, dtype);
    let mut all = Vec::new();
    for [m, k, n] in [[1, 1, 1], [15, 17, 33], [64, 66, 31], [70, 5, 66], [70, 5, 129], [130, 18, 40], [32, 40, 16]] {
        let (a, b) = (make(&[2, m, k], "a")?, make(&[n, k], "b")?);
        all.push(a.try_matmul(&b.try_transpose(0, 1)?)?);
    }
    let plain = ConvOptions::default();
    let options = [plain, plain.padding(1), plain.stride(2).padding(1), plain.dilation(2)];
    for [channels, outputs] in [[1, 20], [18, 33], [33, 70]] {
        for options in &options {
            let (x, w) = (make(&[2, channels, 9, 7], "x")?, make(&[outputs, channels, 3, 3], "w")?);
            all.extend(convolution(&x, &w, options)?);
        }
    }
    let (x, w) = (make(&[3, 6, 21], "line")?, make(&[40, 6, 4], "w")?);
    all.extend(convolution(&x, &w, &plain.stride(3))?);
    let (x, w) = (make(&[2, 5, 4, 5, 6], "box")?, make(&[19, 5, 2, 3, 2], "w")?);
    all.extend(convolution(&x, &w, &plain.padding(1))?);
    let (x, w) = (make(&[2, 40, 6, 6], "groups")?, make(&[36, 20, 3, 3], "w")?);
    all.extend(convolution(&x, &w, &plain.groups(2).padding(1))?);
    Ok(all)
}

fn numbers(tensors: &[Tensor]) -> Result<Vec<Vec<f64>>> {
    tensors.iter().map(|t| to_device(t, gradus_cpu::device())?.try_to_dtype(DType::F64)?.to_vec()).collect()
}

#[test]
fn every_tile_gives_the_same_bits() -> Result<()> {
    let _turn = turn();
    for device in devices() {
        let right = numbers(&results(gradus_cpu::device(), DType::F64)?)?;
        let (_, usual) = strategies(device)?;
        let mut first: Option<Vec<Vec<f64>>> = None;
        for cube_side in [8, 16, 4] {
            let cut = Strategies { cube_side, product_tile_64: 127, ..usual }; // 4: without tiles of 128
            set_strategies(device, cut)?;
            let found = results(device, DType::F32).and_then(|r| numbers(&r));
            set_strategies(device, usual)?;
            let found = found?;
            for (i, (a, b)) in found.iter().zip(&right).enumerate() {
                let size = b.iter().fold(1.0f64, |m, v| m.max(v.abs()));
                let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(
                    a.len() == b.len() && worst <= 1e-5 * size,
                    "{device}, side {cube_side}, result {i}: off by {worst}"
                );
            }
            let same = first.get_or_insert_with(|| found.clone());
            let other = same.iter().zip(&found).position(|(a, b)| a != b);
            assert_eq!(other, None, "{device}: this result has other bits in cubes of side {cube_side} than of side 8");
        }
    }
    Ok(())
}
