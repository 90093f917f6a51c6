//! The CPU backend end to end: a few ops, gradients, a captured step.

use gradus_core::capture::Captured;
use gradus_core::{Backward, DType, Tensor, grad};

fn v(t: &Tensor) -> Vec<f64> {
    t.to_vec().expect("a read-back")
}

#[test]
fn ops_and_gradients_agree_with_hand_computed_numbers() {
    let cpu = gradus_cpu::device();
    let x = Tensor::from_vec(vec![1f64, 2., 3., 4., 5., 6.], [2, 3], cpu).requires_grad();
    let w = Tensor::from_vec(vec![1f64, 0., -1.], [3, 1], cpu).requires_grad();
    let y = x.matmul(&w).square().sum();
    assert_eq!(y.item::<f64>().ok(), Some(8.0));
    y.backward();
    assert_eq!(v(&x.grad().expect("a gradient")), [-4., 0., 4., -4., 0., 4.]);
    assert_eq!(v(&w.grad().expect("a gradient")), [-20., -28., -36.]);
    let z = Tensor::from_vec(vec![2f64], [1], cpu).requires_grad();
    let cube = z.powf(3.0).sum();
    let first = grad(&[&cube], &[&z], Backward::graph()).swap_remove(0);
    let second = grad(&[&first.sum()], &[&z], Backward::graph()).swap_remove(0);
    let third = grad(&[&second.sum()], &[&z], Backward::default()).swap_remove(0);
    assert_eq!((v(&first)[0], v(&second)[0], v(&third)[0]), (12.0, 12.0, 6.0));
}

#[test]
fn a_reduction_has_the_same_bits_for_any_number_of_threads() {
    let cpu = gradus_cpu::device();
    let x = Tensor::randn([517, 1203], cpu, 3);
    let run = |n| {
        gradus_cpu::with_threads(n, || {
            [
                x.sum().to_bytes(),
                x.sum_dims(&[0], false).to_bytes(),
                x.mean_dims(&[1], false).to_bytes(),
                x.t().sum_dims(&[0], false).to_bytes(),
            ]
            .map(|r| r.expect("a read-back"))
        })
    };
    assert_eq!(run(1), run(2));
    assert_eq!(run(1), run(8));
    let exact: f64 = x.to_vec::<f32>().expect("a read-back").iter().map(|&x| x as f64).sum();
    assert!((x.sum().item::<f64>().expect("a number") - exact).abs() < 0.05);
}

#[test]
fn a_product_has_the_same_bits_for_any_number_of_threads_and_the_right_values_in_every_part() {
    let cpu = gradus_cpu::device();
    // One part; parts of columns, of rows; and a product that the kernels share out themselves. Lengths fit no register.
    for (m, k, n) in [(5, 7, 9), (64, 784, 131), (517, 300, 37), (413, 411, 419)] {
        let (a, b) = (Tensor::randn([m, k], cpu, 1), Tensor::randn([n, k], cpu, 2));
        let run = |threads| gradus_cpu::with_threads(threads, || a.matmul(&b.t()));
        let bits = |t: &Tensor| t.to_bytes().expect("a read-back");
        let y = run(1);
        for threads in [2, 3, 8] {
            assert_eq!(bits(&y), bits(&run(threads)), "{m}×{k}×{n}, {threads} threads");
        }
        // The same in f64, as sums of products without a product's kernel.
        let (a, b) = (a.to_dtype(DType::F64), b.to_dtype(DType::F64));
        for (i, row) in y.to_vec::<f32>().expect("a read-back").chunks(n).enumerate().step_by(29) {
            let want = v(&(&b * a.select(0, i as isize)).sum_dims(&[1], false));
            for (j, (&y, want)) in row.iter().zip(want).enumerate() {
                assert!((y as f64 - want).abs() < 1e-3, "{m}×{k}×{n} at {i}, {j}: {y}, not {want}");
            }
        }
    }
}

#[test]
fn a_captured_step_replays_with_the_same_bits() {
    let cpu = gradus_cpu::device();
    let draw = |key| Tensor::randn([4, 3], cpu, key);
    let w0 = Tensor::randn([3, 2], cpu, 9);
    fn train(w0: &Tensor, draw: impl Fn(u64) -> Tensor, mut run: impl FnMut(&Tensor, &mut Tensor) -> f32) -> Vec<f32> {
        let cpu = gradus_cpu::device();
        let mut w = Tensor::from_vec(w0.to_vec::<f32>().expect("a read-back"), [3, 2], cpu).requires_grad();
        (0..6).map(|i| run(&draw(i), &mut w)).collect()
    }
    let step = |x: &Tensor, w: &mut Tensor| {
        let loss = x.matmul(w).tanh().square().mean();
        loss.backward();
        let g = w.take_grad().expect("a gradient");
        let new = (&w.detach() - &g * 0.1).detach();
        w.write_value(&new).expect("an update");
        loss
    };
    let eager = train(&w0, draw, |x, w| step(x, w).item().expect("a loss"));
    let mut captured = Captured::new();
    let replayed = train(&w0, draw, |x, w| {
        let out = captured.run(&[x], |x| Ok(vec![step(&x[0], w)])).expect("a step");
        out[0].item().expect("a loss")
    });
    assert_eq!(eager, replayed);
    assert_eq!(w0.dtype(), DType::F32);
}
