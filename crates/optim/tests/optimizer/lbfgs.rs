//! L-BFGS: that it finds what it looks for, and goes on after a resume.

use gradus_core::{Result, Tensor};
use gradus_nn::{Module, Param};
use gradus_optim::Lbfgs;

/// Rosenbrock's valley over two parameters of different shapes.
fn valley(m: &[Param]) -> Result<Tensor> {
    let (x, y) = (m[0].i(0), m[1].i((0, 0)));
    Ok((1.0 - &x).square() + (y - x.square()).square() * 100.0)
}

fn start() -> Vec<Param> {
    let device = gradus_cpu::device();
    vec![
        Param::new(Tensor::from_vec(vec![-1.2f64], [1], device)),
        Param::new(Tensor::from_vec(vec![1f64], [1, 1], device)),
    ]
}

fn bits(m: &[Param]) -> Vec<u64> {
    m.iter().flat_map(|p| p.to_vec::<f64>().unwrap()).map(f64::to_bits).collect()
}

#[test]
fn it_finds_the_bottom_of_a_valley_and_the_top_of_a_hill() -> Result<()> {
    let mut m = start();
    let mut o = Lbfgs::new(1.0).strong_wolfe().tolerance_change(1e-15);
    let losses: Vec<f64> = (0..6).map(|_| o.step(&mut m, |m| valley(m))).collect::<Result<_>>()?;
    assert!(m.iter().all(|p| (p.to_vec::<f64>().unwrap()[0] - 1.0).abs() < 1e-6), "{losses:?}");
    let mut m = start();
    let mut o = Lbfgs::new(1.0).strong_wolfe().tolerance_change(1e-15).maximize();
    (0..6).try_for_each(|_| o.step(&mut m, |m| valley(m).map(|y| -y)).map(|_| ()))?;
    assert!(m.iter().all(|p| (p.to_vec::<f64>().unwrap()[0] - 1.0).abs() < 1e-6));
    Ok(())
}

#[test]
fn it_goes_on_with_the_same_bits() -> Result<()> {
    for build in [|| Lbfgs::new(0.5).iterations(4).history(3), || Lbfgs::new(1.0).iterations(3).strong_wolfe()] {
        let (mut whole, mut o) = (start(), build());
        for _ in 0..5 {
            o.step(&mut whole, |m| valley(m))?;
        }
        let (mut m, mut o) = (start(), build());
        for _ in 0..2 {
            o.step(&mut m, |m| valley(m))?;
        }
        let state = o.state_dict();
        let mut later = build();
        later.load_state_dict(gradus_cpu::device(), &state)?;
        for _ in 0..3 {
            later.step(&mut m, |m| valley(m))?;
        }
        assert_eq!(bits(&whole), bits(&m));
    }
    Ok(())
}

#[test]
fn a_state_that_does_not_fit_is_refused_whole() -> Result<()> {
    let (mut m, mut o) = (start(), Lbfgs::new(1.0).iterations(3));
    o.step(&mut m, |m| valley(m))?;
    let good = o.state_dict();
    let device = gradus_cpu::device();
    let mut lacks = good.clone();
    lacks.numbers.remove("t");
    let mut odd = good.clone();
    odd.tensors.insert("d".into(), Tensor::zeros([7], device));
    let mut foreign = good.clone();
    foreign.tensors.insert("exp_avg".into(), Tensor::zeros([2], device));
    for (bad, words) in [(lacks, "called t"), (odd, "different lengths"), (foreign, "exp_avg")] {
        let e = o.load_state_dict(device, &bad).unwrap_err().to_string();
        assert!(e.contains(words), "{e}");
        assert_eq!(o.state_dict().numbers, good.numbers);
    }
    Ok(())
}

#[test]
fn frozen_and_unreached_parameters_stay() -> Result<()> {
    let mut m = start();
    m.push(Param::new(Tensor::from_vec(vec![7f64], [1], gradus_cpu::device())));
    m[1].freeze();
    let mut o = Lbfgs::new(1.0).strong_wolfe().tolerance_change(1e-15);
    (0..4).try_for_each(|_| o.step(&mut m, |m| valley(m)).map(|_| ()))?;
    assert_eq!((m[1].to_vec::<f64>()?, m[2].to_vec::<f64>()?), (vec![1.0], vec![7.0]));
    assert!((m[0].to_vec::<f64>()?[0].abs() - 1.0).abs() < 1e-2);
    m.freeze();
    assert!(o.step(&mut m, |m| valley(m)).is_ok(), "nothing is left to train");
    let mut odd = start();
    odd.push(Param::new(Tensor::zeros([1], gradus_cpu::device())));
    let e = Lbfgs::new(1.0).step(&mut odd, |m| valley(m)).unwrap_err().to_string();
    assert!(e.contains("another dtype"), "{e}");
    Ok(())
}
