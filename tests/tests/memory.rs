//! Long runs take no more memory than short ones.

use gradus_core::backend::MemoryReport;
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

/// A network in training, one step at a time, recorded and replayed or eagerly; gives how many steps were replays.
fn trainee(mut captured: Option<Captured>) -> Result<impl FnMut() -> Result<u64>> {
    let cpu = gradus_cpu::device();
    let mut init = Init::new(cpu, 5);
    let net = Sequential::new().add(Linear::new(64, 24, &mut init)).add(Relu).add(Dropout::new(0.3));
    let mut net = net.add(Linear::new(24, 10, &mut init)).with_paths();
    let mut optimizer = AdamW::new(1e-3).optimizer().transform(ClipNorm::new(1.0)).build(&net)?;
    let (cell, mut done) = (Slot::new(0.0), 0u64);
    Ok(move || {
        let x = Tensor::randn([8, 64], cpu, Key::new(12).fold_in(done));
        let y = Tensor::randint(0, 10, [8], cpu, Key::new(11).fold_in(done));
        cell.set(done as f64);
        done += 1;
        optimizer.prepare()?;
        let key = Key::new(3).at_slot(&cell);
        let step = |x: &Tensor, y: &Tensor| -> Result<Tensor> {
            let loss = net.call(x, &Cx::new(Mode::Train, key)).cross_entropy(y);
            loss.try_backward()?;
            optimizer.step(&mut net)?;
            net.zero_grad();
            Ok(loss.detach())
        };
        let Some(captured) = &mut captured else {
            return step(&x, &y)?.item::<f32>().map(|_| 0);
        };
        captured.run(&[&x, &y], |x| Ok(vec![step(&x[0], &x[1])?]))?[0].item::<f32>()?;
        Ok(captured.replays())
    })
}

/// The only test of this file, so that nothing else of the process takes memory.
#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_steps_take_the_memory_of_a_thousand() -> Result<()> {
    let device: Device = gradus_cpu::device();
    for (form, captured) in
        [("eager", None), ("guarded", Some(Captured::new())), ("unchecked", Some(Captured::unchecked()))]
    {
        let recorded = captured.is_some();
        let mut step = trainee(captured)?;
        let (mut at, mut replays) = (Vec::new(), 0);
        for n in 1..=10_000 {
            replays = step()?;
            if n % 1000 == 0 {
                at.push((resident(), device.memory().in_use));
            }
        }
        assert_eq!(replays > 9_900, recorded, "{replays} replays");
        println!("{form}; resident and in use after each 1000 steps: {at:?}");
        let ((first, used), (last, still)) = (at[0], at[9]);
        assert_eq!(used, still, "bytes of live tensors");
        assert!(last <= first + (1 << 20), "{form}: resident: {first} bytes, then {last}");
    }
    figures_tell_what_is_held_and_trimming_gives_the_rest_back(device)
}

/// A part of the test above, as nothing else of the process may take memory.
#[cfg(target_os = "linux")]
fn figures_tell_what_is_held_and_trimming_gives_the_rest_back(device: Device) -> Result<()> {
    const LARGE: usize = 64 << 20;
    gradus_cpu::trim();
    let (before, held) = (device.memory(), resident());
    let x = Tensor::ones([LARGE / 4], device);
    let with = device.memory();
    assert!(with.in_use >= before.in_use + LARGE && with.peak >= with.in_use, "{before:?}, then {with:?}");
    assert!(with.reserved >= before.reserved + LARGE && resident() >= held + LARGE / 2, "{before:?}, then {with:?}");
    drop(x);
    let after = device.memory();
    assert_eq!((after.in_use, after.peak, after.reserved), (before.in_use, with.peak, with.reserved));
    gradus_cpu::trim();
    assert_eq!(device.memory(), MemoryReport { peak: with.peak, ..before });
    assert!(resident() < held + LARGE / 2, "resident: {held} bytes, then {}", resident());
    // Blocks of each small size, taken and given back: each is counted as it was.
    drop((1..600).map(|n| Tensor::ones([n], device)).collect::<Vec<_>>());
    gradus_cpu::trim();
    assert_eq!(device.memory().reserved, before.reserved);
    Ok(())
}
