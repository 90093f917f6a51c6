//! Rules that PyTorch does not have, against their papers' lines in plain `f64`; and rules by group.

use crate::{model, set_grad, value};
use gradus_core::{DType, Result, Tensor};
use gradus_nn::Param;
use gradus_optim::*;

const STEPS: usize = 12;

/// Deterministic numbers between −1 and 1, some of them zero.
fn gradient(t: usize) -> [f64; 4] {
    std::array::from_fn(|i| if (t + i) % 5 == 4 { 0.0 } else { ((t * 7 + i * 3) as f64 * 1.7).sin() })
}

/// The parameters after some steps of a rule in `f64`.
fn run(builder: OptimizerBuilder) -> Result<(Vec<Param>, Optimizer)> {
    let start = Tensor::from_vec(vec![0.5, -1.0, 2.0, 0.1], [4], gradus_cpu::device());
    let mut m = vec![Param::new(start)];
    let mut o = builder.build(&m)?;
    for t in 0..STEPS {
        m[0].set_grad(Tensor::from_slice(&gradient(t), gradus_cpu::device()))?;
        o.step(&mut m)?;
    }
    Ok((m, o))
}

fn close(have: &Tensor, want: &[f64]) {
    let have = have.to_vec::<f64>().unwrap();
    assert!(have.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-13), "{have:?}\n{want:?}");
}

const START: [f64; 4] = [0.5, -1.0, 2.0, 0.1];

#[test]
fn lion_is_its_papers() -> Result<()> {
    let (eta, b1, b2, decay) = (0.01, 0.8, 0.95, 0.1);
    let (mut p, mut m) = (START, [0.0; 4]);
    for t in 0..STEPS {
        let g = gradient(t);
        for i in 0..4 {
            let c: f64 = b1 * m[i] + (1.0 - b1) * g[i];
            let sign = if c == 0.0 { 0.0 } else { c.signum() };
            p[i] -= eta * (sign + decay * p[i]);
            m[i] = b2 * m[i] + (1.0 - b2) * g[i];
        }
    }
    let (found, _) = run(Lion::new(eta).betas(b1, b2).weight_decay(decay).into())?;
    close(&found[0], &p);
    Ok(())
}

#[test]
fn lamb_is_its_papers() -> Result<()> {
    let (eta, b1, b2, eps, decay) = (0.01, 0.9f64, 0.99f64, 1e-6, 0.05);
    let (mut p, mut m, mut v) = (START, [0.0; 4], [0.0; 4]);
    let norm = |x: &[f64; 4]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    for t in 0..STEPS {
        let (g, n) = (gradient(t), t as i32 + 1);
        let mut r = [0.0; 4];
        for i in 0..4 {
            m[i] = b1 * m[i] + (1.0 - b1) * g[i];
            v[i] = b2 * v[i] + (1.0 - b2) * g[i] * g[i];
            r[i] = m[i] / (1.0 - b1.powi(n)) / ((v[i] / (1.0 - b2.powi(n))).sqrt() + eps) + decay * p[i];
        }
        let ratio = norm(&p) / norm(&r);
        (0..4).for_each(|i| p[i] -= eta * ratio * r[i]);
    }
    let (found, _) = run(Lamb::new(eta).betas(b1, b2).eps(eps).weight_decay(decay).into())?;
    close(&found[0], &p);
    // Where the weights are zero, the ratio is 1: they move.
    let mut zero = vec![Param::new(Tensor::zeros([2], gradus_cpu::device()))];
    let mut o = Lamb::new(0.5).optimizer().build(&zero)?;
    zero[0].set_grad(Tensor::ones([2], gradus_cpu::device()))?;
    o.step(&mut zero)?;
    assert!(zero[0].to_vec::<f32>()?.iter().all(|x| (x + 0.5).abs() < 1e-4));
    Ok(())
}

