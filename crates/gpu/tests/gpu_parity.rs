//! The catalog on the GPU and on the CPU: outputs, gradients and second gradients of every entry agree.
//!
//! The rule: a number of the GPU lies within max(1e-5 · max(1, scale), 4 × the CPU's own `f32` error) of the CPU's `f64`
//! result, where scale is the largest number of the tensor. Numbers that are no floats are equal.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

mod adapter;

use adapter::{devices, turn};
use gradus_core::autodiff::Backward;
use gradus_core::catalog::{self, Case, Entry, Fill, Input};
use gradus_core::functional::update::{AdamUpdate, SgdUpdate};
use gradus_core::rng::{Distribution, Key, uniform};
use gradus_core::tensor::{Update, to_device};
use gradus_core::{DType, Device, ErrorKind, Result, Tensor, autodiff};
use std::time::Instant;

/// The entries that a device cannot run, and why. Ten at most: the rest must run.
const CANNOT: &[(&str, &str)] =
    &[("to_dtype", "its case casts to f64, which no Vulkan device computes with (docs/adr/0002)")];

/// The elements of a sample input, the same for every device and width.
fn elements(input: &Input, key: &Key) -> Vec<f64> {
    let n: usize = input.shape.iter().product();
    let at = |i: usize| f64::from(uniform(key.block(i as u32 / 4)[i % 4]));
    let within = |u: f64, lo: f64, hi: f64| f64::from((lo + (hi - lo) * u) as f32);
    match input.fill {
        Fill::Real(lo, hi) => (0..n).map(|i| within(at(i), lo, hi)).collect(),
        Fill::Zeros(lo, hi) => (0..n).map(|i| if i % 3 == 0 { 0.0 } else { within(at(i), lo, hi) }).collect(),
        Fill::Spread(lo, hi) => {
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|&a, &b| at(a).total_cmp(&at(b)));
            order.iter().map(|&p| within((p as f64 + 0.5) / n as f64, lo, hi)).collect()
        }
        Fill::Int(lo, hi) => (0..n).map(|i| (lo as f64 + (hi - lo) as f64 * at(i)).floor()).collect(),
        Fill::Bool => (0..n).map(|i| f64::from(u8::from(at(i) < 0.5))).collect(),
    }
}

fn inputs(case: &Case, device: Device, float: DType, key: &Key) -> Result<Vec<Tensor>> {
    let one = |(i, input): (usize, &Input)| {
        let values = elements(input, &key.fold_in(i as u64));
        let cpu = Tensor::try_from_vec(values, input.shape.as_slice(), gradus_cpu::device())?;
        to_device(&cpu.try_to_dtype(input.fill.dtype(float))?, device)
    };
    case.inputs.iter().enumerate().map(one).collect()
}

/// What a run gave: the outputs, the gradients, and the gradients of the gradients, each as numbers.
struct Found {
    dtype: DType,
    values: Vec<f64>,
}

fn found(tensors: &[Tensor]) -> Result<Vec<Found>> {
    tensors
        .iter()
        .map(|t| {
            Ok(Found {
                dtype: t.dtype(),
                values: to_device(&t.detach(), gradus_cpu::device())?.try_to_dtype(DType::F64)?.to_vec()?,
            })
        })
        .collect()
}

/// Σ c·t with fixed uneven weights c, over the floating-point tensors that are tracked: a scalar to differentiate.
fn scalar(tensors: &[Tensor]) -> Result<Option<Tensor>> {
    let mut sum: Option<Tensor> = None;
    for t in tensors.iter().filter(|t| t.dtype().is_float() && t.is_tracked()) {
        let weights: Vec<f64> = (0..t.elements()).map(|i| 0.5 + ((i * 37) % 11) as f64 / 8.0).collect();
        let weights = Tensor::try_from_vec(weights, *t.shape(), gradus_cpu::device())?.try_to_dtype(t.dtype())?;
        let weights = to_device(&weights, t.device())?;
        let term = t.try_mul(&weights)?.try_sum()?;
        sum = Some(match sum {
            Some(s) => s.try_add(&term)?,
            None => term,
        });
    }
    Ok(sum)
}

fn run(entry: &Entry, case: &Case, device: Device, float: DType, key: &Key) -> Result<Vec<Found>> {
    let x: Vec<Tensor> = inputs(case, device, float, key)?
        .into_iter()
        .map(|t| if t.dtype().is_float() && entry.differentiable { t.requires_grad() } else { t })
        .collect();
    let y = (case.run)(&x)?;
    let mut all = found(&y)?;
    let leaves: Vec<&Tensor> = x.iter().filter(|t| t.is_tracked()).collect();
    let Some(loss) = scalar(&y)?.filter(|_| entry.differentiable && !leaves.is_empty()) else { return Ok(all) };
    let first: Vec<Tensor> =
        autodiff::try_grad_allow_unused(&[&loss], &leaves, Backward::graph())?.into_iter().flatten().collect();
    all.extend(found(&first)?);
    if let Some(loss) = scalar(&first)?.filter(|_| !case.large) {
        let second: Vec<Tensor> =
            autodiff::try_grad_allow_unused(&[&loss], &leaves, Backward::default())?.into_iter().flatten().collect();
        all.extend(found(&second)?);
    }
    Ok(all)
}

