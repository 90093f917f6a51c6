//! The trainer: a model, an optimizer, and how a run is to go.

use crate::callback::Callback;
use crate::checkpoints::{Checkpoints, StateDict};
use crate::evaluate::{Evaluation, evaluate};
use crate::goal::Goal;
use crate::history::History;
use crate::progress::Progress;
use crate::replicas::Replicas;
use crate::running::Running;
use crate::state::RunState;
use crate::step::Step;
use gradus_core::capture::Captured;
use gradus_core::{Error, Precision, Result, Slot, with_precision};
use gradus_data::{Collate, Loader, Source};
use gradus_metrics::Metric;
use gradus_nn::{Cx, GradientFlow, Module};
use gradus_optim::{Group, LossScale, Optimizer, OptimizerBuilder, Plateau, Schedule, Transform};
use std::path::PathBuf;

/// Trains a model.
///
/// ```
/// use gradus_core::{Result, Tensor};
/// use gradus_data::{InMemory, Loader};
/// use gradus_nn::{Module, Param};
/// use gradus_optim::Sgd;
/// use gradus_train::{EarlyStopping, Progress, Step, Trainer};
///
/// #[derive(Module)]
/// struct Line { slope: Param }
///
/// fn main() -> Result<()> {
///     let device = gradus_cpu::device();
///     let xs: Vec<f32> = (0..64).map(|i| i as f32 / 64.0).collect();
///     let set = InMemory::from_tensors(&Tensor::from_slice(&xs, device), &(Tensor::from_slice(&xs, device) * 3.0))?;
///     let train = Loader::new(&set, device).batch_size(16).shuffle(0);
///     let valid = Loader::new(&set, device);
///
///     let model = Line { slope: Param::new(Tensor::zeros([1], device)) };
///     let mut trainer = Trainer::new(model, Sgd::new(0.5))
///         .epochs(20)
///         .progress(Progress::Silent)
///         .callback(EarlyStopping::on("val/loss").patience(3));
///     let summary = trainer.fit(&train, &valid, |model, batch, _cx| {
///         Ok(Step::new((&batch.input * &*model.slope - &batch.target).square().mean()))
///     })?;
///     assert!(summary.history.last("val/loss").unwrap() < 1e-3);
///     Ok(())
/// }
/// ```
pub struct Trainer<M> {
    pub(crate) model: M,
    builder: Option<OptimizerBuilder>,
    optimizer: Option<Optimizer>,
    pub(crate) epochs: usize,
    pub(crate) seed: u64,
    pub(crate) accumulate: usize,
    pub(crate) track_gradient_norm: bool,
    pub(crate) metrics: Vec<Box<dyn Metric>>,
    pub(crate) callbacks: Vec<Box<dyn Callback>>,
    pub(crate) checkpoints: Option<Checkpoints>,
    pub(crate) restore_best: Option<(String, Goal)>,
    pub(crate) best_weights: Option<StateDict>,
    pub(crate) history_csv: Option<PathBuf>,
    pub(crate) progress: Progress,
    /// Where the run stands; `None` before it began.
    pub(crate) state: Option<RunState>,
    pub(crate) running: Running,
    /// What lowers the learning rate, and the name of the value that it watches.
    pub(crate) plateau: Option<(String, Plateau)>,
    pub(crate) precision: Precision,
    /// What scales the loss before its backward pass, in `f16`.
    pub(crate) loss_scale: Option<LossScale>,
    pub(crate) audit: Audit,
    /// What the audit found; `None` before the first backward pass of this process.
    pub(crate) flow: Option<GradientFlow>,
    pub(crate) capture: bool,
    /// The steps' record.
    pub(crate) captured: Captured,
    /// The step's number, where recorded kernels read it.
    pub(crate) step_cell: Slot,
    /// The models on other devices.
    pub(crate) replicas: Replicas<M>,
    /// Whether `state` is a checkpoint's whose callbacks' states have not been handed out yet.
    pub(crate) resumed: bool,
}

/// What a trainer does about parameters that the loss does not reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Audit {
    /// Names them, and goes on.
    #[default]
    Warn,
    /// Names them in an error that ends the run before its first update.
    Refuse,
    /// Does not look.
    Off,
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Epochs done, those before a resume included.
    pub epochs: usize,
    /// Optimizer steps done, those before a resume included.
    pub steps: u64,
    /// Why the run ended before its last epoch, if it did.
    pub stopped: Option<String>,
    /// The epoch (counted from 1) and the value of the best weights, where they were restored.
    pub best: Option<(usize, f64)>,
    /// What was measured, epoch by epoch.
    pub history: History,
    /// How long this call took.
    pub seconds: f64,
}

