//! The cases that are a piece of a training: products, single operations, an update, a block, a head, files.

use crate::inputs::Tensors;
use contract::{LOSSES, Outcome, WARMUP_STEPS, now, sample};
use gradus::nn::{Cx, Dropout, Gelu, Layer, Module, Param, loss::CrossEntropy};
use gradus::optim::{AdamW, Rule};
use gradus::{Device, Devices, Error, Result, Tensor, io, no_grad};
use serde_json::json;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::PathBuf;

/// A clock reading costs as much as a one-element add: blocks are timed.
const OPS_PER_BLOCK: usize = 1000;

/// c = x b. In place of losses: the mean square of each of ten blocks of 100 rows of c.
pub fn matmul(weights: &Tensors, data: &Tensors, steps: usize) -> Result<Outcome> {
    let (x, b) = (data.get("x")?, weights.get("b")?);
    let c = x.try_matmul(b)?;
    let first_step_at = now();
    let block = |i| c.try_narrow(0, 100 * i, 100)?.square().mean().item();
    let losses = (0..LOSSES).map(block).collect::<Result<_>>()?;
    let step = sample(steps, 1, WARMUP_STEPS, |_| x.try_matmul(b).map(|c| drop(black_box(c))))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// `add`: x + w. `graph3`: relu(w · x).sum(), forward and backward. Losses: ten SGD steps of it, rate 0.1.
pub fn ops(weights: &Tensors, data: &Tensors, steps: usize) -> Result<Outcome> {
    let (x, plain) = (data.get("x")?, weights.get("w")?);
    let mut w = plain.requires_grad();
    let (mut losses, mut first_step_at) = (Vec::new(), 0.0);
    for i in 0..LOSSES {
        let loss = (&w * x).relu().sum();
        loss.backward();
        losses.push(loss.item()?);
        if i == 0 {
            first_step_at = now();
        }
        if let Some(grad) = w.take_grad() {
            w = no_grad(|| &w - grad * 0.1).requires_grad();
        }
    }
    let add = sample(steps, OPS_PER_BLOCK, WARMUP_STEPS, |_| -> Result<()> {
        (0..OPS_PER_BLOCK).for_each(|_| drop(black_box(x + plain)));
        Ok(())
    })?;
    let graph3 = sample((steps / 10).max(WARMUP_STEPS), OPS_PER_BLOCK, WARMUP_STEPS, |_| -> Result<()> {
        for _ in 0..OPS_PER_BLOCK {
            w.zero_grad();
            (&w * x).relu().sum().backward();
        }
        Ok(())
    })?;
    Ok(Outcome { losses, first_step_at, rows: json!({"add": add, "graph3": graph3}) })
}

fn mean_squares<'a>(blocks: impl IntoIterator<Item = &'a Tensor>) -> Result<Vec<f32>> {
    blocks.into_iter().map(|block| block.detach().square().mean().item()).collect()
}

/// Blocks of `rows` rows, `n` of them, from the top.
fn blocks(x: &Tensor, rows: usize, n: usize) -> Result<Vec<Tensor>> {
    (0..n).map(|i| x.try_narrow(0, i * rows, rows)).collect()
}

/// Parameters by their number: `p.0`, `p.1`, …
#[derive(Module)]
struct Parameters {
    p: Vec<Param>,
}

