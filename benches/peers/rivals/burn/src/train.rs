//! The cases that train a model: single steps, and whole epochs with Burn's loader.

use crate::inputs::Tensors;
use crate::models::{Cnn, Gpt, Mlp, Model, ResNet20, Sequences};
use burn::data::dataloader::{DataLoaderBuilder, batcher::Batcher};
use burn::data::dataset::InMemDataset;
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams, Optimizer, SgdConfig};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{BasicOps, ElementConversion, Int, Tensor, TensorKind};
use contract::{Case, LOSSES, Options, Outcome, Result, now, sample};
use serde_json::json;

type Batches<B, X> = Vec<(X, Tensor<B, 1, Int>)>;

/// One model from the given weights, its optimizer and its batches; `step(i)` is forward, backward and update.
struct Training<B: AutodiffBackend, M: Model<B>, O> {
    model: Option<M>, // an update takes it, and gives it back
    optimizer: O,
    rate: f64,
    loss: CrossEntropyLoss<B>,
    batches: Batches<B, M::Input>,
}

impl<B: AutodiffBackend, M: Model<B>, O: Optimizer<M, B>> Training<B, M, O> {
    fn step(&mut self, i: usize) -> Result<Tensor<B, 1>> {
        let (x, y) = self.batches[i % self.batches.len()].clone();
        self.learn(x, y)
    }

    fn learn(&mut self, x: M::Input, y: Tensor<B, 1, Int>) -> Result<Tensor<B, 1>> {
        let model = self.model.take().ok_or("a step before has failed")?;
        let loss = self.loss.forward(model.logits(x), y);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        self.model = Some(self.optimizer.step(self.rate, model, grads));
        Ok(loss)
    }
}

/// What a peer is given.
#[derive(Clone, Copy)]
struct Given<'a, B: AutodiffBackend> {
    options: &'a Options,
    weights: &'a Tensors,
    device: &'a B::Device,
}

impl<'a, B: AutodiffBackend> Given<'a, B> {
    fn with<O>(self, optimizer: O, rate: f64) -> Recipe<'a, B, O> {
        Recipe { given: self, optimizer, rate }
    }
}

/// How a case learns.
struct Recipe<'a, B: AutodiffBackend, O> {
    given: Given<'a, B>,
    optimizer: O,
    rate: f64,
}

impl<B: AutodiffBackend, O: Clone> Recipe<'_, B, O> {
    fn training<M: Model<B>>(&self, batches: Batches<B, M::Input>, dropout: bool) -> Result<Training<B, M, O>>
    where
        O: Optimizer<M, B>,
    {
        let loss = CrossEntropyLossConfig::new().init(self.given.device);
        let model = Some(M::new(self.given.weights, dropout, self.given.device)?);
        Ok(Training { model, optimizer: self.optimizer.clone(), rate: self.rate, loss, batches })
    }

    fn first_losses<M: Model<B>>(&self, batches: Batches<B, M::Input>) -> Result<(Vec<f32>, f64)>
    where
        O: Optimizer<M, B>,
    {
        let mut training = self.training::<M>(batches, false)?;
        let mut losses = vec![training.step(0)?.into_scalar().elem()];
        let first_step_at = now();
        for i in 1..LOSSES {
            losses.push(training.step(i)?.into_scalar().elem());
        }
        Ok((losses, first_step_at))
    }

    fn run<M: Model<B>>(&self, batches: Batches<B, M::Input>) -> Result<Outcome>
    where
        O: Optimizer<M, B>,
    {
        let (losses, first_step_at) = self.first_losses::<M>(batches.clone())?;
        let mut training = self.training::<M>(batches, true)?;
        let step = sample(self.given.options.steps(), 1, self.given.options.warmup(), |i| -> Result<()> {
            training.step(i)?;
            Ok(B::sync(self.given.device).map_err(|e| format!("{e:?}"))?)
        })?;
        Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
    }
}

/// Batches of D − 1 dimensions: x is `[16, batch, …]`, y `[16, batch]` or, of tokens, `[16, batch, length]`.
fn batches<B: Backend, const D: usize, const X: usize, const Y: usize, K: TensorKind<B> + BasicOps<B>>(
    x: Tensor<B, D, K>,
    y: Tensor<B, Y, Int>,
) -> Batches<B, Tensor<B, X, K>> {
    let y = y.iter_dim(0).map(|y| y.flatten::<1>(0, Y - 1));
    x.iter_dim(0).map(|x| x.squeeze_dim::<X>(0)).zip(y).collect()
}