/// Its authors' lines with x itself, which the rule never holds: y = (1 − β₁)·z + β₁·x.
#[test]
fn schedule_free_adamw_is_its_papers() -> Result<()> {
    let (eta, b1, b2, eps, decay) = (0.05, 0.9, 0.99f64, 1e-8, 0.1);
    let warm = move |t: usize| eta * ((t + 1) as f64 / 6.0).min(1.0);
    let (mut x, mut z, mut v) = (START, START, [0.0; 4]);
    let mut sum = 0.0;
    for t in 0..STEPS {
        let (g, rate) = (gradient(t), warm(t));
        sum += rate * rate; // the largest rate so far is this one
        let c = rate * rate / sum;
        for i in 0..4 {
            let y = (1.0 - b1) * z[i] + b1 * x[i];
            v[i] = b2 * v[i] + (1.0 - b2) * g[i] * g[i];
            let step = g[i] / ((v[i] / (1.0 - b2.powi(t as i32 + 1))).sqrt() + eps) + decay * y;
            z[i] -= rate * step;
            x[i] = (1.0 - c) * x[i] + c * z[i];
        }
    }
    let rule = ScheduleFreeAdamW::new(eta).betas(b1, b2).eps(eps).weight_decay(decay);
    let (m, o) = run(rule.optimizer().schedule(Lambda::new(move |t| warm(t as usize) / eta)))?;
    let y: Vec<f64> = (0..4).map(|i| (1.0 - b1) * z[i] + b1 * x[i]).collect();
    close(&m[0], &y);
    close(&o.evaluation_weights(&m)?["0"], &x);
    Ok(())
}

#[test]
fn asgd_gives_the_mean_of_its_last_steps() -> Result<()> {
    let mut m = vec![Param::new(Tensor::zeros([1], gradus_cpu::device().with(DType::F64)))];
    let mut o = Asgd::new(1.0).lambd(0.0).t0(2.0).optimizer().build(&m)?;
    assert!(o.evaluation_weights(&m)?.is_empty());
    let mut seen = Vec::new();
    for t in 0..6 {
        m[0].set_grad(Tensor::from_slice(&[-((t + 1) as f64)], gradus_cpu::device()))?;
        o.step(&mut m)?;
        seen.extend(m[0].to_vec::<f64>()?);
    }
    // Until one step after t0, the average is the last value; from then on each counts the same.
    let mean = seen[3..].iter().sum::<f64>() / 3.0;
    let have = o.evaluation_weights(&m)?["0"].to_vec::<f64>()?[0];
    let from = seen[2..].iter().enumerate().fold(0.0, |a, (n, x)| a + (x - a) / (n.max(1) as f64));
    assert!((have - from).abs() < 1e-12 && (have - mean).abs() < 1e-12, "{have} {from} {mean}");
    Ok(())
}

#[test]
fn a_group_may_have_a_rule_of_its_own() -> Result<()> {
    let device = gradus_cpu::device();
    let start = || vec![Param::new(Tensor::randn([3, 2], device, 1)), Param::new(Tensor::ones([3], device))];
    let e = Muon::new(0.02).optimizer().build(&start()).unwrap_err().to_string();
    assert!(e.contains("shape [3]") && e.contains("rule"), "{e}");
    let builder = || Muon::new(0.02).optimizer().group(Group::matching("1").rule(AdamW::new(0.5).weight_decay(0.0)));
    let mut m = start();
    let mut o = builder().schedule(Exponential::new(0.5)).build(&m)?;
    let grads = |m: &[Param]| -> Result<()> {
        m[0].set_grad(Tensor::randn([3, 2], device, 2))?;
        m[1].set_grad(Tensor::ones([3], device))
    };
    grads(&m)?;
    o.step(&mut m)?;
    let first = m[1].to_vec::<f32>()?[0];
    assert!((first - 0.5).abs() < 1e-5, "Adam's first step is its learning rate: {first}");
    grads(&m)?;
    o.step(&mut m)?;
    let second = m[1].to_vec::<f32>()?[0];
    assert!((second - 0.25).abs() < 1e-5, "the schedule halves it: {second}");
    let state = o.state_dict();
    let names: Vec<&str> = state.tensors.keys().map(String::as_str).collect();
    assert_eq!(names, ["0.momentum_buffer", "1.exp_avg", "1.exp_avg_sq"]);
    let mut other = builder().build(&m)?;
    other.load_state_dict(&m, &state)?;
    assert_eq!(other.state_dict().numbers, state.numbers);
    let e =
        Sgd::new(0.0).optimizer().group(Group::matching("0").rule(Sgd::new(0.1))).build(&m).unwrap_err().to_string();
    assert!(e.contains("above 0"), "{e}");
    Ok(())
}

