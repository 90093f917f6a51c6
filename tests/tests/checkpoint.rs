//! Checkpointed blocks and the graph around them.

use gradus_core::Tensor;

/// Tied weights: a checkpointed block that sees a weight, and what was made with that weight before it. The weight's gradient by way
/// of the block's input must be counted once, and what earlier ops saved must stay.
#[test]
fn checkpoint_stops_at_what_flows_in() {
    let device = gradus_cpu::device();
    let run = |checkpointed: bool| {
        let w = Tensor::from_vec(vec![0.5f64, -1.5, 2.0], [3], device).requires_grad();
        let x = (&w * &w).exp();
        let block = |x: &[Tensor]| x[0].try_mul(&x[1]);
        let y = match checkpointed {
            true => {
                let first = gradus_core::autodiff::checkpoint(block, &[&x, &w]);
                first + gradus_core::autodiff::checkpoint(block, &[&x, &w])
            }
            false => (&x * &w) * 2.0,
        };
        y.sum().backward();
        w.grad().expect("a gradient").to_vec::<f64>().expect("readable")
    };
    let (have, want) = (run(true), run(false));
    assert!(have.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12 * b.abs()), "{have:?} instead of {want:?}");
}
