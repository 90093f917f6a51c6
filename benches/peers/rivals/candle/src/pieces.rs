//! The cases that are a piece of a training: products, single operations, an update, a block, a head, files.

use crate::{Tensors, get};
use candle_core::{Device, Tensor, Var, safetensors};
use candle_nn::{AdamW, Dropout, Linear, Module, Optimizer, ParamsAdamW, loss, ops};
use contract::{LOSSES, Outcome, Result, WARMUP_STEPS, now, sample};
use serde_json::json;
use std::collections::HashMap;
use std::hint::black_box;
use std::path::PathBuf;

/// A clock reading costs as much as a one-element add: blocks are timed.
const OPS_PER_BLOCK: usize = 1000;

fn mean_squares(blocks: impl IntoIterator<Item = candle_core::Result<Tensor>>) -> Result<Vec<f32>> {
    blocks.into_iter().map(|block| Ok(block?.detach().sqr()?.mean_all()?.to_scalar()?)).collect()
}

/// c = x b. In place of losses: the mean square of each of ten blocks of 100 rows of c.
pub fn matmul(weights: &Tensors, data: &Tensors, steps: usize) -> Result<Outcome> {
    let (x, b) = (get(data, "x")?, get(weights, "b")?);
    let c = x.matmul(b)?;
    let first_step_at = now();
    let losses = mean_squares((0..LOSSES).map(|i| c.narrow(0, 100 * i, 100)))?;
    let step = sample(steps, 1, WARMUP_STEPS, |_| x.matmul(b).map(|c| drop(black_box(c))))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// `add`: x + w. `graph3`: relu(w · x).sum(), forward and backward. Losses: ten SGD steps of it, rate 0.1.
pub fn ops(weights: &Tensors, data: &Tensors, steps: usize) -> Result<Outcome> {
    let (x, plain) = (get(data, "x")?, get(weights, "w")?);
    let w = Var::from_tensor(plain)?;
    let graph = || (w.as_tensor() * x)?.relu()?.sum_all();
    let (mut losses, mut first_step_at) = (Vec::new(), 0.0);
    for i in 0..LOSSES {
        let loss = graph()?;
        let grads = loss.backward()?;
        losses.push(loss.to_scalar()?);
        if i == 0 {
            first_step_at = now();
        }
        if let Some(grad) = grads.get(&w) {
            w.set(&(w.as_tensor() - (grad * 0.1)?)?)?;
        }
    }
    let add = sample(steps, OPS_PER_BLOCK, WARMUP_STEPS, |_| -> Result<()> {
        for _ in 0..OPS_PER_BLOCK {
            black_box((x + plain)?);
        }
        Ok(())
    })?;
    let graph3 = sample((steps / 10).max(WARMUP_STEPS), OPS_PER_BLOCK, WARMUP_STEPS, |_| -> Result<()> {
        for _ in 0..OPS_PER_BLOCK {
            black_box(graph()?.backward()?);
        }
        Ok(())
    })?;
    Ok(Outcome { losses, first_step_at, rows: json!({"add": add, "graph3": graph3}) })
}

/// The optimizer's step alone. In place of losses: the mean squares of the first ten tensors after ten steps.
pub fn update(weights: &Tensors, data: &Tensors, steps: usize) -> Result<Outcome> {
    let gradients = get(data, "x")?;
    let var = |i| -> Result<Var> { Ok(Var::from_tensor(get(weights, &format!("p{i}"))?)?) };
    let vars = (0..gradients.dim(0)?).map(var).collect::<Result<Vec<_>>>()?;
    let mut grads = vars[0].sum_all()?.backward()?; // a store to put the given gradients in
    for (i, var) in vars.iter().enumerate() {
        grads.insert(var, gradients.get(i)?.copy()?);
    }
    let mut adam = AdamW::new(vars.clone(), ParamsAdamW::default())?; // PyTorch's defaults, rate 0.001
    adam.step(&grads)?;
    let first_step_at = now();
    for _ in 1..LOSSES {
        adam.step(&grads)?;
    }
    let losses = mean_squares(vars.iter().take(LOSSES).map(|var| Ok(var.as_tensor().clone())))?;
    let step = sample(steps, 1, WARMUP_STEPS, |_| adam.step(&grads))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// In place of losses: mean squares of five blocks of 400 rows of the result, and of x's gradient, without dropout.
pub fn residual(weights: &Tensors, data: &Tensors, steps: usize) -> Result<Outcome> {
    let x = Var::from_tensor(get(data, "x")?)?;
    let (weight, bias) =
        (Var::from_tensor(get(weights, "norm.weight")?)?, Var::from_tensor(get(weights, "norm.bias")?)?);
    let upstream = get(data, "x")?.roll(1, 0)?;
    let run = |train: bool| -> Result<_> {
        let hidden = ops::layer_norm_slow(&x, &weight, &bias, 1e-5)?.gelu_erf()?;
        let y = (x.as_tensor() + Dropout::new(0.1).forward(&hidden, train)?)?;
        // candle's backward starts from ones: the upstream gradient comes in by a product.
        let grads = (&y * &upstream)?.backward()?;
        Ok((y, grads))
    };
    let (y, grads) = run(false)?;
    let first_step_at = now();
    let grad = grads.get(&x).ok_or("x has no gradient")?;
    let losses = mean_squares([&y, grad].into_iter().flat_map(|t| (0..5).map(|i| t.narrow(0, 400 * i, 400))))?;
    drop((y, grads));
    let step = sample(steps, 1, WARMUP_STEPS, |_| run(true).map(drop))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// In place of losses: the loss of four batches, mean squares of the last x's gradient and of five blocks of the weight's.
pub fn head(weights: &Tensors, data: &Tensors, steps: usize, warmup: usize) -> Result<Outcome> {
    let weight = Var::from_tensor(get(weights, "weight")?)?;
    let layer = Linear::new(weight.as_tensor().clone(), None);
    let (x, y) = (get(data, "x")?, get(data, "y")?);
    let batch = |i| -> Result<(Var, Tensor)> { Ok((Var::from_tensor(&x.get(i)?.copy()?)?, y.get(i)?.copy()?)) };
    let batches = (0..x.dim(0)?).map(batch).collect::<Result<Vec<_>>>()?;
    let run = |i: usize| -> Result<_> {
        let (x, y) = &batches[i % batches.len()];
        let loss = loss::cross_entropy(&layer.forward(x)?, y)?;
        let grads = loss.backward()?;
        Ok((loss, grads))
    };
    let mut losses = vec![run(0)?.0.to_scalar()?];
    let first_step_at = now();
    for i in 1..batches.len() - 1 {
        losses.push(run(i)?.0.to_scalar()?);
    }
    let (loss, grads) = run(batches.len() - 1)?;
    losses.push(loss.to_scalar()?);
    let of_x = grads.get(&batches[batches.len() - 1].0).ok_or("x has no gradient")?;
    let of_weight = grads.get(&weight).ok_or("the weight has no gradient")?;
    let blocks = (0..5).map(|i| of_weight.narrow(0, 10000 * i, 10000));
    losses.extend(mean_squares([Ok(of_x.clone())].into_iter().chain(blocks))?);
    drop((loss, grads));
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
    let file = Scratch(PathBuf::from(format!("/dev/shm/candle-peer-{}.safetensors", std::process::id())));
    let mut state = HashMap::new();
    for part in ["model", "exp_avg", "exp_avg_sq"] {
        for (name, tensor) in weights {
            state.insert(format!("{part}.{name}"), tensor.copy()?);
        }
    }
    let save = || safetensors::save(&state, &file.0);
    let load = || safetensors::load(&file.0, &Device::Cpu);
    save()?;
    let loaded = load()?;
    let first_step_at = now();
    let mut names: Vec<&String> = weights.keys().collect();
    names.sort();
    let losses = mean_squares(names[..LOSSES].iter().map(|name| Ok(loaded[&format!("model.{name}")].clone())))?;
    drop(loaded);
    let rows = json!({
        "save": sample(steps, 1, 1, |_| save())?,
        "load": sample(steps, 1, 1, |_| load().map(|t| drop(black_box(t))))?,
        // SAFETY: nobody else knows the file.
        "map": sample(steps, 1, 1, |_| unsafe { safetensors::MmapedSafetensors::new(&file.0) }.map(|f| drop(black_box(f))))?,
    });
    Ok(Outcome { losses, first_step_at, rows })
}
