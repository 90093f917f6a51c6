//! Conditions on the weights after each update.

use gradus_core::{Result, Tensor};
use gradus_nn::Param;
use gradus_optim::*;

/// A matrix and a bias after one step of rate 0 under a constraint.
fn after(constraint: impl Constraint) -> Result<(Vec<f32>, Vec<f32>)> {
    let device = gradus_cpu::device();
    let w = Tensor::from_vec(vec![3f32, 4.0, 0.3, -0.4, 0.0, 0.0], [3, 2], device);
    let mut m = vec![Param::new(w), Param::new(Tensor::from_slice(&[-2f32, 0.0], device))];
    let mut o = Sgd::new(0.0).optimizer().constraint(constraint).build(&m)?;
    for p in &m {
        p.set_grad(p.ones_like())?;
    }
    o.step(&mut m)?;
    Ok((m[0].to_vec()?, m[1].to_vec()?))
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
}

#[test]
fn rows_are_shortened_or_made_units() -> Result<()> {
    let (w, b) = after(MaxNorm::new(1.0))?;
    assert!(close(&w, &[0.6, 0.8, 0.3, -0.4, 0.0, 0.0]) && close(&b, &[-1.0, 0.0]), "{w:?} {b:?}");
    assert_eq!(w[2..4], [0.3, -0.4], "a row within the limit keeps its bits");
    let (w, b) = after(UnitNorm::new().only("0"))?;
    assert!(close(&w, &[0.6, 0.8, 0.6, -0.8, 0.0, 0.0]), "{w:?}");
    assert_eq!(b, [-2.0, 0.0]);
    let (w, b) = after(NonNegative::new().except("1"))?;
    assert_eq!((w, b), (vec![3.0, 4.0, 0.3, 0.0, 0.0, 0.0], vec![-2.0, 0.0]));
    Ok(())
}

#[test]
fn bad_settings_are_told() {
    let m = vec![Param::new(Tensor::ones([1], gradus_cpu::device()))];
    let e = Sgd::new(0.1).optimizer().constraint(MaxNorm::new(0.0)).build(&m).unwrap_err().to_string();
    assert!(e.contains("MaxNorm") && e.contains("above 0"), "{e}");
    let e = Sgd::new(0.1).optimizer().constraint(NonNegative::new().only("fc.*")).build(&m).unwrap_err().to_string();
    assert!(e.contains("fc.*"), "{e}");
}
