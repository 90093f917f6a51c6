//! Optimizers on a GPU: every fused update against its definition on the CPU in `f64`, and many parameters in one launch.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

mod adapter;

use adapter::{devices, turn};
use gradus_core::functional::newton_schulz::NewtonSchulzSum;
use gradus_core::functional::update::{AdamUpdate, LionUpdate, MomentumUpdate, MuonUpdate, SgdUpdate};
use gradus_core::tensor::to_device;
use gradus_core::{DType, Device, Key, Result, Tensor, by_definition};
use gradus_gpu::profile::profile;
use gradus_nn::Param;
use gradus_optim::{Adam, AdamW, ClipNorm, Group, Lion, Muon, MuonScale, Optimizer, OptimizerBuilder, Rule, Sgd};

/// More tensors than a launch takes, at the edges of a cube's share, one without elements.
const SIZES: [usize; 21] =
    [1, 7, 255, 256, 257, 1023, 1024, 1025, 2048, 5000, 0, 3, 3, 3, 64, 4096, 9, 10, 11, 1_000, 100_000];

fn normal(shape: &[usize], key: u64) -> Tensor {
    Tensor::randn(shape, gradus_cpu::device(), Key::new(5).fold(&key.to_string()))
}

fn there(x: &Tensor, device: Device, float: DType) -> Result<Tensor> {
    to_device(&x.try_to_dtype(float)?, device)
}

fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    to_device(&x.detach(), gradus_cpu::device())?.try_to_dtype(DType::F64)?.to_vec()
}

/// A model of one parameter for each shape.
fn model(shapes: &[Vec<usize>], device: Device, float: DType) -> Result<Vec<Param>> {
    let one = |(i, s): (usize, &Vec<usize>)| Ok(Param::new(there(&normal(s, i as u64), device, float)?));
    shapes.iter().enumerate().map(one).collect()
}

/// New gradients: the same numbers everywhere. Every third lies transposed.
fn set_gradients(m: &[Param], step: u64, float: DType) -> Result<()> {
    for (i, p) in m.iter().enumerate() {
        let (key, device) = (1000 * (step + 1) + i as u64, p.device());
        let g = match *p.dims() {
            [rows, columns] if i % 3 == 0 => there(&normal(&[columns, rows], key), device, float)?.t(),
            ref shape => there(&normal(shape, key), device, float)?,
        };
        p.set_grad(g)?;
    }
    Ok(())
}

/// Parameters and states after a few steps, of which one has the gradients of the one before.
fn trained(builder: OptimizerBuilder, shapes: &[Vec<usize>], device: Device, float: DType) -> Result<Vec<Vec<f64>>> {
    let mut m = model(shapes, device, float)?;
    let mut o = builder.build(&m)?;
    for step in 0..4 {
        if step != 2 {
            set_gradients(&m, step, float)?;
        }
        o.step(&mut m)?;
    }
    m.iter().map(|p| p.value()).chain(o.state_dict().tensors.values()).map(numbers).collect()
}

/// The numbers on the GPU lie within 4 times the error of the definition in `f32`, or `room` of their size, of those in `f64`.
fn agrees(gpu: Device, builder: fn() -> OptimizerBuilder, shapes: &[Vec<usize>], room: f64) {
    let (cpu, name) = (gradus_cpu::device(), format!("{:?}", builder()));
    let defined = |float| by_definition(|| trained(builder(), shapes, cpu, float)).expect("the definition runs");
    let (exact, narrow) = (defined(DType::F64), defined(DType::F32));
    let got = trained(builder(), shapes, gpu, DType::F32).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(got.len(), exact.len(), "{name}");
    for (part, ((got, narrow), exact)) in got.iter().zip(&narrow).zip(&exact).enumerate() {
        assert_eq!(got.len(), exact.len(), "{name}: the size of tensor {part}");
        let scale = exact.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, ((g, n), e)) in got.iter().zip(narrow).zip(exact).enumerate() {
            let room = (room * scale).max(4.0 * (n - e).abs());
            assert!((g - e).abs() <= room, "{name}, tensor {part}, element {i}: {g} on {gpu}, {n} in f32, {e} exactly");
        }
    }
}

/// Vectors of all sizes, and matrices.
fn shapes() -> Vec<Vec<usize>> {
    let matrices: [&[usize]; 3] = [&[3, 5], &[40, 70], &[33, 31]];
    SIZES.iter().map(|&n| vec![n]).chain(matrices.iter().map(|s| s.to_vec())).collect()
}

