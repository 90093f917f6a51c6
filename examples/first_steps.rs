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
    let derivative = |y: &Tensor| grad(&[y], &[&x], Backward::graph()).remove(0);
    let first = derivative(&(x.sin() * &x));
    let second = derivative(&first);
    println!("y = x·sin x at 2: y' = {:.6}, y'' = {:.6}", first.item::<f64>()?, second.item::<f64>()?);
    println!(
        "         by hand: y' = {:.6}, y'' = {:.6}",
        2f64.sin() + 2.0 * 2f64.cos(),
        2.0 * 2f64.cos() - 2.0 * 2f64.sin()
    );

    // Enough to fit a line by gradient descent: y = 3x − 1, from 100 random points.
    let points = Tensor::rand([100, 1], device, 7);
    let values = &points * 3.0 - 1.0;
    let (mut w, mut b) = (Tensor::zeros([1], device).requires_grad(), Tensor::zeros([1], device).requires_grad());
    for _ in 0..200 {
        (&points * &w + &b - &values).square().mean().backward();
        for leaf in [&mut w, &mut b] {
            let new = leaf.detach() - leaf.take_grad().unwrap_or(leaf.zeros_like()) * 0.5;
            leaf.set_value(&new)?; // it stays the same leaf
        }
    }
    println!("3x − 1, learnt: {:.4}x + {:.4}", w.item::<f32>()?, b.item::<f32>()?);
    Ok(())
}
