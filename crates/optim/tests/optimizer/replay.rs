//! Steps that are recorded and replayed.

use crate::{Model, bits, every_rule, model};
use gradus_core::capture::Captured;
use gradus_core::{Result, Tensor};
use gradus_nn::Module;
use gradus_optim::*;

#[test]
fn a_replayed_step_reads_rates_and_bias_corrections_anew() -> Result<()> {
    let builds: [fn(&Model) -> Result<Optimizer>; 3] = [
        |m| AdamW::new(0.1).optimizer().schedule(Cosine::warmup(3, 12)).transform(ClipNorm::new(1.0)).build(m),
        |m| Sgd::new(0.1).momentum(0.9).dampening(0.5).optimizer().schedule(Exponential::new(0.8)).build(m),
        |m| Sgd::new(0.1).optimizer().schedule(Exponential::new(0.8)).build(m),
    ];
    let every = every_rule().into_iter().map(|b| {
        let build = move |m: &Model| b().schedule(Exponential::new(0.8)).build(m);
        Box::new(build) as Box<dyn Fn(&Model) -> Result<Optimizer>>
    });
    for build in builds.into_iter().map(|b| Box::new(b) as Box<_>).chain(every) {
        let start = || model(&[("layers.a", &[0.5, -1.0, 2.0])]);
        let inputs: Vec<Tensor> = (0..8).map(|i| Tensor::randn([3], gradus_cpu::device(), i as u64)).collect();
        let step = |m: &mut Model, o: &mut Optimizer, x: &Tensor| -> Result<Tensor> {
            let loss = (&*m["layers.a"] * x - 1.0).square().sum();
            loss.try_backward()?;
            o.step(m)?;
            m.zero_grad(); // what outlives a captured step is either returned or gone
            Ok(loss.detach())
        };
        let (mut eager, mut captured) = (start(), start());
        let (mut o1, mut o2) = (build(&eager)?, build(&captured)?);
        let mut record = Captured::new();
        let mut replays = 0;
        for x in &inputs {
            let want = step(&mut eager, &mut o1, x)?.item::<f32>()?;
            replays += usize::from(record.is_recorded());
            o2.prepare()?;
            let got = record.run(&[x], |x| Ok(vec![step(&mut captured, &mut o2, &x[0])?]))?[0].item::<f32>()?;
            assert_eq!(want.to_bits(), got.to_bits());
        }
        assert!(replays >= 5, "{replays} replays");
        assert_eq!(bits(&eager), bits(&captured), "{:?}", o1.rule());
        assert_eq!(o1.state_dict().numbers, o2.state_dict().numbers);
    }
    Ok(())
}

#[test]
fn a_replayed_step_sees_a_state_that_was_loaded() -> Result<()> {
    let builds: [fn(&Model) -> Result<Optimizer>; 2] = [
        |m| Sgd::new(0.1).optimizer().schedule(Exponential::new(0.5)).build(m), // has no tensors of state
        |m| AdamW::new(0.1).optimizer().schedule(Exponential::new(0.5)).build(m),
    ];
    for build in builds {
        let run = |load_at: [usize; 2]| -> Result<Vec<u32>> {
            let mut m = model(&[("layers.a", &[0.5, -1.0, 2.0])]);
            let (mut o, mut record) = (build(&m)?, Captured::new());
            let x = Tensor::randn([3], gradus_cpu::device(), 3);
            let mut saved = o.state_dict();
            for i in 0..6 {
                if i == load_at[0] {
                    saved = o.state_dict();
                    for t in saved.tensors.values_mut() {
                        // A snapshot that shares memory would keep the step from being recorded.
                        *t = Tensor::from_vec(t.to_vec::<f32>()?, *t.shape(), t.device());
                    }
                }
                if i == load_at[1] {
                    o.load_state_dict(&m, &saved)?;
                }
                o.prepare()?;
                record.run(&[&x], |x| {
                    (&*m["layers.a"] * &x[0] - 1.0).square().sum().try_backward()?;
                    o.step(&mut m)?;
                    m.zero_grad();
                    Ok(vec![])
                })?;
            }
            Ok(bits(&m))
        };
        // Loading what was saved at once changes nothing; loading an older state does.
        let never = run([9, 9])?;
        assert_eq!(never, run([4, 4])?);
        assert_ne!(never, run([1, 4])?);
    }
    Ok(())
}
