//! Products with Jacobians and Hessians, the matrices, batches by sample, and the gradient checker.

use gradus_core::autodiff::{
    Backward, Function, GradCheck, Grads, Vjp, apply_function, grad, gradcheck, gradgradcheck, hessian, hvp, jacobian,
    jvp, no_grad, per_sample_gradients, vjp, vmap,
};
use gradus_core::{DType, Device, Error, Key, Result, Tensor};

fn cpu() -> Device {
    gradus_cpu::device()
}

fn draw(name: &str, shape: &[usize]) -> Tensor {
    Tensor::randn(shape, cpu().with(DType::F64), Key::new(3).fold(name))
}

fn vec(t: &Tensor) -> Vec<f64> {
    t.to_vec().expect("it can be read")
}

fn close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance), "{a:?}\n{b:?}");
}

/// Two inputs, two outputs, and one input that the first output alone depends on.
fn mixed(x: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(vec![x[0].try_matmul(&x[1])?.try_tanh()?, x[1].try_square()?.try_sum()?])
}

#[test]
fn products_from_both_sides_agree_with_each_other_and_with_differences() -> Result<()> {
    let (a, b) = (draw("a", &[3, 4]), draw("b", &[4, 2]));
    let (va, vb) = (draw("va", &[3, 4]), draw("vb", &[4, 2]));
    let (u0, u1) = (draw("u0", &[3, 2]), draw("u1", &[]));
    let (y, forward) = jvp(mixed, &[&a, &b], &[&va, &vb])?;
    let (same, back) = vjp(mixed, &[&a, &b], &[&u0, &u1])?;
    let inner = |x: &Tensor, y: &Tensor| vec(&(x * y).sum())[0];
    let left = inner(&u0, &forward[0]) + inner(&u1, &forward[1]);
    let right = inner(&back[0], &va) + inner(&back[1], &vb);
    assert!((left - right).abs() < 1e-12, "⟨u, J·v⟩ = {left}, ⟨Jᵀ·u, v⟩ = {right}");
    let h = 1e-6;
    let up = mixed(&[&a + &va * h, &b + &vb * h])?;
    let down = mixed(&[&a - &va * h, &b - &vb * h])?;
    for k in 0..2 {
        close(&vec(&((&up[k] - &down[k]) / (2.0 * h))), &vec(&forward[k]), 1e-8);
        assert_eq!(vec(&y[k]), vec(&same[k]));
    }
    assert!(!y[0].is_tracked() && !forward[0].is_tracked() && !back[0].is_tracked(), "nothing outside is tracked");
    Ok(())
}

#[test]
fn jacobians_and_hessians_are_those_of_their_products() -> Result<()> {
    let x = draw("x", &[3]);
    let wide = |x: &Tensor| Ok(Tensor::cat(&[&x.sin(), &(x * x)], 0).reshape([2, 3]));
    let narrow = |x: &Tensor| x.try_prod()?.try_reshape([1]);
    let j = jacobian(wide, &x)?; // more outputs than inputs: by columns
    assert_eq!(j.dims(), [2, 3, 3]);
    let v = vec(&x);
    for (i, x) in v.iter().enumerate() {
        for k in 0..3 {
            let (sin, square) = if i == k { (x.cos(), 2.0 * x) } else { (0.0, 0.0) };
            close(&vec(&j.i((0, i, k))), &[sin], 1e-15);
            close(&vec(&j.i((1, i, k))), &[square], 1e-15);
        }
    }
    let j = jacobian(narrow, &x)?; // by rows
    assert_eq!(j.dims(), [1, 3]);
    close(&vec(&j), &[v[1] * v[2], v[0] * v[2], v[0] * v[1]], 1e-15);
    let f = |x: &Tensor| Ok((x.exp() * x.flip(&[0])).sum());
    let h = hessian(f, &x)?;
    let direction = draw("direction", &[3]);
    let (value, product) = hvp(|x| f(&x[0]), &[&x], &[&direction])?;
    assert_eq!(vec(&value), vec(&f(&x)?));
    close(&vec(&h.matmul(&direction)), &vec(&product[0]), 1e-14);
    let of_gradient = jacobian(|x| Ok(grad(&[&f(x)?], &[x], Backward::graph()).remove(0)), &x)?;
    close(&vec(&h), &vec(&of_gradient), 1e-14);
    // A function without curvature, one that does not depend on x, and an empty one.
    assert_eq!(vec(&hessian(|x| Ok(x.sum()), &x)?), [0.0; 9]);
    assert_eq!(vec(&jacobian(|_| Ok(Tensor::ones([2], cpu().with(DType::F64))), &x)?), [0.0; 6]);
    assert_eq!(jacobian(|x| Ok(x * 2.0), &draw("none", &[0]))?.dims(), [0, 0]);
    Ok(())
}