/// The optimizer's step alone. In place of losses: the mean squares of the first ten tensors after ten steps.
pub fn update(weights: &Tensors, data: &Tensors, steps: usize) -> Result<Outcome> {
    let gradients = data.unbind("x")?;
    let p = (0..gradients.len()).map(|i| Param::try_new(weights.get(&format!("p{i}"))?.clone()));
    let mut model = Parameters { p: p.collect::<Result<_>>()? };
    for (param, gradient) in model.p.iter().zip(gradients) {
        param.set_grad(gradient)?;
    }
    let mut optimizer = AdamW::new(1e-3).optimizer().build(&model)?;
    optimizer.step(&mut model)?;
    let first_step_at = now();
    for _ in 1..LOSSES {
        optimizer.step(&mut model)?;
    }
    let losses = mean_squares(model.p.iter().take(LOSSES).map(Param::value))?;
    let step = sample(steps, 1, WARMUP_STEPS, |_| optimizer.step(&mut model).map(drop))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// In place of losses: mean squares of five blocks of 400 rows of the result, and of x's gradient, without dropout.
pub fn residual(weights: &Tensors, data: &Tensors, steps: usize) -> Result<Outcome> {
    let x = data.get("x")?.requires_grad();
    let (weight, bias) = (weights.get("norm.weight")?.requires_grad(), weights.get("norm.bias")?.requires_grad());
    let upstream = data.get("x")?.roll(1, 0);
    let run = |i: usize, p: f64| -> Result<Tensor> {
        [&x, &weight, &bias].into_iter().for_each(Tensor::zero_grad);
        let cx = Cx::train(0, i as u32);
        let hidden = x.try_layer_norm([1024], Some(&weight), Some(&bias), 1e-5)?;
        let y = Dropout::new(p).call_add(&Gelu.call(&hidden, &cx), &x, &cx);
        y.try_backward_with(Some(&upstream), Default::default())?;
        Ok(y)
    };
    let y = run(0, 0.0)?;
    let first_step_at = now();
    let grad = x.grad().ok_or_else(|| Error::data("x has no gradient"))?;
    let losses = mean_squares(blocks(&y, 400, 5)?.iter().chain(&blocks(&grad, 400, 5)?))?;
    drop((y, grad));
    let step = sample(steps, 1, WARMUP_STEPS, |i| run(i, 0.1).map(drop))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// In place of losses: the loss of four batches, mean squares of the last x's gradient and of five blocks of the weight's.
pub fn head(weights: &Tensors, data: &Tensors, steps: usize, warmup: usize) -> Result<Outcome> {
    let weight = weights.get("weight")?.requires_grad();
    let x: Vec<Tensor> = data.unbind("x")?.iter().map(Tensor::requires_grad).collect();
    let y = data.unbind("y")?;
    let run = |i: usize| -> Result<Tensor> {
        let (x, y) = (&x[i % x.len()], &y[i % y.len()]);
        x.zero_grad();
        weight.zero_grad();
        let loss = CrossEntropy::new().try_of_linear(x, &weight, None, y, None)?;
        loss.try_backward()?;
        Ok(loss)
    };
    let mut losses = vec![run(0)?.item()?];
    let first_step_at = now();
    for i in 1..x.len() {
        losses.push(run(i)?.item()?);
    }
    let missing = || Error::data("there is no gradient");
    let last = x[x.len() - 1].grad().ok_or_else(missing)?;
    let of_weight = weight.grad().ok_or_else(missing)?;
    losses.extend(mean_squares([&last].into_iter().chain(&blocks(&of_weight, 10000, 5)?))?);
    drop((last, of_weight));
    let step = sample(steps, 1, warmup, |i| run(i).map(drop))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// A file in memory's file system, removed at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // nothing is lost when it stays
    }
}

/// Parameters and both of Adam's moments, saved, loaded and mapped. Losses: mean squares of ten loaded tensors.
pub fn files(weights: &Tensors, steps: usize) -> Result<Outcome> {
    let file = Scratch(PathBuf::from(format!("/dev/shm/gradus-peer-{}.safetensors", std::process::id())));
    let mut state = BTreeMap::new();
    for part in ["model", "exp_avg", "exp_avg_sq"] {
        for (name, tensor) in &weights.0 {
            state.insert(format!("{part}.{name}"), tensor * 1.0);
        }
    }
    let save = || io::save(&file.0, &state, &BTreeMap::new());
    save()?;
    let loaded = io::load(&file.0, Device::cpu())?;
    let first_step_at = now();
    let losses = mean_squares(weights.0.keys().take(LOSSES).map(|name| &loaded[&format!("model.{name}")]))?;
    drop(loaded);
    let load = |_| io::load(&file.0, Device::cpu()).map(|t| drop(black_box(t))).map_err(Error::from);
    let map = |_| io::SafeTensors::open_mapped(&file.0).map(|f| drop(black_box(f))).map_err(Error::from);
    let save = sample(steps, 1, 1, |_| -> Result<()> { Ok(save()?) })?;
    let rows = json!({"save": save, "load": sample(steps, 1, 1, load)?, "map": sample(steps, 1, 1, map)?});
    Ok(Outcome { losses, first_step_at, rows })
}
