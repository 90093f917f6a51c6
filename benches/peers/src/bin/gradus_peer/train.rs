//! The cases that train a model: single steps, and whole epochs with a loader.

use crate::inputs::Tensors;
use crate::models::{Cnn, Gpt, Mlp, ResNet20, Sequences};
use contract::{Case, LOSSES, Options, Outcome, now, peak_rss, sample};
use gradus::capture::Captured;
use gradus::data::{InMemory, Loader};
use gradus::nn::{Cx, Init, Layer, Mode, Module};
use gradus::optim::{Adam, AdamW, Optimizer, OptimizerBuilder, Sgd};
use gradus::rng::Key;
use gradus::{DType, Device, Devices, Error, Result, Slot, Tensor, cpu};
use serde_json::json;
use std::collections::BTreeMap;

/// One model from the given weights, its optimizer and its batches; `step(i)` is forward, backward and update.
struct Training {
    model: Box<dyn Layer>,
    optimizer: Optimizer,
    batches: Vec<(Tensor, Tensor)>,
    captured: Option<Captured>,
    /// The number of the step, for the dropout of replays.
    at: Slot,
}

impl Training {
    fn new(options: &Options, weights: &Tensors, batches: Vec<(Tensor, Tensor)>, dropout: bool) -> Result<Training> {
        Self::variant(&options.variant, options, weights, batches, dropout)
    }

    fn variant(
        variant: &str,
        options: &Options,
        weights: &Tensors,
        batches: Vec<(Tensor, Tensor)>,
        dropout: bool,
    ) -> Result<Training> {
        let device = Device::parse(&options.device)?;
        let init = &mut Init::new(device, 0);
        let (mut model, optimizer): (Box<dyn Layer>, OptimizerBuilder) = match options.case {
            Case::C1 => (Box::new(Mlp::new(64, 32, 10, init)), Sgd::new(0.1).into()),
            Case::C2 | Case::C12 => (Box::new(Mlp::new(784, 128, 10, init)), AdamW::new(1e-3).into()),
            Case::C3 => (Box::new(Sequences::new(28, 128, 10, init)), Adam::new(1e-3).into()),
            Case::C4 | Case::G4 => (Box::new(Cnn::new(dropout, init)), Adam::new(1e-3).into()),
            Case::C5 => (Box::new(ResNet20::new(10, init)), Sgd::new(0.001).momentum(0.9).into()),
            Case::C6 => (Box::new(Gpt::new(4, 128, 65, 64, init)), AdamW::new(1e-3).into()),
            Case::G6 => (Box::new(Gpt::new(2, 64, 65, 32, init)), AdamW::new(1e-3).into()),
            Case::C7 => (Box::new(Gpt::new(6, 384, 65, 256, init)), AdamW::new(1e-3).into()),
            Case::C11 => (Box::new(Gpt::new(12, 768, 50257, 1024, init)), AdamW::new(1e-4).into()),
            _ => return Err(Error::misuse("this case trains no model")),
        };
        model.assign_paths();
        model.load_state_dict(&weights.0)?;
        let optimizer = optimizer.build(&model)?;
        let captured = match variant {
            "guarded" if options.variant == "same-bits" => Some(Captured::new().memory(usize::MAX)), // whatever it takes
            "guarded" => Some(Captured::new()),
            "unchecked" => Some(Captured::unchecked()),
            _ => None,
        };
        Ok(Training { model, optimizer, batches, captured, at: Slot::new(0.0) })
    }

    /// The bits of all weights and running statistics.
    fn weights(&self) -> Result<BTreeMap<String, Vec<u32>>> {
        let bits = |w: Tensor| -> Result<Vec<u32>> { Ok(w.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect()) };
        let floats = |w: &Tensor| w.dtype() == DType::F32; // a count of batches is none
        self.model.state_dict().into_iter().filter(|(_, w)| floats(w)).map(|(name, w)| Ok((name, bits(w)?))).collect()
    }

