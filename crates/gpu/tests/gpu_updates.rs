//! Optimizers on a GPU: every fused update against its definition on the CPU in `f64`, and many parameters in one launch.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

mod adapter;

use adapter::{devices, turn};
use gradus_core::tensor::to_device;
use gradus_core::{DType, Device, Key, Result, Tensor, by_definition};
use gradus_gpu::profile::profile;
use gradus_gpu::strategies::bindings;
use gradus_nn::Param;
use gradus_optim::{
    Adam, AdamW, ClipNorm, Group, Lion, LossScale, Muon, MuonScale, NamedGrads, Notes, Optimizer, OptimizerBuilder,
    Rule, Sgd, Transform,
};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

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
fn launches(m: &mut Vec<Param>, o: &mut Optimizer, scale: Option<f64>) -> Result<usize> {
    let (done, counted) = profile(|| -> Result<()> {
        let by = match scale {
            Some(scale) => LossScale::new().initial(scale).checked(m)?.expect("they are finite"),
            None => 1.0,
        };
        o.step_scaled(m, by)?;
        m[0].device().synchronize()
    });
    done.map(|()| counted.launches())
}

/// Of 32 vectors or, for Muon, four matrices.
#[test]
fn many_parameters_are_updated_in_few_launches() -> Result<()> {
    let _turn = turn();
    let vectors: Vec<Vec<usize>> = (1..=32).map(|n| vec![n]).collect();
    let matrices: Vec<Vec<usize>> = vec![vec![8, 8], vec![8, 16], vec![8, 8], vec![8, 32]];
    for gpu in devices() {
        // As many tensors as a launch has bindings for, 16 at most.
        let all = |each: usize| 32usize.div_ceil(((bindings(gpu).expect("it is open") - 2) / each).clamp(1, 16));
        // A norm, and whether all are finite, are a launch more, as is what the clip makes of its norm.
        let (asked, clip) = (all(1) + 1, all(1) + 2);
        let halves = gpu.backend().supports(DType::Bf16);
        // Momentum, the direction, its norm and scale, five times three products and two sums, the step. Halves are
        // rounded besides.
        let muon = 1 + 1 + 2 + 1 + 5 * 5 + 1;
        let cases = [
            (Sgd::new(0.1).optimizer(), None, &vectors, all(2)),
            (AdamW::new(0.1).optimizer(), None, &vectors, all(4)),
            (AdamW::new(0.1).optimizer().transform(ClipNorm::new(1.0)), None, &vectors, all(4) + clip),
            (Sgd::new(0.1).optimizer(), Some(65536.0), &vectors, all(2) + asked + 1),
            (AdamW::new(0.1).optimizer(), Some(65536.0), &vectors, all(4) + asked + 1),
            (AdamW::new(0.1).optimizer().transform(ClipNorm::new(1.0)), Some(65536.0), &vectors, all(4) + clip + asked),
            (Muon::new(0.1).optimizer(), None, &matrices, 4 * muon),
        ];
        for (builder, scale, shapes, want) in cases {
            let name = format!("{builder:?}, scale {scale:?}");
            let mut m = model(shapes, gpu, DType::F32)?;
            let mut o = builder.build(&m)?;
            let dense = |m: &Vec<Param>, key| {
                m.iter().try_for_each(|p| p.set_grad(there(&normal(p.dims(), key), gpu, DType::F32)?))
            };
            dense(&m, 1)?;
            launches(&mut m, &mut o, scale)?; // which makes the states
            dense(&m, 2)?;
            let got = launches(&mut m, &mut o, scale)?;
            println!("{gpu}: {got} launches for {} parameters: {name}", shapes.len());
            assert!(got == want || halves && shapes.len() == 4, "{got} launches on {gpu}, not {want}: {name}");
        }
    }
    Ok(())
}

/// Multiplies gradients with a third.
#[derive(Debug)]
struct Third;

impl Transform for Third {
    fn name(&self) -> &'static str {
        "Third"
    }
    fn apply(&self, grads: &mut NamedGrads, _notes: &mut Notes) -> Result<()> {
        grads.iter_mut().for_each(|g| g.grad = &g.grad / 3.0);
        Ok(())
    }
    fn factor(&self, grads: &NamedGrads, by: f64, _notes: &mut Notes) -> Result<Option<Tensor>> {
        Tensor::try_full((), by / 3.0, grads[0].grad.device()).map(Some)
    }
}

/// A factor is brought to the gradients' dtype once: an update with another factor would be a launch of its own.
#[test]
fn halves_share_a_factor() -> Result<()> {
    let _turn = turn();
    let shapes: Vec<Vec<usize>> = (1..=32).map(|n| vec![n]).collect();
    for gpu in devices().into_iter().filter(|d| d.backend().supports(DType::F16)) {
        let mut m = model(&shapes, gpu, DType::F16)?;
        let mut o = Sgd::new(0.1).optimizer().transform(Third).build(&m)?;
        set_gradients(&m, 0, DType::F16)?;
        let got = launches(&mut m, &mut o, None)?;
        let updates = 32usize.div_ceil(((bindings(gpu)? - 2) / 2).clamp(1, 16));
        assert_eq!(got, updates + 2, "on {gpu}: the factor, its cast, and the updates");
    }
    Ok(())
}