#[test]
fn results_are_differentiable_by_what_the_function_closes_over_and_by_the_point() -> Result<()> {
    let w = draw("w", &[3]).requires_grad();
    let x = draw("x", &[3]);
    // d/dw Σ (J·v)² with y = w·x³ and v = 1: J·v = 3w·x².
    let (_, forward) = jvp(|x| Ok(vec![&w * x[0].powf(3.0)]), &[&x], &[&x.ones_like()])?;
    forward[0].square().sum().backward();
    let want: Vec<f64> = vec(&w).iter().zip(vec(&x)).map(|(w, x)| 18.0 * w * x.powi(4)).collect();
    close(&vec(&w.grad().expect("w takes part")), &want, 1e-12);
    // By the point: the third derivative of x⁴ is 24x.
    let x = x.requires_grad();
    let (_, second) = hvp(|x| Ok(x[0].powf(4.0).sum()), &[&x], &[&x.detach().ones_like()])?;
    second[0].sum().backward();
    close(&vec(&x.grad().expect("x takes part")), &vec(&x).iter().map(|x| 24.0 * x).collect::<Vec<_>>(), 1e-11);
    // Where nothing is recorded, nothing is tracked.
    let (_, back) = no_grad(|| vjp(|x| Ok(vec![&w * &x[0]]), &[&x.detach()], &[&x.detach()]))?;
    assert!(!back[0].is_tracked());
    Ok(())
}

#[test]
fn misfits_are_told_by_place() -> Result<()> {
    let x = draw("x", &[2]);
    let says = |e: Error, words: &str| assert!(e.to_string().contains(words), "{e}");
    says(vjp(|x| Ok(x.to_vec()), &[&x], &[]).unwrap_err(), "needs 1 cotangents; got 0");
    says(jvp(|x| Ok(x.to_vec()), &[&x], &[&draw("v", &[3])]).unwrap_err(), "tangent 0 must be f64 [2]");
    says(hvp(|x| Ok(x[0].clone()), &[&x], &[&x]).unwrap_err(), "it gave shape [2]");
    let n = Tensor::from_slice(&[1i64], cpu());
    says(vjp(|x| Ok(x.to_vec()), &[&n], &[&n]).unwrap_err(), "input 0");
    let e = vmap(|x| Ok(x.to_vec()), &[&x, &draw("y", &[3])], &[Some(0), Some(0)]).unwrap_err();
    says(e, "input 1 has 3 samples, an earlier one 2");
    says(vmap(|x| Ok(x.to_vec()), &[&x], &[Some(1)]).unwrap_err(), "no dimension 1");
    says(vmap(|x| Ok(x.to_vec()), &[&x], &[None]).unwrap_err(), "taken apart");
    says(per_sample_gradients(|_| Ok(x.sum()), &[&x], &[]).unwrap_err(), "no samples");
    Ok(())
}