pub fn train<B: AutodiffBackend>(
    options: &Options,
    weights: &Tensors,
    data: &Tensors,
    device: &B::Device,
) -> Result<Outcome> {
    // PyTorch's defaults: Burn's are others.
    let adamw = AdamWConfig::new().with_weight_decay(0.01).with_epsilon(1e-8);
    let adam = AdamConfig::new().with_epsilon(1e-8);
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let given = Given::<B> { options, weights, device };
    let labels = || data.int::<B, 2>("y", device);
    let tokens = || -> Result<_> { Ok(batches::<B, 3, 2, 3, Int>(data.int("x", device)?, data.int("y", device)?)) };
    match options.case {
        Case::C1 => {
            given.with(SgdConfig::new().init(), 0.1).run::<Mlp<B>>(batches(data.get::<B, 3>("x", device)?, labels()?))
        }
        Case::C2 => given.with(adamw.init(), 1e-3).run::<Mlp<B>>(batches(data.get::<B, 3>("x", device)?, labels()?)),
        Case::C3 => {
            given.with(adam.init(), 1e-3).run::<Sequences<B>>(batches(data.get::<B, 4>("x", device)?, labels()?))
        }
        Case::C4 | Case::G4 => {
            given.with(adam.init(), 1e-3).run::<Cnn<B>>(batches(data.get::<B, 5>("x", device)?, labels()?))
        }
        Case::C5 => {
            let sgd = SgdConfig::new().with_momentum(Some(momentum)).init();
            given.with(sgd, 1e-3).run::<ResNet20<B>>(batches(data.get::<B, 5>("x", device)?, labels()?))
        }
        Case::C6 | Case::C7 | Case::G6 => given.with(adamw.init(), 1e-3).run::<Gpt<B>>(tokens()?),
        Case::C11 => given.with(adamw.init(), 1e-4).run::<Gpt<B>>(tokens()?),
        case => Err(format!("{case:?} trains no model").into()),
    }
}

/// Takes the rows of a batch in one piece, and not one by one.
struct Rows<B: Backend>(Tensor<B, 2>, Tensor<B, 1, Int>);

impl<B: Backend> Batcher<B, i64, (Tensor<B, 2>, Tensor<B, 1, Int>)> for Rows<B> {
    fn batch(&self, rows: Vec<i64>, device: &B::Device) -> (Tensor<B, 2>, Tensor<B, 1, Int>) {
        let rows: Tensor<B, 1, Int> = Tensor::from_data(rows.as_slice(), device);
        (self.0.clone().select(0, rows.clone()), self.1.clone().select(0, rows))
    }
}

/// One pass over all rows in a new order. Losses: of the first ten batches, in the order of the file.
pub fn epoch<B: AutodiffBackend>(
    options: &Options,
    weights: &Tensors,
    data: &Tensors,
    device: &B::Device,
) -> Result<Outcome> {
    const ROWS: usize = 64;
    let (x, y) =
        (data.get::<B, 3>("x", device)?.squeeze_dim::<2>(0), data.int::<B, 2>("y", device)?.squeeze_dim::<1>(0));
    let batch = |i: usize| (x.clone().narrow(0, i * ROWS, ROWS), y.clone().narrow(0, i * ROWS, ROWS));
    let optimizer = AdamWConfig::new().with_weight_decay(0.01).with_epsilon(1e-8).init();
    let recipe = Given::<B> { options, weights, device }.with(optimizer, 1e-3);
    let (losses, first_step_at) = recipe.first_losses::<Mlp<B>>((0..LOSSES).map(batch).collect())?;
    let mut training = recipe.training::<Mlp<B>>(Vec::new(), true)?;
    let rows = x.dims()[0] as i64;
    let loader = DataLoaderBuilder::new(Rows(x, y)).batch_size(ROWS).shuffle(0).set_device(device.clone());
    let loader = loader.build(InMemDataset::new((0..rows).collect()));
    let step = sample(options.steps(), 1, options.warmup(), |_| -> Result<()> {
        for (x, y) in loader.iter() {
            training.learn(x, y)?;
        }
        Ok(B::sync(device).map_err(|e| format!("{e:?}"))?)
    })?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}
