//! An LSTM's sequence with gradients wanted of some of its inputs: whichever they are, each is what its definition says.

use gradus_core::functional::lstm_sequence::LstmSequence;
use gradus_core::{Backward, Tensor, by_definition, grad};

/// Numbers between −1/2 and 1/2 that differ.
fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product::<usize>();
    let all: Vec<f32> = (0..n).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 101.0 - 0.5).collect();
    Tensor::from_vec(all, shape, gradus_cpu::device())
}

/// The gradients of a sum over both outputs with respect to those inputs that `wanted` has a bit for.
fn gradients([steps, batch, inputs, n]: [usize; 4], wanted: usize, reverse: bool) -> Vec<Tensor> {
    let shapes: [&[usize]; 6] =
        [&[steps, batch, inputs], &[4 * n, inputs], &[4 * n], &[4 * n, n], &[batch, n], &[batch, n]];
    let is_wanted = |i: usize| wanted >> i & 1 == 1;
    let x: Vec<Tensor> = (0..6)
        .map(|i| {
            let x = numbers(shapes[i], i);
            if is_wanted(i) { x.requires_grad() } else { x }
        })
        .collect();
    let out = Tensor::compose(LstmSequence { reverse }, &x.iter().collect::<Vec<_>>());
    let loss = &(&out[0] * &numbers(&[steps, batch, n], 7)).sum() + &(&out[1] * &numbers(&[batch, n], 8)).sum();
    let wanted: Vec<&Tensor> = x.iter().enumerate().filter(|(i, _)| is_wanted(*i)).map(|(_, x)| x).collect();
    grad(&[&loss], &wanted, Backward::default())
}

#[test]
fn gradients_of_some_inputs_are_those_of_the_definition() {
    // Weights whose gradients stay near, and some that are larger.
    for (sizes, every) in [([5, 19, 6, 16], 1), ([3, 10, 60, 160], 9)] {
        for wanted in (1..64).step_by(every) {
            let reverse = wanted % 2 == 0;
            let fused = gradients(sizes, wanted, reverse);
            let defined = by_definition(|| gradients(sizes, wanted, reverse));
            assert_eq!(fused.len(), wanted.count_ones() as usize);
            for (a, b) in fused.iter().zip(&defined) {
                assert_eq!(a.shape(), b.shape());
                let [a, b] = [a, b].map(|t| t.to_vec::<f32>().expect("numbers"));
                let most = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let apart = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(apart <= 2e-6 * most.max(1.0), "{sizes:?}, wanted {wanted:06b}: {apart} of {most}");
            }
        }
    }
}