/// What of `got` disagrees with the exact numbers, if anything.
fn disagreement(got: &Found, narrow: &Found, exact: &Found) -> Option<String> {
    if got.values.len() != exact.values.len() {
        return Some(format!("{} elements instead of {}", got.values.len(), exact.values.len()));
    }
    let scale = exact.values.iter().filter(|v| v.is_finite()).fold(1.0f64, |m, v| m.max(v.abs()));
    let same = |i: usize| {
        let (g, n, e) = (got.values[i], narrow.values[i], exact.values[i]);
        let close = (g - e).abs() <= (1e-5 * scale).max(4.0 * (n - e).abs());
        g == e || g == n || (g.is_nan() && (e.is_nan() || n.is_nan())) || (exact.dtype.is_float() && close)
    };
    let bad = (0..got.values.len()).find(|&i| !same(i))?;
    Some(format!(
        "element {bad} is {} on the GPU, {} in f32 and {} in f64 on the CPU",
        got.values[bad], narrow.values[bad], exact.values[bad]
    ))
}

/// Which part of a run the result `i` belongs to, for messages.
fn compare(entry: &Entry, case: &Case, gpu: Device, key: &Key) -> Result<Option<String>> {
    let cpu = gradus_cpu::device();
    let exact = run(entry, case, cpu, DType::F64, key)?;
    let narrow = run(entry, case, cpu, DType::F32, key)?;
    let got = run(entry, case, gpu, DType::F32, key)?;
    if got.len() != exact.len() {
        return Ok(Some(format!("{} results instead of {}", got.len(), exact.len())));
    }
    let bad = (0..got.len()).find_map(|i| Some((i, disagreement(&got[i], &narrow[i], &exact[i])?)));
    Ok(bad.map(|(i, what)| format!("result {i} of {}: {what}", got.len())))
}

#[test]
fn every_entry_agrees_with_the_cpu_to_second_order() {
    let _turn = turn();
    devices().into_iter().for_each(every_entry_agrees);
}

fn every_entry_agrees(gpu: Device) {
    let only = std::env::var("GRADUS_ENTRY").ok();
    let start = Instant::now();
    let (mut checked, mut failures, mut refused) = (0usize, Vec::new(), Vec::new());
    for entry in catalog::all().iter().filter(|e| only.as_deref().is_none_or(|name| name == e.name)) {
        for (i, case) in entry.cases.iter().enumerate() {
            let key = Key::new(7).fold(entry.name).fold_in(i as u64);
            let shapes: Vec<_> = case.inputs.iter().map(|x| x.shape.clone()).collect();
            match compare(entry, case, gpu, &key) {
                Ok(None) => checked += 1,
                Ok(Some(what)) => failures.push(format!("{} {shapes:?}: {what}", entry.name)),
                Err(error) if error.kind() == ErrorKind::Unsupported => refused.push((entry.name, error.to_string())),
                Err(error) => failures.push(format!("{} {shapes:?}: {error}", entry.name)),
            }
        }
    }
    println!("{gpu}: {checked} cases agree, in {:.1?}; refused: {refused:#?}", start.elapsed());
    assert!(failures.is_empty(), "{} cases disagree (keys from seed 7):\n{}", failures.len(), failures.join("\n"));
    assert!(only.is_some() || checked >= 150, "only {checked} cases were checked");
    let known = |name: &str| CANNOT.iter().any(|(entry, _)| *entry == name);
    let unknown: Vec<_> = refused.iter().filter(|(name, _)| !known(name)).collect();
    assert!(unknown.is_empty() && CANNOT.len() <= 10, "{gpu} refused what it should run: {unknown:#?}");
}

#[test]
fn random_bits_integers_masks_and_uniforms_are_the_cpu_s() {
    let _turn = turn();
    devices().into_iter().for_each(random_bits_agree);
}

fn random_bits_agree(gpu: Device) {
    let key = Key::new(29).fold("bits").at(5);
    let shape = [7usize, 143]; // no multiple of the four words of a block
    let draw = |on: Device| -> Result<Vec<Vec<f64>>> {
        let x = Tensor::try_rand(shape, on, &key)?;
        let drawn = [
            Tensor::try_randint(-5, 1000, shape, on, &key)?,
            Tensor::try_random(Distribution::Bernoulli(0.3), shape, on.with(DType::Bool), &key)?,
            Tensor::try_random(Distribution::Bits, shape, on.with(DType::U32), &key)?,
            // A view whose elements do not lie in order, and every probability that is special.
            x.try_t()?.try_dropout(0.3, &key)?,
            x.try_dropout(0.0, &key)?,
            // Twice a number is exact: a device may multiply and add in one instruction.
            x.try_t()?.try_dropout_add(&x.try_t()?, 0.5, &key)?,
            x.try_dropout(1.0, &key)?,
            x,
        ];
        drawn.iter().map(|t| to_device(t, gradus_cpu::device())?.try_to_dtype(DType::F64)?.to_vec()).collect()
    };
    let (there, here) = (draw(gpu).expect("it draws"), draw(gradus_cpu::device()).expect("it draws"));
    for (i, (a, b)) in there.iter().zip(&here).enumerate() {
        let differing = a.iter().zip(b).position(|(x, y)| x.to_bits() != y.to_bits());
        assert_eq!((a.len(), differing), (shape.iter().product(), None), "draw {i} on {gpu}");
    }
}

