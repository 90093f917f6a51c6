//! The same bits: fused and defined, for any number of threads; and what is written in place.

use crate::{every_rule, model, set_grad, value};
use gradus_core::functional::newton_schulz::NewtonSchulzSum;
use gradus_core::functional::update::{AdamUpdate, LionUpdate, MomentumUpdate, MuonUpdate, SgdUpdate};
use gradus_core::{DType, Result, Tensor, by_definition};
use gradus_nn::Param;
use gradus_optim::*;

/// Every rule, by its name and options.
fn rules() -> Vec<(String, fn() -> OptimizerBuilder)> {
    let muon: fn() -> OptimizerBuilder = || Muon::new(0.05).into();
    every_rule().into_iter().chain([muon]).map(|b| (format!("{:?}", b()), b)).collect()
}

/// The bits of a large and an odd-sized parameter after four steps on random gradients.
fn random_run(builder: OptimizerBuilder, dtype: DType) -> Result<Vec<u8>> {
    let place = gradus_cpu::device().with(dtype);
    let random = |shape: [usize; 2], key: u64| Tensor::randn(shape, place, key);
    let mut m: Vec<Param> = vec![Param::new(random([257, 131], 1)), Param::new(random([7, 1], 2))];
    let mut o = builder.build(&m)?;
    for t in 0..4 {
        m[0].set_grad(random([131, 257], 10 + t).t())?; // not dense
        m[1].set_grad(random([7, 1], 20 + t))?;
        o.step(&mut m)?;
    }
    let mut bytes = Vec::new();
    for t in m.iter().map(|p| p.value()).chain(o.state_dict().tensors.values()) {
        bytes.extend(t.to_bytes()?);
    }
    Ok(bytes)
}

#[test]
fn fused_updates_are_their_definitions_bit_for_bit() -> Result<()> {
    let kernels = gradus_cpu::device().backend().kernels();
    // Or two definitions would be compared. (What is fused on which device: the table of `docs/gpu.md`, which needs a GPU to be tested.)
    let fused = [
        kernels.has_update::<SgdUpdate>(),
        kernels.has_update::<AdamUpdate>(),
        kernels.has_update::<LionUpdate>(),
        kernels.has_update::<MomentumUpdate>(),
        kernels.has::<NewtonSchulzSum>(),
        kernels.has_update::<MuonUpdate>(),
    ];
    assert_eq!(fused, [true; 6], "every update has a kernel");
    for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16] {
        for (name, builder) in rules() {
            let (fused, defined) = (random_run(builder(), dtype)?, by_definition(|| random_run(builder(), dtype))?);
            assert!(fused == defined, "{name} in {dtype}");
        }
    }
    Ok(())
}

/// What clips by a norm is taken along by the update, as the last transform; before another it is a pass of its own.
#[test]
fn a_factor_in_the_update_gives_the_bits_of_a_pass_over_the_gradients() -> Result<()> {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16] {
        for (name, builder) in rules() {
            let clipped = || builder().transform(ClipNorm::new(0.3));
            let within = random_run(clipped(), dtype)?;
            assert!(within == random_run(clipped().transform(ClipValue::new(1e9)), dtype)?, "{name} in {dtype}");
            assert!(within == by_definition(|| random_run(clipped(), dtype))?, "{name} by definition in {dtype}");
            assert!(within != random_run(builder(), dtype)?, "{name} in {dtype} was not clipped");
        }
    }
    Ok(())
}

#[test]
fn the_number_of_threads_changes_no_bit() -> Result<()> {
    for (name, builder) in rules() {
        let clipped = || builder().transform(ClipNorm::new(1.0)).transform(L1::new(1e-3));
        let run = |n| gradus_cpu::with_threads(n, || random_run(clipped(), DType::F32));
        assert!(run(1)? == run(2)?, "{name}");
    }
    Ok(())
}

#[test]
fn state_that_fades_becomes_zero_and_never_a_number_of_less_than_full_precision() -> Result<()> {
    let builders: [fn() -> OptimizerBuilder; 2] =
        [|| Sgd::new(1e-3).momentum(0.9).into(), || Adam::new(1e-3).betas(0.9, 0.8).into()];
    for builder in builders {
        let mut m = model(&[("a", &[0.5; 37])]);
        let mut o = builder().build(&m)?;
        for step in 0..1000 {
            set_grad(&m, "a", &[if step == 0 { 1e-3 } else { 0.0 }; 37]);
            o.step(&mut m)?;
            for (name, t) in o.state_dict().tensors {
                let odd: Vec<f32> = t.to_vec::<f32>()?.into_iter().filter(|x| x.is_subnormal()).collect();
                assert!(odd.is_empty(), "{name} at step {step}: {odd:?}");
                let live = t.to_vec::<f32>()?.iter().any(|&x| x != 0.0);
                assert!(live || step > 100, "{name} is zero at step {step} already");
                assert!(!live || step < 900, "{name} has not faded at step {step}");
            }
        }
    }
    Ok(())
}

#[test]
fn halves_keep_their_state_in_f32() -> Result<()> {
    let device = gradus_cpu::device();
    let mut m = vec![Param::new(Tensor::ones([3], device.with(DType::Bf16)))];
    let mut o = AdamW::new(1e-2).optimizer().build(&m)?;
    m[0].set_grad(Tensor::ones([3], device.with(DType::Bf16)))?;
    o.step(&mut m)?;
    assert_eq!(m[0].dtype(), DType::Bf16);
    assert!((m[0].to_vec::<f32>()?[0] - 0.99).abs() < 4e-3);
    let state = o.state_dict();
    assert!(state.tensors.values().all(|t| t.dtype() == DType::F32));
    assert!((state.tensors["0.exp_avg_sq"].to_vec::<f32>()?[0] - 1e-3).abs() < 1e-8);
    Ok(())
}

#[test]
fn no_rule_writes_into_a_snapshot() -> Result<()> {
    for (name, builder) in rules() {
        let mut m = vec![Param::new(Tensor::randn([4, 3], gradus_cpu::device(), 1))];
        let mut o = builder().build(&m)?;
        let addresses = |o: &Optimizer, m: &[Param]| -> Vec<Tensor> {
            o.state_dict().tensors.into_values().chain([m[0].detach()]).collect()
        };
        let mut held = Vec::new();
        for t in 0..3 {
            m[0].set_grad(Tensor::randn([4, 3], gradus_cpu::device(), 10 + t))?;
            if t == 2 {
                held = addresses(&o, &m);
            }
            let before: Vec<Vec<u8>> = held.iter().map(|t| t.to_bytes()).collect::<Result<_>>()?;
            o.step(&mut m)?;
            let after: Vec<Vec<u8>> = held.iter().map(|t| t.to_bytes()).collect::<Result<_>>()?;
            assert!(before == after, "{name} wrote into a snapshot");
        }
    }
    Ok(())
}

#[test]
fn parameters_are_written_in_place_and_snapshots_are_not() -> Result<()> {
    let mut m = model(&[("w", &[1.0, 2.0])]);
    let mut o = Sgd::new(0.5).optimizer().build(&m)?;
    set_grad(&m, "w", &[1.0, 1.0]);
    let snapshot = m["w"].detach();
    o.step(&mut m)?;
    assert_eq!(snapshot.to_vec::<f32>()?, [1.0, 2.0]);
    assert_eq!(value(&m, "w"), [0.5, 1.5]);
    assert!(m["w"].is_leaf() && m["w"].grad().is_some());
    Ok(())
}