#[test]
fn muon_makes_a_step_orthogonal() -> Result<()> {
    let device = gradus_cpu::device();
    for shape in [[8, 3], [3, 8]] {
        let mut m = vec![Param::new(Tensor::zeros(shape, device))];
        let mut o = Muon::new(1.0).scale(MuonScale::Original).weight_decay(0.0).optimizer().build(&m)?;
        m[0].set_grad(Tensor::randn(shape, device, 5) * 100.0)?;
        o.step(&mut m)?;
        let step = m[0].detach() * (-1.0 / (shape[0] as f64 / shape[1] as f64).max(1.0).sqrt());
        let gram = if shape[0] > shape[1] { step.t().matmul(&step) } else { step.matmul(&step.t()) };
        let off: f32 = (&gram - Tensor::eye(3, device)).abs().max().item()?;
        assert!(off < 0.6, "{off}: singular values lie between about 0.7 and 1.2");
    }
    Ok(())
}

#[test]
fn adafactor_keeps_sides_in_place_of_areas() -> Result<()> {
    let mut m = vec![Param::new(Tensor::ones([64, 32], gradus_cpu::device()))];
    let mut o = Adafactor::new(0.01).optimizer().build(&m)?;
    m[0].set_grad(Tensor::randn([64, 32], gradus_cpu::device(), 0))?;
    o.step(&mut m)?;
    let held: usize = o.state_dict().tensors.values().map(Tensor::elements).sum();
    assert_eq!(held, 64 + 32);
    Ok(())
}

#[test]
fn rprop_begins_with_its_groups_rate() -> Result<()> {
    let mut m = model(&[("a", &[1.0]), ("b", &[1.0])]);
    let builder = Rprop::new(0.1).optimizer().group(Group::matching("b").learning_rate_factor(0.5));
    let mut o = builder.build(&m)?;
    set_grad(&m, "a", &[3.0]);
    set_grad(&m, "b", &[3.0]);
    o.step(&mut m)?;
    assert_eq!((value(&m, "a"), value(&m, "b")), (vec![0.9], vec![0.95]));
    Ok(())
}

#[test]
fn muon_resumes_and_replays_with_the_same_bits() -> Result<()> {
    let device = gradus_cpu::device();
    let start = || vec![Param::new(Tensor::randn([4, 3], device, 1))];
    let build = |m: &[Param]| Muon::new(0.05).optimizer().schedule(Exponential::new(0.9)).build(&m.to_vec());
    let step = |m: &mut Vec<Param>, o: &mut Optimizer, x: &Tensor| -> Result<()> {
        x.matmul(&m[0]).square().sum().try_backward()?;
        o.step(m)?;
        m[0].zero_grad();
        Ok(())
    };
    let inputs: Vec<Tensor> = (0..8).map(|i| Tensor::randn([2, 4], device, 20 + i as u64)).collect();
    let mut whole = start();
    let mut o = build(&whole)?;
    inputs.iter().try_for_each(|x| step(&mut whole, &mut o, x))?;
    let mut resumed = start();
    let mut o = build(&resumed)?;
    inputs[..3].iter().try_for_each(|x| step(&mut resumed, &mut o, x))?;
    let mut later = build(&resumed)?;
    later.load_state_dict(&resumed, &o.state_dict())?;
    inputs[3..].iter().try_for_each(|x| step(&mut resumed, &mut later, x))?;
    let (mut captured, mut record) = (start(), gradus_core::capture::Captured::new());
    let mut o = build(&captured)?;
    for x in &inputs {
        o.prepare()?;
        record.run(&[x], |x| step(&mut captured, &mut o, &x[0]).map(|()| vec![]))?;
    }
    assert!(record.is_recorded());
    let want = whole[0].to_bytes()?;
    assert!(want == resumed[0].to_bytes()? && want == captured[0].to_bytes()?);
    Ok(())
}