#[test]
fn batches_are_mapped_sample_by_sample() -> Result<()> {
    let (a, b) = (draw("a", &[4, 5, 3]), draw("b", &[3, 5]).requires_grad());
    let y = vmap(|x| Ok(vec![x[0].try_matmul(&x[1])?, x[0].try_sum()?]), &[&a, &b], &[Some(0), None])?;
    close(&vec(&y[0]), &vec(&a.matmul(&b)), 1e-14);
    assert_eq!(y[1].dims(), [4]);
    y[0].square().sum().backward();
    let own = b.take_grad().expect("b takes part");
    a.matmul(&b).square().sum().backward();
    close(&vec(&own), &vec(&b.grad().expect("b takes part")), 1e-12);
    let turned = vmap(|x| Ok(vec![x[0].clone()]), &[&a], &[Some(-1)])?;
    assert_eq!(turned[0].dims(), [3, 4, 5]);
    Ok(())
}

#[test]
fn per_sample_gradients_add_up_to_the_batchs() -> Result<()> {
    let (w, b, unused) =
        (draw("w", &[2, 3]).requires_grad(), draw("b", &[2]).requires_grad(), draw("u", &[1]).requires_grad());
    let (x, t) = (draw("x", &[5, 3]), Tensor::from_slice(&[0i64, 1, 1, 0, 1], cpu()));
    let loss = |batch: &[Tensor]| batch[0].try_linear(&w, Some(&b))?.try_cross_entropy(&batch[1]);
    let each = per_sample_gradients(loss, &[&w, &b, &unused], &[&x, &t])?;
    assert_eq!((each[0].dims(), each[1].dims(), each[2].dims()), (&[5, 2, 3][..], &[5, 2][..], &[5, 1][..]));
    loss(&[x, t])?.backward(); // the mean over the batch
    close(&vec(&each[0].mean_dims(&[0], false)), &vec(&w.grad().expect("it takes part")), 1e-14);
    close(&vec(&each[1].mean_dims(&[0], false)), &vec(&b.grad().expect("it takes part")), 1e-14);
    assert_eq!(vec(&each[2]), [0.0; 5]);
    Ok(())
}

/// x³ with a gradient, and a second derivative, that may be wrong by a factor.
#[derive(Debug)]
struct Cube(f64, f64);
impl Function for Cube {
    fn name(&self) -> &'static str {
        "cube"
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        Ok(vec![x[0].powf(3.0)])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        let slope = apply_function(Square(self.1), &[&cx.x(0)]).remove(0) * (3.0 * self.0);
        [Some(cx.grad() * slope)].into_iter().collect()
    }
}

#[derive(Debug)]
struct Square(f64);
impl Function for Square {
    fn name(&self) -> &'static str {
        "square"
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        Ok(vec![x[0].square()])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        [Some(cx.grad() * cx.x(0) * (2.0 * self.0))].into_iter().collect()
    }
}

#[test]
fn the_checker_finds_wrong_gradients_of_both_orders() -> Result<()> {
    let x = draw("x", &[3]);
    let cube = |first: f64, second: f64| move |x: &[Tensor]| Ok(apply_function(Cube(first, second), &[&x[0]]).to_vec());
    gradcheck(cube(1.0, 1.0), &[&x], GradCheck::default())?;
    gradgradcheck(cube(1.0, 1.0), &[&x], GradCheck::default())?;
    let e = gradcheck(cube(1.01, 1.0), &[&x], GradCheck::default()).unwrap_err().to_string();
    assert!(e.contains("element 0 of output 0 by element 0 of input 0"), "{e}");
    gradcheck(cube(1.0, 1.01), &[&x], GradCheck::default())?;
    assert!(gradgradcheck(cube(1.0, 1.01), &[&x], GradCheck::default()).is_err());
    let single = x.to_dtype(DType::F32);
    let e = gradcheck(|x| Ok(x.to_vec()), &[&single], GradCheck::default()).unwrap_err().to_string();
    assert!(e.contains("input 0 is f32"), "{e}");
    // Integers pass through; an output that does not depend on the input has a gradient of zero.
    let n = Tensor::from_slice(&[2i64, 0], cpu());
    let picked = |x: &[Tensor]| Ok(vec![x[0].index_select(0, &x[1]).sin(), x[0].detach().ones_like()]);
    gradcheck(picked, &[&x, &n], GradCheck::default())?;
    gradgradcheck(picked, &[&x, &n], GradCheck::default())
}
