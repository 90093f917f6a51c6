//! Convolutions of `f32`, which run by kernels of their own, against the definition in `f64`: results and all gradients, over
//! shapes that meet every edge of those kernels (odd lengths, padding, channels that fill no register, few and many images);
//! and the same bits for any number of threads.

use gradus_core::functional::convolution::ConvOptions;
use gradus_core::{Backward, DType, Tensor, by_definition, grad};

/// x, w, b, and a weight for each result.
fn tensors(x: &[usize], w: &[usize], options: &ConvOptions, transposed: bool) -> [Tensor; 4] {
    let cpu = gradus_cpu::device();
    let b = if transposed { w[1] * options.groups } else { w[0] };
    let [x, w, b] = [(x, 1), (w, 2), (&[b], 3)].map(|(shape, seed)| Tensor::randn(shape, cpu, seed));
    let y = run(&[x.clone(), w.clone(), b.clone()], options, transposed);
    let g = Tensor::randn(y.dims(), cpu, 4);
    [x, w, b, g]
}

fn run(x: &[Tensor], options: &ConvOptions, transposed: bool) -> Tensor {
    match (x[1].rank(), transposed) {
        (3, false) => x[0].conv1d(&x[1], Some(&x[2]), options),
        (3, true) => x[0].conv_transpose1d(&x[1], Some(&x[2]), options),
        (_, false) => x[0].conv2d(&x[1], Some(&x[2]), options),
        (_, true) => x[0].conv_transpose2d(&x[1], Some(&x[2]), options),
    }
}

/// y, and the gradients of Σ g·y.
fn with_gradients(t: &[Tensor; 4], options: &ConvOptions, transposed: bool) -> Vec<Tensor> {
    let leaves: Vec<Tensor> = t[..3].iter().map(Tensor::requires_grad).collect();
    let y = run(&leaves, options, transposed);
    let grads = grad(&[&(&y * &t[3]).sum()], &leaves.iter().collect::<Vec<_>>(), Backward::default());
    std::iter::once(y.detach()).chain(grads).collect()
}

fn numbers(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).to_vec().expect("numbers")
}

fn check(x: &[usize], w: &[usize], options: ConvOptions, transposed: bool) {
    let single = tensors(x, w, &options, transposed);
    let double = single.clone().map(|t| t.to_dtype(DType::F64));
    let got = gradus_cpu::with_threads(1, || with_gradients(&single, &options, transposed));
    let want = by_definition(|| with_gradients(&double, &options, transposed));
    for ((what, got), want) in ["y", "dx", "dw", "db"].into_iter().zip(&got).zip(&want) {
        assert_eq!(got.dims(), want.dims());
        let (got, want) = (numbers(got), numbers(want));
        let size = (want.iter().map(|v| v * v).sum::<f64>() / want.len() as f64).sqrt();
        let error = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // Sums of up to some thousand products of normal numbers, each rounded to 2⁻²⁴.
        let allowed = 1e-5 * size;
        assert!(error <= allowed, "x {x:?}, w {w:?}, {options:?}: {what} is off by {error:e}, beyond {allowed:e}");
    }
    for threads in [2, 5] {
        let again = gradus_cpu::with_threads(threads, || with_gradients(&single, &options, transposed));
        for (a, b) in again.iter().zip(&got) {
            let bits = |t: &Tensor| numbers(t).into_iter().map(f64::to_bits).collect::<Vec<_>>();
            assert!(bits(a) == bits(b), "x {x:?}, w {w:?}: {threads} threads gave other bits than one");
        }
    }
}

fn o() -> ConvOptions {
    ConvOptions::default()
}

#[test]
fn three_by_three_of_stride_one() {
    for (images, from, to, lens) in
        [(1, 8, 8, [3, 3]), (3, 16, 32, [8, 8]), (5, 20, 9, [7, 12]), (2, 33, 48, [9, 18]), (70, 8, 16, [4, 5])]
    {
        for padding in 0..3 {
            check(&[images, from, lens[0], lens[1]], &[to, from, 3, 3], o().padding(padding), false);
        }
    }
    // Enough places for the weight's gradient to go by tiles, too.
    for (images, from, to, lens) in [(6, 8, 16, [30, 29]), (3, 20, 9, [64, 33]), (70, 33, 24, [9, 8])] {
        check(&[images, from, lens[0], lens[1]], &[to, from, 3, 3], o().padding(1), false);
    }
    check(&[2, 16, 6, 9], &[24, 16, 3, 3], o().padding([2, 0]), false);
    check(&[3, 16, 6, 9], &[16, 24, 3, 3], o().padding(1), true);
}

