//! Tensors and gradients in 40 lines: `cargo run --release --example first_steps`.

use gradus::prelude::*;

fn main() -> Result<()> {
    let device = Device::cpu();

    // Tensors print like NumPy's arrays, broadcast like them, and views share their elements.
    let a = Tensor::arange(0, 6, 1, device).reshape([2, 3]);
    let row = Tensor::from_slice(&[10f32, 20.0, 30.0], device);
    println!("a + row =\n{}", &a + &row);
    println!("its last column: {}", a.i((.., -1)));
    println!("a · aᵀ =\n{}", a.matmul(&a.t()));

    // A tensor that requires a gradient remembers what is made from it.
    let x = Tensor::from_slice(&[1f32, 2.0, 3.0], device).requires_grad();
    let y = (&x * &x * &x).sum(); // Σ x³
    y.backward();
    println!("dΣx³/dx = {}", x.grad().ok_or_else(|| Error::misuse("no gradient arrived"))?); // 3x²

    // Gradients are tensors: they can be differentiated again, to any order.
    let x = Tensor::scalar(2f64, device).requires_grad();
    let y = x.sin() * &x;
    let first = grad(&[&y], &[&x], Backward::graph())?.swap_remove(0);
    let second = grad(&[&first], &[&x], Backward::default())?.swap_remove(0);
    println!("y = x·sin x at 2: y' = {}, y'' = {}", first.item::<f64>()?, second.item::<f64>()?);
    println!("          by hand: y' = {}, y'' = {}", 2f64.sin() + 2.0 * 2f64.cos(), 2.0 * 2f64.cos() - 2.0 * 2f64.sin());

    // Enough to fit a line by gradient descent: y = 3x − 1, from 100 random points.
    let points = Tensor::rand([100, 1], device, 7);
    let values = &points * 3.0 - 1.0;
    let (mut w, mut b) = (Tensor::zeros([1], device), Tensor::zeros([1], device));
    for _ in 0..200 {
        let (leaf_w, leaf_b) = (w.requires_grad(), b.requires_grad());
        let loss = (&points * &leaf_w + &leaf_b - &values).square().mean();
        let grads = grad(&[&loss], &[&leaf_w, &leaf_b], Backward::default())?;
        (w, b) = (w - &grads[0] * 0.5, b - &grads[1] * 0.5);
    }
    println!("3x − 1, learnt: {:.4}x + {:.4}", w.item::<f32>()?, b.item::<f32>()?);
    Ok(())
}
