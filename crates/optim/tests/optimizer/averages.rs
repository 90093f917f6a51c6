//! Averages of the weights, and weights put into a model for a while.

use crate::{model, set_grad, value};
use gradus_core::{DType, Result, Tensor};
use gradus_nn::{Module, Param};
use gradus_optim::*;

#[test]
fn averages_are_pytorchs() -> Result<()> {
    let mut m = vec![Param::new(Tensor::zeros([1], gradus_cpu::device().with(DType::F64)))];
    let (mut ema, mut swa) = (WeightAverage::ema(0.75), WeightAverage::swa());
    let (mut want, mut values) = (0.0, Vec::new());
    for t in 0..5 {
        let x = (t * t) as f64 + 1.0;
        m[0].value_mut().set_value(&Tensor::from_slice(&[x], gradus_cpu::device()))?;
        ema.update(&m)?;
        swa.update(&m)?;
        want = if t == 0 { x } else { 0.75 * want + 0.25 * x };
        values.push(x);
    }
    let of = |a: &WeightAverage| a.weights()["0"].to_vec::<f64>().unwrap()[0];
    assert!((of(&ema) - want).abs() < 1e-14);
    assert!((of(&swa) - values.iter().sum::<f64>() / 5.0).abs() < 1e-14);
    assert_eq!(swa.updates(), 5);
    Ok(())
}

#[test]
fn an_average_goes_on_with_the_same_bits_and_keeps_what_it_handed_out() -> Result<()> {
    let m = |x: f32| model(&[("w", &[x, 2.0 * x])]);
    for build in [|| WeightAverage::ema(0.9), WeightAverage::swa] {
        let mut whole = build();
        (0..6).try_for_each(|t| whole.update(&m(t as f32 * 0.3)))?;
        let mut first = build();
        (0..3).try_for_each(|t| first.update(&m(t as f32 * 0.3)))?;
        let state = first.state_dict();
        let held = state.tensors["w"].to_vec::<f32>()?;
        first.update(&m(100.0))?;
        assert_eq!(state.tensors["w"].to_vec::<f32>()?, held);
        let mut second = build();
        second.load_state_dict(&m(0.0), &state)?;
        (3..6).try_for_each(|t| second.update(&m(t as f32 * 0.3)))?;
        assert_eq!(second.weights()["w"].to_vec::<f32>()?, whole.weights()["w"].to_vec::<f32>()?);
        let e = second.load_state_dict(&model(&[("v", &[0.0])]), &state).unwrap_err().to_string();
        assert!(e.contains("averages w"), "{e}");
    }
    Ok(())
}

#[test]
fn weights_are_put_in_and_taken_out() -> Result<()> {
    let mut m = model(&[("a", &[1.0, 2.0]), ("b", &[3.0])]);
    set_grad(&m, "a", &[0.5, 0.5]);
    let other = model(&[("a", &[10.0, 20.0])]).state_dict();
    let sum = with_weights(&mut m, &other, |m| Ok(m["a"].sum() + m["b"].sum()))?;
    assert_eq!(sum.item::<f32>()?, 33.0);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = with_weights(&mut m, &other, |_| -> Result<()> { panic!("in the middle") });
    }));
    assert!(panicked.is_err());
    assert_eq!((value(&m, "a"), value(&m, "b")), (vec![1.0, 2.0], vec![3.0]));
    assert!(m["a"].is_leaf() && m["a"].grad().is_some());
    let misfit = model(&[("a", &[1.0])]).state_dict();
    let e = with_weights(&mut m, &misfit, |_| Ok(())).unwrap_err().to_string();
    assert!(e.contains("f32 [2]") && e.contains("f32 [1]"), "{e}");
    let e = with_weights(&mut m, &model(&[("c", &[1.0])]).state_dict(), |_| Ok(())).unwrap_err().to_string();
    assert!(e.contains("called c"), "{e}");
    Ok(())
}