    fn step(&mut self, i: usize) -> Result<Tensor> {
        let (x, y) = self.batches[i % self.batches.len()].clone();
        self.learn(&x, &y, i)
    }

    fn learn(&mut self, x: &Tensor, y: &Tensor, i: usize) -> Result<Tensor> {
        let Training { model, optimizer, captured, at, .. } = self;
        let Some(captured) = captured else {
            return learn(model, optimizer, x, y, Key::new(0).at(i as u32));
        };
        at.set(i as f64);
        optimizer.prepare()?; // what varies by step, outside the record
        let key = Key::new(0).at_slot(at);
        let losses = captured.run(&[x, y], |x| Ok(vec![learn(model, optimizer, &x[0], &x[1], key)?.detach()]))?;
        losses.into_iter().next().ok_or_else(|| Error::data("a replay gave no loss"))
    }
}

fn learn(model: &mut Box<dyn Layer>, optimizer: &mut Optimizer, x: &Tensor, y: &Tensor, key: Key) -> Result<Tensor> {
    let logits = model.call(x, &Cx::new(Mode::Train, key));
    let loss = if y.rank() == 2 {
        logits.flatten(0, 1).cross_entropy(&y.flatten(0, 1)) // tokens: [batch, length]
    } else {
        logits.cross_entropy(y)
    };
    drop(logits); // the loss keeps what it needs
    loss.try_backward()?;
    optimizer.step(model)?;
    model.zero_grad();
    Ok(loss)
}

fn first_losses(options: &Options, weights: &Tensors, batches: Vec<(Tensor, Tensor)>) -> Result<(Vec<f32>, f64)> {
    let mut training = Training::new(options, weights, batches, false)?;
    let mut losses = vec![training.step(0)?.item()?];
    let first_step_at = now();
    for i in 1..LOSSES {
        losses.push(training.step(i)?.item()?);
    }
    Ok((losses, first_step_at))
}