#[test]
fn updates_of_many_parameters_are_their_definitions() {
    let _turn = turn();
    let builders: [fn() -> OptimizerBuilder; 8] = [
        || Sgd::new(0.1).weight_decay(0.01).into(),
        || Sgd::new(0.1).momentum(0.9).dampening(0.2).into(),
        || Sgd::new(0.1).momentum(0.9).nesterov().maximize().optimizer().transform(ClipNorm::new(1.0)),
        || Adam::new(0.01).weight_decay(0.1).into(),
        || Adam::new(0.01).amsgrad().optimizer().transform(ClipNorm::new(1.0)), // no kernel has a fourth target
        || AdamW::new(0.01).maximize().optimizer().transform(ClipNorm::new(0.5)),
        || Lion::new(0.01).weight_decay(0.1).into(),
        || Lion::new(0.01).maximize().optimizer().transform(ClipNorm::new(0.5)),
    ];
    for gpu in devices() {
        builders.into_iter().for_each(|b| agrees(gpu, b, &shapes(), 1e-5));
    }
}

/// Groups of other rules, rates and decays in between.
#[test]
fn parameters_of_several_rules_are_updated_by_their_own() {
    let _turn = turn();
    let mixed: fn() -> OptimizerBuilder = || {
        let (adam, sgd) = (Group::matching("1*").rule(AdamW::new(0.02)), Group::matching("7").rule(Sgd::new(0.5)));
        AdamW::new(0.01).optimizer().group(adam).group(sgd).group(Group::matching("2*").weight_decay(0.3))
    };
    devices().into_iter().for_each(|gpu| agrees(gpu, mixed, &shapes(), 1e-5));
}

/// The iteration is computed in `bf16` where a device has it, and in `f32` where it has not; so the devices' own definitions are
/// compared, the directions being of size 1 at most.
#[test]
fn muon_s_updates_are_their_definitions() {
    let _turn = turn();
    let shapes = [vec![4, 4], vec![40, 70], vec![70, 33], vec![1, 9], vec![64, 64]];
    let builders: [fn() -> OptimizerBuilder; 3] = [
        || Muon::new(0.02).into(),
        || Muon::new(0.02).scale(MuonScale::MatchAdamW).without_nesterov().into(),
        || Muon::new(0.02).optimizer().transform(ClipNorm::new(0.5)),
    ];
    for gpu in devices() {
        for builder in builders {
            let fused = trained(builder(), &shapes, gpu, DType::F32).expect("it runs");
            let defined = by_definition(|| trained(builder(), &shapes, gpu, DType::F32)).expect("it runs");
            let room = if gpu.backend().supports(DType::Bf16) { 1e-3 } else { 1e-5 };
            for (part, (a, b)) in fused.iter().zip(&defined).enumerate() {
                let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst <= room, "{:?}, tensor {part}: {worst}", builder());
            }
        }
    }
}

/// How many launches a step makes on gradients that are there.
fn launches(m: &mut Vec<Param>, o: &mut Optimizer, device: Device) -> usize {
    let step = || {
        o.step(m).expect("it steps");
        device.synchronize().expect("the device is well");
    };
    profile(step).1.launches()
}

#[test]
fn many_parameters_are_updated_in_few_launches() -> Result<()> {
    let _turn = turn();
    let shapes: Vec<Vec<usize>> = (1..=32).map(|n| vec![n]).collect();
    for gpu in devices() {
        let kernels = gpu.backend().kernels();
        let all = [
            kernels.has_update::<SgdUpdate>(),
            kernels.has_update::<AdamUpdate>(),
            kernels.has_update::<LionUpdate>(),
            kernels.has_update::<MomentumUpdate>(),
            kernels.has::<NewtonSchulzSum>(),
            kernels.has_update::<MuonUpdate>(),
        ];
        assert_eq!(all, [true; 6], "every update has a kernel");
        let mut few = Vec::new();
        let builders: [OptimizerBuilder; 3] =
            [Sgd::new(0.1).into(), AdamW::new(0.1).into(), AdamW::new(0.1).optimizer().transform(ClipNorm::new(1.0))];
        for builder in builders {
            let mut m = model(&shapes, gpu, DType::F32)?;
            let mut o = builder.build(&m)?;
            set_gradients(&m, 0, DType::F32)?;
            launches(&mut m, &mut o, gpu); // which makes the states
            set_gradients(&m, 1, DType::F32)?;
            few.push(launches(&mut m, &mut o, gpu));
        }
        println!("{gpu}: {few:?} launches");
        // At most 16 tensors a launch, and 29 bindings for their memory where a device has no more. A clip adds its norm (two
        // launches of sums, one for their root) and five launches of single numbers for its factor.
        assert!(few[0] <= 3 && few[1] <= 5 && few[2] <= few[1] + 8, "launches for 32 parameters on {gpu}: {few:?}");
    }
    Ok(())
}
