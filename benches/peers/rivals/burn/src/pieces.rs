//! The cases that are a piece of a training: products, single operations, an update, a block, a head, files.

use crate::inputs::Tensors;
use crate::models::Gpt;
use burn::module::{Module, Param};
use burn::nn::Dropout;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::activation::{gelu, relu};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Int, Tensor};
use burn_store::{BurnpackStore, ModuleSnapshot};
use contract::{LOSSES, Outcome, Result, WARMUP_STEPS, now, sample};
use serde_json::json;
use std::hint::black_box;
use std::path::PathBuf;

/// A clock reading costs as much as a one-element add: blocks are timed.
const OPS_PER_BLOCK: usize = 1000;

fn mean_square<B: Backend, const D: usize>(block: Tensor<B, D>) -> f32 {
    block.square().mean().into_scalar().elem()
}

/// The mean squares of `n` blocks of `rows` rows, from the top.
fn mean_squares<B: Backend>(x: &Tensor<B, 2>, rows: usize, n: usize) -> impl Iterator<Item = f32> {
    (0..n).map(move |i| mean_square(x.clone().narrow(0, i * rows, rows)))
}

/// c = x b. In place of losses: the mean square of each of ten blocks of 100 rows of c.
pub fn matmul<B: AutodiffBackend>(w: &Tensors, data: &Tensors, steps: usize, device: &B::Device) -> Result<Outcome> {
    let (x, b) = (data.get::<B::InnerBackend, 2>("x", device)?, w.get::<B::InnerBackend, 2>("b", device)?);
    let c = x.clone().matmul(b.clone());
    let first_step_at = now();
    let losses = mean_squares(&c, 100, LOSSES).collect();
    let step = sample(steps, 1, WARMUP_STEPS, |_| -> Result<()> {
        black_box(x.clone().matmul(b.clone()));
        Ok(())
    })?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// `add`: x + w. `graph3`: relu(w · x).sum(), forward and backward. Losses: ten SGD steps of it, rate 0.1.
pub fn ops<B: AutodiffBackend>(weights: &Tensors, data: &Tensors, steps: usize, device: &B::Device) -> Result<Outcome> {
    let x = data.get::<B, 1>("x", device)?;
    let mut w = weights.get::<B, 1>("w", device)?.require_grad();
    let graph = |w: &Tensor<B, 1>| relu(w.clone() * x.clone()).sum();
    let (mut losses, mut first_step_at) = (Vec::new(), 0.0);
    for i in 0..LOSSES {
        let loss = graph(&w);
        let grads = loss.backward();
        losses.push(loss.into_scalar().elem());
        if i == 0 {
            first_step_at = now();
        }
        if let Some(grad) = w.grad(&grads) {
            w = Tensor::from_inner(w.inner() - grad * 0.1).require_grad();
        }
    }
    let (a, b) = (x.clone().inner(), w.clone().inner());
    let add = sample(steps, OPS_PER_BLOCK, WARMUP_STEPS, |_| -> Result<()> {
        (0..OPS_PER_BLOCK).for_each(|_| drop(black_box(a.clone() + b.clone())));
        Ok(())
    })?;
    let graph3 = sample((steps / 10).max(WARMUP_STEPS), OPS_PER_BLOCK, WARMUP_STEPS, |_| -> Result<()> {
        (0..OPS_PER_BLOCK).for_each(|_| drop(black_box(graph(&w).backward())));
        Ok(())
    })?;
    Ok(Outcome { losses, first_step_at, rows: json!({"add": add, "graph3": graph3}) })
}

/// Parameters by their number.
#[derive(Module, Debug)]
struct Parameters<B: Backend> {
    p: Vec<Param<Tensor<B, 1>>>,
}

/// The optimizer's step alone. In place of losses: the mean squares of the first ten tensors after ten steps.
pub fn update<B: AutodiffBackend>(w: &Tensors, data: &Tensors, steps: usize, device: &B::Device) -> Result<Outcome> {
    let gradients = data.get::<B::InnerBackend, 2>("x", device)?;
    let gradients: Vec<Tensor<B::InnerBackend, 1>> = gradients.iter_dim(0).map(|g| g.squeeze_dim(0)).collect();
    let p = (0..gradients.len()).map(|i| w.param::<B, 1>(&format!("p{i}"), device)).collect::<Result<_>>()?;
    let mut model = Some(Parameters { p });
    let mut adam = AdamWConfig::new().with_weight_decay(0.01).with_epsilon(1e-8).init();
    let mut step = |model: &mut Option<Parameters<B>>| -> Result<()> {
        let parameters = model.take().ok_or("a step before has failed")?;
        let mut grads = GradientsParams::new(); // an update takes the gradients, so each has a new store of them
        for (param, gradient) in parameters.p.iter().zip(&gradients) {
            grads.register(param.id, gradient.clone());
        }
        *model = Some(adam.step(1e-3, parameters, grads));
        Ok(())
    };
    step(&mut model)?;
    let first_step_at = now();
    for _ in 1..LOSSES {
        step(&mut model)?;
    }
    let losses = model.iter().flat_map(|m| &m.p).take(LOSSES).map(|p| mean_square(p.val().inner())).collect();
    let step = sample(steps, 1, WARMUP_STEPS, |_| step(&mut model))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// In place of losses: mean squares of five blocks of 400 rows of the result, and of x's gradient, without dropout.
pub fn residual<B: AutodiffBackend>(w: &Tensors, data: &Tensors, steps: usize, device: &B::Device) -> Result<Outcome> {
    let x = data.get::<B, 2>("x", device)?;
    let upstream = Tensor::from_inner(x.clone().inner().roll_dim(-1, 0)); // it rolls the other way than PyTorch
    let x = x.require_grad();
    let norm = w.layer_norm::<B>("norm", device)?;
    let run = |prob: f64| -> Result<_> {
        let y = x.clone() + Dropout { prob }.forward(gelu(norm.forward(x.clone())));
        // Burn's backward starts from ones: the upstream gradient comes in by a product.
        let grads = (y.clone() * upstream.clone()).sum().backward();
        Ok((y, x.grad(&grads).ok_or("x has no gradient")?))
    };
    let (y, grad) = run(0.0)?;
    let first_step_at = now();
    let losses = mean_squares(&y.inner(), 400, 5).chain(mean_squares(&grad, 400, 5)).collect();
    drop(grad);
    let step = sample(steps, 1, WARMUP_STEPS, |_| run(0.1).map(drop))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// In place of losses: the loss of four batches, mean squares of the last x's gradient and of five blocks of the weight's.
pub fn head<B: AutodiffBackend>(
    weights: &Tensors,
    data: &Tensors,
    steps: usize,
    warmup: usize,
    device: &B::Device,
) -> Result<Outcome> {
    let weight = weights.get::<B, 2>("weight", device)?.require_grad();
    let (x, y) = (data.get::<B, 3>("x", device)?, data.int::<B, 2>("y", device)?);
    let x: Vec<Tensor<B, 2>> =
        x.iter_dim(0).map(|x| Tensor::from_inner(x.squeeze_dim(0).inner()).require_grad()).collect();
    let y: Vec<Tensor<B, 1, Int>> = y.iter_dim(0).map(|y| y.squeeze_dim(0)).collect();
    let cross_entropy = CrossEntropyLossConfig::new().init(device);
    let run = |i: usize| {
        let (x, y) = (x[i % x.len()].clone(), y[i % y.len()].clone());
        let loss = cross_entropy.forward(x.matmul(weight.clone().transpose()), y);
        let grads = loss.backward();
        (loss, grads)
    };
    let mut losses: Vec<f32> = vec![run(0).0.into_scalar().elem()];
    let first_step_at = now();
    losses.extend((1..x.len() - 1).map(|i| run(i).0.into_scalar().elem::<f32>()));
    let (loss, grads) = run(x.len() - 1);
    losses.push(loss.into_scalar().elem());
    losses.push(mean_square(x[x.len() - 1].grad(&grads).ok_or("x has no gradient")?));
    losses.extend(mean_squares(&weight.grad(&grads).ok_or("the weight has no gradient")?, 10000, 5));
    drop(grads);
    let step = sample(steps, 1, warmup, |i| -> Result<()> {
        black_box(run(i));
        Ok(())
    })?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// A file in memory's file system, removed at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // nothing is lost when it stays
    }
}

/// Parameters and both of Adam's moments.
#[derive(Module, Debug)]
struct State<B: Backend> {
    model: Gpt<B>,
    exp_avg: Gpt<B>,
    exp_avg_sq: Gpt<B>,
}

/// Saved and loaded in Burn's own format. Losses: mean squares of the first ten tensors by name, as loaded.
pub fn files<B: AutodiffBackend>(weights: &Tensors, steps: usize, device: &B::Device) -> Result<Outcome> {
    let file = Scratch(PathBuf::from(format!("/dev/shm/burn-peer-{}.bpk", std::process::id())));
    let gpt = || Gpt::<B::InnerBackend>::of(weights, device);
    let state = State { model: gpt()?, exp_avg: gpt()?, exp_avg_sq: gpt()? };
    let save = || state.save_into(&mut BurnpackStore::from_file(&file.0).overwrite(true)).map_err(|e| e.to_string());
    save()?;
    // Loaded into a module that is there, as a run that resumes does.
    let mut loaded = State { model: gpt()?, exp_avg: gpt()?, exp_avg_sq: gpt()? };
    let mut load = || loaded.load_from(&mut BurnpackStore::from_file(&file.0)).map_err(|e| e.to_string());
    load()?;
    let first_step_at = now();
    let timed = [sample(steps, 1, 1, |_| save())?, sample(steps, 1, 1, |_| load().map(drop))?];
    let block = &loaded.model.h[0];
    let linears = [&block.qkv, &block.out_proj, &block.c_fc, &block.c_proj];
    let mut losses = Vec::new();
    for linear in linears {
        losses.extend(linear.bias.as_ref().map(|bias| mean_square(bias.val())));
        losses.push(mean_square(linear.weight.val()));
    }
    losses.extend(block.ln_1.beta.as_ref().map(|bias| mean_square(bias.val())));
    losses.push(mean_square(block.ln_1.gamma.val()));
    Ok(Outcome { losses, first_step_at, rows: json!({"save": timed[0], "load": timed[1]}) })
}