impl<M: Module> Trainer<M> {
    /// A trainer of `model` with an optimizer (a rule such as `AdamW::new(1e-3)`, or an [`OptimizerBuilder`]): 10 epochs,
    /// seed 0, no checkpoints. What is wrong with the settings is told by [`fit`](Self::fit).
    pub fn new(mut model: M, optimizer: impl Into<OptimizerBuilder>) -> Trainer<M> {
        model.assign_paths();
        Trainer {
            model,
            builder: Some(optimizer.into()),
            optimizer: None,
            epochs: 10,
            seed: 0,
            accumulate: 1,
            track_gradient_norm: false,
            metrics: Vec::new(),
            callbacks: Vec::new(),
            checkpoints: None,
            restore_best: None,
            best_weights: None,
            history_csv: None,
            progress: Progress::Auto,
            state: None,
            running: Running::default(),
            plateau: None,
            precision: Precision::F32,
            loss_scale: None,
            audit: Audit::Warn,
            flow: None,
            capture: true,
            captured: Captured::new(),
            step_cell: Slot::default(),
            replicas: Replicas::default(),
            resumed: false,
        }
    }
    /// How many times the training data are gone through.
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }
    /// The seed of everything random in the model's passes (dropout). The order of the data is the loader's.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
    /// The course of the learning rate; see [`OptimizerBuilder::schedule`].
    pub fn schedule(self, schedule: impl Schedule) -> Self {
        self.configure(|b| b.schedule(schedule))
    }
    /// A change of the gradients before each update; see [`OptimizerBuilder::transform`].
    pub fn transform(self, transform: impl Transform) -> Self {
        self.configure(|b| b.transform(transform))
    }
    /// Other settings for some parameters; see [`OptimizerBuilder::group`].
    pub fn group(self, group: Group) -> Self {
        self.configure(|b| b.group(group))
    }
    fn configure(mut self, change: impl FnOnce(OptimizerBuilder) -> OptimizerBuilder) -> Self {
        self.builder = self.builder.map(change);
        self
    }
    /// Gathers the gradients of so many batches for one optimizer step: their mean, weighted by samples, as if they were one
    /// batch. A last group of an epoch may be smaller.
    pub fn accumulate(mut self, batches: usize) -> Self {
        self.accumulate = batches;
        self
    }
    /// Measures the global norm of the gradients (before clipping) at each step; `grad_norm` in the history is its mean.
    pub fn track_gradient_norm(mut self, yes: bool) -> Self {
        self.track_gradient_norm = yes;
        self
    }
    /// Whether training steps are recorded and replayed, guarded ([`Captured`]), where the device can: on, unless told otherwise. The
    /// results are the same, bit for bit; a step that varies from batch to batch in what it does is run as it comes. Records take
    /// up to 64 MiB; larger steps run eagerly. Replays skip what is inside a backward pass: a side effect of a custom function's `backward` does not
    /// occur again.
    pub fn capture(mut self, yes: bool) -> Self {
        self.capture = yes;
        self
    }
    /// What is done about parameters that the first step's backward passes leave without a gradient, or with one of zeros only;
    /// unless told otherwise, they are named in a line of the [`progress`](Self::progress).
    pub fn audit(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }
    /// Lowers the learning rate when the value called `name` (`val/loss`) has stopped improving, looked at after each epoch. What it
    /// remembers is part of every checkpoint.
    pub fn plateau(mut self, name: &str, plateau: Plateau) -> Self {
        self.plateau = Some((name.to_owned(), plateau));
        self
    }
    /// What the step's products are computed in, in training and in validation ([`with_precision`]); parameters and their updates
    /// stay in their own dtype. With [`Precision::F16`] the loss is scaled ([`LossScale`]): a step whose gradients overflow is
    /// skipped, counted among the steps, and told in the history as `skipped_steps`.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self.loss_scale = (precision == Precision::F16).then(LossScale::new);
        self
    }
    /// With this scaling of the loss in place of the one that [`precision`](Self::precision) brings.
    pub fn loss_scale(mut self, scale: LossScale) -> Self {
        self.loss_scale = Some(scale);
        self
    }
    /// A metric of the validation data, `val/NAME` in the history. The step must give [`outputs`](Step::outputs).
    pub fn metric(mut self, metric: impl Metric + 'static) -> Self {
        self.metrics.push(Box::new(metric));
        self
    }
    /// Something to be told of events. Several are told in the order given here.
    pub fn callback(mut self, callback: impl Callback + 'static) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }
    /// Where and when checkpoints are written.
    pub fn checkpoint(mut self, checkpoints: Checkpoints) -> Self {
        self.checkpoints = Some(checkpoints);
        self
    }
    /// Keeps a copy of the weights of the epoch in which the value called `name` was best ([`Goal::of`] says which way), and
    /// puts it into the model at the end of [`fit`](Self::fit).
    pub fn restore_best(mut self, name: &str) -> Self {
        self.restore_best = Some((name.to_owned(), Goal::of(name)));
        self
    }
    /// Writes the history to this file after each epoch, as [`History::to_csv`] gives it.
    pub fn history_csv(mut self, path: impl Into<PathBuf>) -> Self {
        self.history_csv = Some(path.into());
        self
    }
    /// What is shown of the run.
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }
    /// The model, to be changed.
    pub fn model_mut(&mut self) -> &mut M {
        &mut self.model
    }
    /// The model alone.
    pub fn into_model(self) -> M {
        self.model
    }
    /// What the first step's backward passes left in the parameters; `None` before, or with [`Audit::Off`].
    pub fn gradient_flow(&self) -> Option<&GradientFlow> {
        self.flow.as_ref()
    }
    /// How training steps were recorded and replayed; see [`capture`](Self::capture).
    pub fn captured(&self) -> &Captured {
        &self.captured
    }
    /// What was measured so far.
    pub fn history(&self) -> Option<&History> {
        self.state.as_ref().map(|s| &s.history)
    }
    /// The optimizer, made for the model as it is at the first call. Errors if its settings do not fit.
    pub fn optimizer(&mut self) -> Result<&mut Optimizer> {
        self.parts().map(|(_, optimizer)| optimizer)
    }
    /// The model and its optimizer.
    pub(crate) fn parts(&mut self) -> Result<(&mut M, &mut Optimizer)> {
        if let Some(builder) = self.builder.take() {
            self.optimizer = Some(builder.build(&self.model)?);
        }
        match &mut self.optimizer {
            Some(optimizer) => Ok((&mut self.model, optimizer)),
            None => Err(Error::misuse("the optimizer could not be made before, so there is none")),
        }
    }

    /// Trains on `train` and measures on `valid` after each epoch, until all epochs are done or a callback stops the run.
    ///
    /// `step` is called with the model, a batch, and the context of the pass; it gives the loss. It serves both: in training
    /// its loss is differentiated, in validation nothing is recorded. A second call goes on where the first ended, if
    /// [`epochs`](Self::epochs) is now larger; so does the first after [`resume`](Self::resume).
    ///
    /// Errors: settings, data or checkpoints that do not fit, before anything is written; a loss that is not finite; whatever
    /// the step, a callback or the file system refuses.
    pub fn fit<S: Source, V: Source, B>(
        &mut self,
        train: &Loader<S>,
        valid: &Loader<V>,
        mut step: impl FnMut(&M, &B, &Cx) -> Result<Step>,
    ) -> Result<Summary>
    where
        S::Item: Collate<Batch = B>,
        V::Item: Collate<Batch = B>,
    {
        self.run(train, Some(valid), &mut step)
    }

    /// As [`fit`](Self::fit), without validation: `train/loss` is all that is measured.
    pub fn fit_unvalidated<S: Source>(
        &mut self,
        train: &Loader<S>,
        mut step: impl FnMut(&M, &<S::Item as Collate>::Batch, &Cx) -> Result<Step>,
    ) -> Result<Summary> {
        self.run::<S, S, _>(train, None, &mut step)
    }

    /// Measures the model on `data` with the trainer's metrics. See [`evaluate`](crate::evaluate()) for metrics of one's own.
    pub fn evaluate<S: Source>(
        &mut self,
        data: &Loader<S>,
        step: impl FnMut(&M, &<S::Item as Collate>::Batch, &Cx) -> Result<Step>,
    ) -> Result<Evaluation> {
        let precision = self.precision;
        let mut metrics: Vec<&mut dyn Metric> = self.metrics.iter_mut().map(|m| &mut **m as &mut dyn Metric).collect();
        with_precision(precision, || evaluate(&self.model, data, &mut metrics, step))
    }
}
