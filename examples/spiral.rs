//! A network by hand, without `Trainer`: two layers tell the arms of a spiral apart. Plain tensors, backward, and an update in
//! place; ends with exit code 1 if it did not learn. `cargo run --release --example spiral`

use gradus::prelude::*;
use std::process::ExitCode;

const ARMS: usize = 3;
const POINTS: usize = 100;
const HIDDEN: usize = 64;

/// Points `[ARMS·POINTS, 2]` on arms that wind around the origin, a little noise, and the arm of each.
fn spiral(device: Device) -> Result<(Tensor, Tensor)> {
    let noise = Tensor::randn([ARMS * POINTS], device, 1).to_vec::<f32>()?;
    let (mut points, mut arms) = (Vec::new(), Vec::new());
    for arm in 0..ARMS {
        for i in 0..POINTS {
            let radius = i as f32 / POINTS as f32;
            let angle =
                radius * 4.0 + arm as f32 * std::f32::consts::TAU / ARMS as f32 + 0.15 * noise[arm * POINTS + i];
            points.extend([radius * angle.sin(), radius * angle.cos()]);
            arms.push(arm as i64);
        }
    }
    Ok((Tensor::try_from_vec(points, [ARMS * POINTS, 2], device)?, Tensor::from_slice(&arms, device)))
}

fn main() -> Result<ExitCode> {
    let device = Device::cpu();
    let (x, target) = spiral(device)?;

    // Weights as leaves: gradients gather in them. A key names the random numbers, so every run draws the same.
    let key = Key::new(42);
    let mut weights = [
        (Tensor::randn([2, HIDDEN], device, key.fold("w1")) * 1.0).requires_grad(),
        Tensor::zeros([HIDDEN], device).requires_grad(),
        (Tensor::randn([HIDDEN, ARMS], device, key.fold("w2")) * 0.1).requires_grad(),
        Tensor::zeros([ARMS], device).requires_grad(),
    ];
    let network = |w: &[Tensor; 4]| (x.matmul(&w[0]) + &w[1]).tanh().matmul(&w[2]) + &w[3]; // [points, arms]
    let accuracy = |logits: &Tensor| logits.argmax(-1, false).eq(&target).to_dtype(DType::F32).mean().item::<f32>();

    for step in 0..=1500 {
        let logits = network(&weights);
        let loss = logits.cross_entropy(&target);
        if step % 250 == 0 {
            println!("step {step:4}  loss {:.4}  accuracy {:.3}", loss.item::<f32>()?, accuracy(&logits)?);
        }
        loss.backward();
        drop((logits, loss)); // they hold the old weights; without them the update needs no copy
        for w in &mut weights {
            if let Some(grad) = w.take_grad() {
                let new = w.detach() - grad * 1.0; // the learning rate
                w.write_value(&new)?; // the leaf stays the same leaf
            }
        }
    }

    let reached = no_grad(|| accuracy(&network(&weights)))?;
    println!("accuracy {reached:.3}");
    Ok(if reached >= 0.95 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