#[test]
fn the_same_step_twice_has_the_same_bits() {
    let _turn = turn();
    devices().into_iter().for_each(same_bits_twice);
}

fn same_bits_twice(gpu: Device) {
    let step = || -> Result<Vec<f32>> {
        let key = Key::new(3);
        let x = Tensor::try_randn([64, 100], gpu, key.fold("x"))?;
        let w = Tensor::try_randn([10, 100], gpu, key.fold("w"))?.requires_grad();
        let table = Tensor::try_randn([50, 100], gpu, key.fold("table"))?.requires_grad();
        let tokens = Tensor::try_randint(0, 50, [64], gpu, key.fold("tokens"))?;
        let loss = x.try_add(&table.try_embedding(&tokens)?)?.try_linear(&w, None)?.try_tanh()?.try_sum()?;
        let grads = autodiff::try_grad(&[&loss], &[&w, &table], Backward::default())?;
        let mut all = Vec::new();
        for g in grads {
            all.extend(g.to_vec::<f32>()?);
        }
        Ok(all)
    };
    let (a, b) = (step().expect("it runs"), step().expect("it runs"));
    assert_eq!(a.len(), 10 * 100 + 50 * 100);
    assert!(a.iter().zip(&b).all(|(x, y)| x.to_bits() == y.to_bits()));
}

#[test]
fn optimizer_steps_agree_with_the_cpu() {
    let _turn = turn();
    devices().into_iter().for_each(optimizer_steps_agree);
}

fn optimizer_steps_agree(gpu: Device) {
    let sgd = |nesterov| SgdUpdate {
        learning_rate: 0.1.into(),
        momentum: 0.9.into(),
        gain: 1.0.into(),
        weight_decay: 0.01,
        nesterov,
        maximize: false,
    };
    let adam = AdamUpdate {
        one_minus_beta1: 0.1.into(),
        beta2: 0.999,
        eps: 1e-8,
        step_size: 0.01.into(),
        rsqrt_bias2: 31.6.into(),
        weight_decay: 0.02,
        decay: Some(0.99.into()),
        maximize: true,
    };
    let key = Key::new(11);
    let tensor = |name: &str, on: Device| {
        // v of Adam is never negative.
        Tensor::rand([7, 5], gradus_cpu::device(), key.fold(name)).to(on)
    };
    fn stepped<U: Update>(op: &U, mut targets: Vec<Tensor>, g: &Tensor) -> Vec<Vec<f32>> {
        for _ in 0..3 {
            let mut each: Vec<&mut Tensor> = targets.iter_mut().collect();
            Tensor::update(op, &mut each, &[g]).expect("the update runs");
        }
        targets.iter().map(|t| t.to_vec().expect("the device works")).collect()
    }
    let names = ["p", "m", "v"];
    let run = |on: Device| {
        let targets = |n: usize| names[..n].iter().map(|name| tensor(name, on)).collect::<Vec<_>>();
        let g = tensor("g", on).t(); // transposed: read where it lies
        let g = g.reshape([7, 5]);
        [stepped(&sgd(false), targets(1), &g), stepped(&sgd(true), targets(2), &g), stepped(&adam, targets(3), &g)]
            .concat()
    };
    for (i, (a, b)) in run(gpu).iter().zip(&run(gradus_cpu::device())).enumerate() {
        assert!(
            a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 1e-6 * y.abs().max(1.0)),
            "target {i}: {a:?} on the GPU, {b:?} on the CPU"
        );
    }
}

#[test]
fn the_rule_of_agreement_notices_a_wrong_number() {
    let numbers = |values: &[f64]| Found { dtype: DType::F32, values: values.to_vec() };
    let exact = numbers(&[1.0, 200.0, f64::NAN]);
    assert_eq!(disagreement(&numbers(&[1.001, 200.001, f64::NAN]), &exact, &exact), None);
    assert!(disagreement(&numbers(&[1.01, 200.0, f64::NAN]), &exact, &exact).is_some());
    assert!(disagreement(&numbers(&[1.0, 200.0, 3.0]), &exact, &exact).is_some());
    assert!(disagreement(&numbers(&[1.0, 200.0]), &exact, &exact).is_some());
    let places = Found { dtype: DType::I64, values: vec![3.0] };
    assert!(disagreement(&Found { dtype: DType::I64, values: vec![3.00001] }, &places, &places).is_some());
}
