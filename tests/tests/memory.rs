//! Long runs take no more memory than short ones.

use gradus_core::capture::Captured;
use gradus_core::rng::Key;
use gradus_core::{Device, Result, Slot, Tensor};
use gradus_nn::*;
use gradus_optim::*;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells how much memory a process has");
    let pages: usize = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("its second number");
    pages * 4096
}

/// A network in training, one step at a time; recorded and replayed, or eagerly.
fn trainee(replayed: bool) -> Result<impl FnMut() -> Result<f32>> {
    let cpu = gradus_cpu::device();
    let mut init = Init::new(cpu, 5);
    let net = Sequential::new().add(Linear::new(64, 24, &mut init)).add(Relu).add(Dropout::new(0.3));
    let mut net = net.add(Linear::new(24, 10, &mut init)).with_paths();
    let mut optimizer = AdamW::new(1e-3).optimizer().transform(ClipNorm::new(1.0)).build(&net)?;
    let (mut captured, cell, mut done) = (Captured::new(), Slot::new(0.0), 0u64);
    Ok(move || {
        let x = Tensor::randn([8, 64], cpu, Key::new(12).fold_in(done));
        let y = Tensor::randint(0, 10, [8], cpu, Key::new(11).fold_in(done));
        cell.set(done as f64);
        done += 1;
        optimizer.prepare()?;
        let key = Key::new(3).at_slot(&cell);
        let step = |x: &Tensor, y: &Tensor| {
            let loss = net.call(x, &Cx::new(Mode::Train, key)).cross_entropy(y);
            loss.try_backward()?;
            optimizer.step(&mut net)?;
            net.zero_grad();
            Ok(loss.detach())
        };
        if !replayed {
            return step(&x, &y)?.item();
        }
        captured.run(&[&x, &y], |x| Ok(vec![step(&x[0], &x[1])?]))?[0].item()
    })
}

/// The only test of this file, so that nothing else of the process takes memory.
#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_steps_take_the_memory_of_a_thousand() -> Result<()> {
    let device: Device = gradus_cpu::device();
    for replayed in [false, true] {
        let mut step = trainee(replayed)?;
        let mut at = Vec::new();
        for n in 1..=10_000 {
            step()?;
            if n % 1000 == 0 {
                at.push((resident(), device.memory().in_use));
            }
        }
        println!("replayed: {replayed}; resident and in use after each 1000 steps: {at:?}");
        let ((first, used), (last, still)) = (at[0], at[9]);
        assert_eq!(used, still, "bytes of live tensors");
        assert!(last <= first + (1 << 20), "resident: {first} bytes, then {last}");
    }
    Ok(())
}