/// Adam makes a whole step of the smallest rounding error: a residual network's losses were 1.6e-3 off PyTorch's after nine steps.
#[test]
fn weight_gradients_of_sparse_places_were_rounding_errors_instead_of_zeros() {
    let cpu = gradus_cpu::device();
    // Images are zero but for their left column, gradients but for their right one.
    let column =
        |at: i64| Tensor::arange(0i64, 2i64, 1i64, cpu).eq(&Tensor::full([1], at as f64, cpu)).to_dtype(DType::F32);
    let x = Tensor::randn([8, 32, 2, 2], cpu, 5) * column(0);
    let g = Tensor::randn([8, 32, 2, 2], cpu, 6) * column(1);
    let w = Tensor::randn([32, 32, 3, 3], cpu, 7).requires_grad();
    let y = x.conv2d(&w, None, &o().padding(1));
    let taps = numbers(&grad(&[&(&y * &g).sum()], &[&w], Backward::default())[0]);
    // A result to the right of what it sees: the taps of the middle and the right column never met.
    for (i, tap) in taps.iter().enumerate().filter(|(i, _)| i % 3 > 0) {
        assert_eq!(*tap, 0.0, "tap {i}");
    }
    assert!(taps.iter().step_by(3).all(|tap| *tap != 0.0));
}

#[test]
fn other_sizes_strides_and_few_channels() {
    for images in [1, 5] {
        check(&[images, 1, 12, 13], &[32, 1, 3, 3], o(), false);
        check(&[images, 3, 9, 8], &[16, 3, 3, 3], o().padding(1), false);
        check(&[images, 16, 9, 12], &[33, 16, 3, 3], o().stride(2).padding(1), false);
        check(&[images, 20, 8, 7], &[5, 20, 1, 1], o().stride(2), false);
        check(&[images, 17, 11, 10], &[40, 17, 5, 4], o().stride([3, 2]).padding([2, 1]).dilation([1, 2]), false);
        check(&[images, 7, 30], &[18, 7, 5], o().stride(2).padding(3).dilation(2), false);
        check(&[images, 18, 5, 6], &[18, 20, 4, 4], o().stride(2).padding(1), true);
        check(&[images, 6, 9], &[6, 3, 2], o().stride(3), true);
    }
}

#[test]
fn each_channel_by_itself() {
    for images in [1, 5] {
        for channels in [2, 16, 21, 40] {
            let w = [channels, 1, 3, 3];
            check(&[images, channels, 9, 8], &w, o().padding(1).groups(channels), false);
            check(&[images, channels, 10, 7], &w, o().padding(1).stride(2).groups(channels), false);
            // Rows as long as registers: planes stay as they are.
            check(&[images, channels, 9, 37], &w, o().padding(1).groups(channels), false);
            check(&[images, channels, 7, 16], &w, o().padding([0, 2]).groups(channels), true);
            check(&[images, channels, 5, 6], &w, o().stride(2).padding(1).groups(channels), true);
        }
        check(
            &[images, 19, 11, 13],
            &[19, 1, 5, 4],
            o().stride([3, 2]).padding([2, 1]).dilation([1, 2]).groups(19),
            false,
        );
        check(&[images, 5, 6, 20], &[5, 1, 5, 5], o().padding(2).groups(5), false);
        check(&[images, 3, 11, 35], &[3, 1, 7, 7], o().padding([3, 0]).groups(3), false);
        check(&[images, 3, 11, 18], &[3, 1, 2, 5], o().groups(3), false);
        check(&[images, 33, 30], &[33, 1, 7], o().stride(2).padding(3).dilation(2).groups(33), false);
        check(&[images, 6, 9], &[6, 1, 2], o().stride(3).groups(6), true); // places that no window reaches
        check(&[images, 17, 9, 9], &[34, 1, 3, 3], o().groups(17), false); // two results from each channel
    }
}
