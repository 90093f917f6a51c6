//! The cases that train a model: single steps, and whole epochs.

use crate::models::{Cnn, Gpt, Mlp, Model, Sequences};
use crate::{Tensors, get};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, SGD, VarBuilder, VarMap, loss};
use contract::{Case, LOSSES, Options, Outcome, Result, now, sample};
use rand::seq::SliceRandom;
use serde_json::json;

enum Update {
    Sgd(SGD),
    Adam(AdamW),
}

/// One model from the given weights, its optimizer and its batches; `step(i)` is forward, backward and update.
struct Training {
    model: Box<dyn Model>,
    update: Update,
    batches: Vec<(Tensor, Tensor)>,
}

impl Training {
    fn new(case: Case, weights: &Tensors, batches: Vec<(Tensor, Tensor)>, dropout: bool) -> Result<Training> {
        let map = VarMap::new();
        {
            let mut vars = map.data().lock().map_err(|_| "the map of variables is broken")?;
            for (name, tensor) in weights {
                vars.insert(name.clone(), Var::from_tensor(&tensor.copy()?)?);
            }
        }
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let model: Box<dyn Model> = match case {
            Case::C1 => Box::new(Mlp::new(64, 32, 10, vb)?),
            Case::C2 | Case::C12 => Box::new(Mlp::new(784, 128, 10, vb)?),
            Case::C3 => Box::new(Sequences::new(28, 128, 10, vb)?),
            Case::C4 => Box::new(Cnn::new(dropout, vb)?),
            Case::C6 => Box::new(Gpt::new(4, 128, 65, 64, vb)?),
            Case::C7 => Box::new(Gpt::new(6, 384, 65, 256, vb)?),
            Case::C11 => Box::new(Gpt::new(12, 768, 50257, 1024, vb)?),
            Case::C5 => return Err("candle's SGD has no momentum".into()),
            case => return Err(format!("{case:?} trains no model here").into()),
        };
        let adam = |lr: f64, weight_decay: f64| ParamsAdamW { lr, weight_decay, ..Default::default() };
        let vars = map.all_vars();
        let update = match case {
            Case::C1 => Update::Sgd(SGD::new(vars, 0.1)?),
            Case::C3 | Case::C4 => Update::Adam(AdamW::new(vars, adam(1e-3, 0.0))?), // which is Adam
            Case::C11 => Update::Adam(AdamW::new(vars, adam(1e-4, 0.01))?),
            _ => Update::Adam(AdamW::new(vars, adam(1e-3, 0.01))?),
        };
        Ok(Training { model, update, batches })
    }

    fn step(&mut self, i: usize) -> Result<Tensor> {
        let (x, y) = self.batches[i % self.batches.len()].clone();
        self.learn(&x, &y)
    }

    fn learn(&mut self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let mut logits = self.model.forward(x)?;
        if logits.rank() == 3 {
            logits = logits.flatten_to(1)?; // tokens: [batch, length]
        }
        let loss = loss::cross_entropy(&logits, &y.flatten_all()?)?;
        match &mut self.update {
            Update::Sgd(sgd) => sgd.backward_step(&loss)?,
            Update::Adam(adam) => adam.backward_step(&loss)?,
        }
        Ok(loss)
    }
}

fn first_losses(case: Case, weights: &Tensors, batches: Vec<(Tensor, Tensor)>) -> Result<(Vec<f32>, f64)> {
    let mut training = Training::new(case, weights, batches, false)?;
    let mut losses = vec![training.step(0)?.to_scalar()?];
    let first_step_at = now();
    for i in 1..LOSSES {
        losses.push(training.step(i)?.to_scalar()?);
    }
    Ok((losses, first_step_at))
}

pub fn train(options: &Options, weights: &Tensors, data: &Tensors) -> Result<Outcome> {
    let (x, y) = (get(data, "x")?, get(data, "y")?);
    let batch = |i| -> Result<(Tensor, Tensor)> { Ok((x.get(i)?.copy()?, y.get(i)?.copy()?)) };
    let batches = (0..x.dim(0)?).map(batch).collect::<Result<Vec<_>>>()?;
    let (losses, first_step_at) = first_losses(options.case, weights, batches.clone())?;
    let mut training = Training::new(options.case, weights, batches, true)?;
    let step = sample(options.steps(), 1, options.warmup(), |i| training.step(i).map(drop))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// One pass over all rows in a new order, which candle has no loader for: rows are taken by a shuffled index. Losses: of the first ten
/// batches, in the order of the file.
pub fn epoch(options: &Options, weights: &Tensors, data: &Tensors) -> Result<Outcome> {
    const ROWS: usize = 64;
    let (x, y) = (get(data, "x")?.get(0)?, get(data, "y")?.get(0)?);
    let batch = |i| -> Result<_> { Ok((x.narrow(0, i * ROWS, ROWS)?, y.narrow(0, i * ROWS, ROWS)?)) };
    let first = (0..LOSSES).map(batch).collect::<Result<Vec<_>>>()?;
    let (losses, first_step_at) = first_losses(options.case, weights, first)?;
    let mut training = Training::new(options.case, weights, Vec::new(), true)?;
    let mut order: Vec<u32> = (0..x.dim(0)? as u32).collect();
    let step = sample(options.steps(), 1, options.warmup(), |_| -> Result<()> {
        order.shuffle(&mut rand::rng());
        for rows in order.chunks(ROWS) {
            let rows = Tensor::new(rows, &Device::Cpu)?;
            training.learn(&x.index_select(&rows, 0)?, &y.index_select(&rows, 0)?)?;
        }
        Ok(())
    })?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}