/// An overflow is told, and touches nothing; the next step goes on.
#[test]
fn a_step_whose_gradients_overflow_is_skipped() -> Result<()> {
    let _turn = turn();
    for gpu in devices() {
        let mut m = model(&shapes(), gpu, DType::F32)?;
        let mut o = AdamW::new(0.01).optimizer().transform(ClipNorm::new(1.0)).build(&m)?;
        let mut scale = LossScale::new().initial(8.0);
        let all = |m: &[Param], o: &Optimizer| -> Result<Vec<Vec<f64>>> {
            m.iter().map(|p| p.value()).chain(o.state_dict().tensors.values()).map(numbers).collect()
        };
        let mut step = |m: &mut Vec<Param>, o: &mut Optimizer| -> Result<bool> {
            let by = scale.checked(&*m)?;
            by.map_or(Ok(()), |by| o.step_scaled(m, by).map(drop))?;
            Ok(by.is_some())
        };
        set_gradients(&m, 0, DType::F32)?;
        assert!(step(&mut m, &mut o)?);
        let before = all(&m, &o)?;
        set_gradients(&m, 1, DType::F32)?;
        let last = m.last().expect("there are some");
        last.set_grad(Tensor::try_full(*last.shape(), f64::INFINITY, gpu)?)?;
        assert!(!step(&mut m, &mut o)?);
        assert_eq!(all(&m, &o)?, before);
        set_gradients(&m, 2, DType::F32)?;
        assert!(step(&mut m, &mut o)? && all(&m, &o)? != before && scale.skipped() == 1);
    }
    Ok(())
}

/// A thread updates parameters, which wait; then it asks for something else, while another thread reads them and updates others. In
/// whichever order the two are launched, what is read is updated.
#[test]
fn what_another_thread_reads_is_updated() {
    let _turn = turn();
    const ROUNDS: usize = 600;
    for gpu in devices() {
        let zeros = |count: usize| -> Vec<Param> { (0..count).map(|_| Param::new(Tensor::zeros([5], gpu))).collect() };
        let counts = |m: &mut Vec<Param>, o: &mut Optimizer| {
            m.iter().try_for_each(|p| p.set_grad(Tensor::ones([5], gpu)))?;
            o.step(m).map(drop)
        };
        let optimizer = |m: &Vec<Param>| Sgd::new(1.0).maximize().optimizer().build(m).expect("it is sound");
        let (asked, meet) = (AtomicUsize::new(0), Barrier::new(2));
        let (send, receive) = channel::<Vec<Tensor>>();
        let (read, own) = std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                let send = send;
                let (mut m, mut others) = (zeros(13), zeros(3));
                let mut o = optimizer(&m);
                let mut other = AdamW::new(0.1).optimizer().build(&others).expect("it is sound");
                for round in 0..ROUNDS {
                    let done = counts(&mut m, &mut o);
                    let values = m.iter().map(|p| p.detach()).collect();
                    let _ = send.send(if done.is_ok() { values } else { Vec::new() });
                    asked.store(round + 1, Ordering::Release);
                    let _ = match round % 2 {
                        0 => counts(&mut others, &mut other), // another kind: what waits is launched for it
                        _ => others[0].to_vec::<f32>().map(drop),
                    };
                    meet.wait();
                }
            });
            let second = scope.spawn(|| {
                let receive = receive;
                let mut read: Vec<Vec<f32>> = Vec::new();
                let mut m = zeros(2);
                let mut o = optimizer(&m);
                for round in 0..ROUNDS {
                    let values = receive.recv().unwrap_or_default();
                    while asked.load(Ordering::Acquire) <= round {
                        std::hint::spin_loop();
                    }
                    // Another moment of the other thread's launch in each round.
                    (0..round % 25 * 20).for_each(|_| std::hint::spin_loop());
                    if round % 3 == 0 {
                        let _ = counts(&mut m, &mut o);
                    }
                    let last = values.last().map(|last| if round % 2 == 0 { last.clone() } else { last * 1.0 });
                    read.push(last.and_then(|last| last.to_vec().ok()).unwrap_or_default());
                    drop(values); // the updates to come are in place
                    meet.wait();
                }
                (read, m[0].to_vec::<f32>())
            });
            first.join().expect("it ends");
            second.join().expect("it ends")
        });
        for (round, read) in read.iter().enumerate() {
            assert_eq!(*read, [(round + 1) as f32; 5], "round {round} on {gpu}");
        }
        assert_eq!(own.expect("the device works"), [ROUNDS.div_ceil(3) as f32; 5]);
    }
}