pub fn train(options: &Options, weights: &Tensors, data: &Tensors) -> Result<Outcome> {
    let batches: Vec<_> = data.unbind("x")?.into_iter().zip(data.unbind("y")?).collect();
    let device = data.get("x")?.device();
    let (losses, first_step_at) = first_losses(options, weights, batches.clone())?;
    let mut training = Training::new(options, weights, batches, true)?;
    let step = sample(options.steps(), 1, options.warmup(), |i| -> Result<()> {
        training.step(i)?;
        device.synchronize()
    })?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// What a training came to: the losses, the weights at the end, and how many steps were replays.
type Trained = (Vec<f32>, BTreeMap<String, Vec<u32>>, u64);

/// Trains for all steps, with dropout on.
fn trained(variant: &str, options: &Options, weights: &Tensors, batches: &[(Tensor, Tensor)]) -> Result<Trained> {
    let mut training = Training::variant(variant, options, weights, batches.to_vec(), true)?;
    let losses = (0..options.steps()).map(|i| training.step(i)?.item::<f32>()).collect::<Result<Vec<_>>>()?;
    Ok((losses, training.weights()?, training.captured.as_ref().map_or(0, Captured::replays)))
}

/// An error unless two trainings have the same bits in each loss, and in all weights at the end.
fn same(one: &Trained, other: &Trained, names: [&str; 2]) -> Result<()> {
    let [a, b] = names;
    if let Some(i) = (0..one.0.len()).find(|&i| one.0[i].to_bits() != other.0[i].to_bits()) {
        return Err(Error::data(format!("step {i}: the loss is {:e} {a}, and {:e} {b}", one.0[i], other.0[i])));
    }
    match one.1.iter().find(|&(name, bits)| other.1.get(name) != Some(bits)) {
        Some((name, _)) => Err(Error::data(format!("{name} differs after {} steps: {a} and {b}", one.0.len()))),
        None => Ok(()),
    }
}

fn outcome((mut losses, ..): Trained) -> Outcome {
    losses.truncate(LOSSES);
    Outcome { losses, first_step_at: now(), rows: json!({}) }
}

/// Trains eagerly, guarded and unchecked, one after another: the same bits, and all but the first few steps of the last two replays.
pub fn same_bits(options: &Options, weights: &Tensors, data: &Tensors) -> Result<Outcome> {
    let batches: Vec<_> = data.unbind("x")?.into_iter().zip(data.unbind("y")?).collect();
    let eager = trained("eager", options, weights, &batches)?;
    for variant in ["guarded", "unchecked"] {
        let other = trained(variant, options, weights, &batches)?;
        same(&eager, &other, ["eagerly", variant])?;
        if other.2 as usize + 10 < options.steps() {
            return Err(Error::data(format!("{variant}: only {} of {} steps were replays", other.2, options.steps())));
        }
    }
    Ok(outcome(eager))
}

/// Trains on one, two and four threads, one after another: the same bits.
pub fn same_threads(options: &Options, weights: &Tensors, data: &Tensors) -> Result<Outcome> {
    let batches: Vec<_> = data.unbind("x")?.into_iter().zip(data.unbind("y")?).collect();
    let on = |threads| cpu::with_threads(threads, || trained("eager", options, weights, &batches));
    let one = on(1)?;
    same(&one, &on(2)?, ["on one thread", "on two"])?;
    same(&one, &on(4)?, ["on one thread", "on four"])?;
    Ok(outcome(one))
}

/// Trains as the trainer does, guarded: after the first tenth of the steps resident memory has seen its peak.
pub fn same_memory(options: &Options, weights: &Tensors, data: &Tensors) -> contract::Result<Outcome> {
    const SLACK_KIB: u64 = 1024; // the allocator's, of bookkeeping: less than 100 bytes a step over 10,000 steps
    let batches: Vec<_> = data.unbind("x")?.into_iter().zip(data.unbind("y")?).collect();
    let mut training = Training::variant("guarded", options, weights, batches, true)?;
    let mut losses = Vec::new();
    let mut until = |step: usize| -> contract::Result<u64> {
        while losses.len() < step {
            losses.push(training.step(losses.len())?.item::<f32>()?);
        }
        peak_rss()
    };
    let (first, all) = (until(options.steps().div_ceil(10))?, until(options.steps())?);
    if all > first + SLACK_KIB {
        let (tenth, steps) = (options.steps().div_ceil(10), options.steps());
        return Err(format!("resident memory grew: at most {first} KiB in {tenth} steps, {all} KiB in {steps}").into());
    }
    losses.truncate(LOSSES);
    Ok(Outcome { losses, first_step_at: now(), rows: json!({"resident_kib": {"first_tenth": first, "all": all}}) })
}

/// One pass over all rows in a new order. Losses: of the first ten batches, in the order of the file.
pub fn epoch(options: &Options, weights: &Tensors, data: &Tensors) -> Result<Outcome> {
    const ROWS: usize = 64;
    let (x, y) = (data.get("x")?.try_select(0, 0)?, data.get("y")?.try_select(0, 0)?);
    let batch = |i| Ok((x.try_narrow(0, i * ROWS, ROWS)?, y.try_narrow(0, i * ROWS, ROWS)?));
    let first = (0..LOSSES).map(batch).collect::<Result<Vec<_>>>()?;
    let (losses, first_step_at) = first_losses(options, weights, first)?;
    let mut training = Training::new(options, weights, Vec::new(), true)?;
    let loader = Loader::new(InMemory::from_tensors(&x, &y)?, Device::cpu()).batch_size(ROWS).shuffle(0);
    let step = sample(options.steps(), 1, options.warmup(), |epoch| -> Result<()> {
        for (i, batch) in loader.epoch(epoch)?.enumerate() {
            let batch = batch?;
            training.learn(&batch.input, &batch.target, i)?;
        }
        Ok(())
    })?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}
