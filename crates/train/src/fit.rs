//! The loop: epochs of steps, a validation after each, and checkpoints in between.
//!
//! Everything that a checkpoint holds is settled before it is written, so the state on disk is one that the loop goes on from:
//! between two steps, or between two epochs.

use crate::callback::{Event, Flow};
use crate::evaluate::evaluate;
use crate::exact::Exact;
use crate::history::Row;
use crate::progress::Display;
use crate::running::LOSS;
use crate::state::{Best, RunState};
use crate::step::Step;
use crate::trainer::{Summary, Trainer};
use gradus_core::{Error, Result, with_precision};
use gradus_data::{Collate, Loader, Source};
use gradus_metrics::Metric;
use gradus_nn::{Cx, Module};
use std::time::Instant;

/// A user's step.
pub(crate) type StepFn<'f, M, B> = dyn FnMut(&M, &B, &Cx) -> Result<Step> + 'f;

impl<M: Module> Trainer<M> {
    pub(crate) fn run<S: Source, V: Source, B>(
        &mut self,
        train: &Loader<S>,
        valid: Option<&Loader<V>>,
        step: &mut StepFn<'_, M, B>,
    ) -> Result<Summary>
    where
        S::Item: Collate<Batch = B>,
        V::Item: Collate<Batch = B>,
    {
        let clock = Instant::now();
        self.begin(train, valid)?;
        let mut display = Display::new(self.progress, self.epochs);
        let epoch = self.position()?.epoch;
        self.tell(|model| Event::FitStarted { model, epoch })?;
        while self.position()?.epoch < self.epochs && self.position()?.stopped.is_none() {
            let rate = self.train_epoch(train, step, &mut display)?;
            self.end_epoch(valid, step, rate, &mut display)?;
        }
        if let Some(why) = self.position()?.stopped.clone() {
            display.say(&format!("stopped: {why}"));
        }
        self.captured.forget();
        self.model.zero_grad(); // gradients are of no use after the last step, and take a model's memory
        let best = self.put_best_back()?;
        self.tell(|model| Event::FitEnded { model })?;
        let s = self.position()?;
        let (epochs, steps, stopped, history) = (s.epoch, s.step, s.stopped.clone(), s.history.clone());
        Ok(Summary { epochs, steps, stopped, best, history, seconds: clock.elapsed().as_secs_f64() })
    }

    /// Checks everything that can be checked before the first step, and finds out where to begin.
    fn begin<S: Source, V: Source>(&mut self, train: &Loader<S>, valid: Option<&Loader<V>>) -> Result<()> {
        if self.epochs == 0 || self.accumulate == 0 {
            let (epochs, batches) = (self.epochs, self.accumulate);
            return Err(Error::misuse(format!(
                "a run needs at least 1 epoch and 1 batch a step; got {epochs} and {batches}"
            )));
        }
        train.check().map_err(|e| e.context("training data"))?;
        valid.map_or(Ok(()), |v| v.check().map_err(|e| e.context("validation data")))?;
        self.check_names()?;
        self.optimizer()?;
        self.place_replicas(train.device())?;
        let data = match valid {
            Some(valid) => format!("{}; validation: {}", train.describe(), valid.describe()),
            None => train.describe(),
        };
        match self.state.take() {
            None => {
                self.checkpoints.as_ref().map_or(Ok(()), |c| c.check_fresh())?;
                self.state = Some(RunState::new(self.seed, self.batches_a_step(), data));
            }
            Some(state) => {
                let same = state.check_same_run(self.seed, &data, self.batches_a_step());
                self.state = Some(state);
                same?;
            }
        }
        if std::mem::take(&mut self.resumed) {
            self.hand_out_states()?;
        }
        if let (Some(checkpoints), Some(state)) = (&self.checkpoints, &self.state) {
            checkpoints.prune(state)?; // what a kill between a checkpoint and its clearing up left
        }
        self.write_history()
    }

    /// Callbacks keep their states under their names.
    fn check_names(&self) -> Result<()> {
        let mut names: Vec<&str> = self.callbacks.iter().map(|c| c.name()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                Err(Error::misuse(format!("two callbacks are called {:?}; their states would be mixed up", pair[0])))
            }
            None => Ok(()),
        }
    }

    /// Gives each callback, the plateau and the scaling of the loss the state that the checkpoint has of it.
    fn hand_out_states(&mut self) -> Result<()> {
        let kept = self.position()?.plateau.clone();
        if let (Some((_, plateau)), false) = (&mut self.plateau, kept.is_empty()) {
            plateau.load_state(&kept.into_iter().map(|(name, x)| (name, x.0)).collect())?;
        }
        let kept = self.position()?.loss_scale.clone();
        if let (Some(scale), false) = (&mut self.loss_scale, kept.is_empty()) {
            scale.load_state(&kept.into_iter().map(|(name, x)| (name, x.0)).collect())?;
        }
        let states = self.position()?.callbacks.clone();
        let now: Vec<&str> = self.callbacks.iter().map(|c| c.name()).collect();
        let then: Vec<&str> = states.keys().map(String::as_str).collect();
        if now.len() != then.len() || then.iter().any(|name| !now.contains(name)) {
            return Err(Error::misuse(format!(
                "the checkpoint is of a run with the callbacks {then:?}; this one has {now:?}"
            )));
        }
        self.callbacks.iter_mut().try_for_each(|c| {
            let name = c.name().to_owned();
            c.load_state(&states[&name]).map_err(|e| e.context(name))
        })
    }

    /// Tells every callback of an event; why the run is to stop, if one says so.
    pub(crate) fn tell<'a>(&'a mut self, event: impl FnOnce(&'a dyn Module) -> Event<'a>) -> Result<Option<String>> {
        let mut event = event(&self.model);
        let mut stop = None;
        for callback in &mut self.callbacks {
            if let Flow::Stop(why) = callback.on(&mut event).map_err(|e| e.context(callback.name()))? {
                stop.get_or_insert(why);
            }
        }
        Ok(stop)
    }

    /// The rest of the current epoch's steps. Gives the learning rate of the last.
    fn train_epoch<S: Source, B>(
        &mut self,
        train: &Loader<S>,
        step: &mut StepFn<'_, M, B>,
        display: &mut Display,
    ) -> Result<f64>
    where
        S::Item: Collate<Batch = B>,
    {
        let (epoch, batches) = (self.position()?.epoch, train.batches());
        if self.position()?.batch == 0 {
            self.running.reset();
            self.tell(|_| Event::EpochStarted { epoch })?;
        }
        let mut data = train.epoch_from(epoch, self.position()?.batch)?;
        display.epoch(epoch + 1, data.batch_index(), batches);
        let mut rate = self.optimizer()?.learning_rate();
        while data.batch_index() < batches {
            let samples;
            (samples, rate) = self.captured_step(&mut data, train, step, display)?;
            let s = self.position()?;
            (s.batch, s.step) = (data.batch_index(), s.step + 1);
            let (batch, done) = (s.batch, s.step);
            display.advance(samples, batch, self.running.last_loss());
            if let Some(why) = self.tell(|model| Event::Stepped { model, step: done, lr: rate })? {
                self.position()?.stopped = Some(why);
                break;
            }
            // At the end of an epoch the checkpoint waits for what is measured there.
            if batch < batches && self.checkpoints.as_ref().is_some_and(|c| c.due_at_step(done)) {
                self.save()?;
            }
        }
        Ok(rate)
    }

    /// Measures, tells, decides, and writes a checkpoint if one is due.
    fn end_epoch<V: Source, B>(
        &mut self,
        valid: Option<&Loader<V>>,
        step: &mut StepFn<'_, M, B>,
        rate: f64,
        display: &mut Display,
    ) -> Result<()>
    where
        V::Item: Collate<Batch = B>,
    {
        let mut row = self.measure(valid, step, rate)?;
        let stop = self.tell(|model| Event::EpochEnded { model, row: &mut row })?;
        display.epoch_ended(&row);
        self.note_best(&row)?;
        self.watch_plateau(&row)?;
        let kept =
            match self.checkpoints.as_ref().and_then(|c| c.best().map(|(name, goal, n)| (name.to_owned(), goal, n))) {
                Some((name, goal, n)) => {
                    let value = row.need(&name, "keep_best")?;
                    self.position()?.keep(value, goal, n)
                }
                None => false,
            };
        self.running.reset();
        let epochs = self.epochs;
        let s = self.position()?;
        s.history.push(row);
        s.stopped = s.stopped.take().or(stop);
        (s.epoch, s.batch) = (s.epoch + 1, 0);
        let (epoch, done, over) = (s.epoch, s.step, s.stopped.is_some() || s.epoch == epochs);
        let due = self.checkpoints.as_ref().is_some_and(|c| c.due_at_epoch(epoch) || c.due_at_step(done));
        if due || kept || over {
            self.save()?;
        }
        self.write_history()
    }

    /// The row of the epoch that has just been trained.
    fn measure<V: Source, B>(
        &mut self,
        valid: Option<&Loader<V>>,
        step: &mut StepFn<'_, M, B>,
        rate: f64,
    ) -> Result<Row>
    where
        V::Item: Collate<Batch = B>,
    {
        self.running.read()?;
        let s = self.position()?;
        let mut row = Row::new(s.epoch + 1, s.step);
        let mut values: Vec<(&str, f64)> = self.running.values().collect();
        values.sort_by_key(|(name, _)| *name != LOSS); // the loss first
        for (name, value) in values {
            row.set(&format!("train/{name}"), value);
        }
        if let Some(valid) = valid {
            let mut metrics: Vec<&mut dyn Metric> =
                self.metrics.iter_mut().map(|m| &mut **m as &mut dyn Metric).collect();
            let epoch = row.epoch;
            let measured = with_precision(self.precision, || evaluate(&self.model, valid, &mut metrics, step));
            for (name, value) in measured.map_err(|e| e.context(format!("validation after epoch {epoch}")))?.values() {
                row.set(&format!("val/{name}"), value);
            }
        }
        row.set("lr", rate);
        if let Some(scale) = &self.loss_scale {
            row.set("skipped_steps", scale.skipped() as f64);
        }
        let (model, optimizer) = self.parts()?;
        if let Some(penalty) = optimizer.penalty(model)? {
            row.set("penalty", penalty.item()?);
        }
        Ok(row)
    }

    /// Tells the plateau what was measured, and notes what it remembers.
    fn watch_plateau(&mut self, row: &Row) -> Result<()> {
        let Some((name, mut plateau)) = self.plateau.clone() else { return Ok(()) };
        plateau.observe(row.need(&name, "plateau")?, self.optimizer()?)?;
        self.position()?.plateau = plateau.state().into_iter().map(|(name, x)| (name, Exact(x))).collect();
        self.plateau = Some((name, plateau));
        Ok(())
    }

    /// Keeps the weights if they are the best so far.
    fn note_best(&mut self, row: &Row) -> Result<()> {
        let Some((metric, goal)) = self.restore_best.clone() else { return Ok(()) };
        let value = row.need(&metric, "restore_best")?;
        let better = |old: &Best| goal.improves(value, old.value.0, 0.0);
        if self.position()?.best.as_ref().is_none_or(|old| old.metric != metric || better(old)) {
            self.position()?.best = Some(Best { metric, value: Exact(value), epoch: row.epoch });
            self.best_weights = Some(self.model.state_dict());
        }
        Ok(())
    }

    /// Puts the best weights into the model, if they are to be restored. Gives their epoch and value.
    fn put_best_back(&mut self) -> Result<Option<(usize, f64)>> {
        let (Some(_), Some(weights)) = (&self.restore_best, &self.best_weights) else { return Ok(None) };
        self.model.load_state_dict(weights)?;
        Ok(self.position()?.best.as_ref().map(|b| (b.epoch, b.value.0)))
    }

    fn write_history(&self) -> Result<()> {
        let (Some(path), Some(state)) = (&self.history_csv, &self.state) else { return Ok(()) };
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)
                .map_err(|e| Error::io(format!("cannot make the directory {}", parent.display()), e))?;
        }
        gradus_io::write_file_atomic(path, |file| -> Result<()> {
            std::io::Write::write_all(file, state.history.to_csv().as_bytes())
                .map_err(|e| Error::io(format!("cannot write {}", path.display()), e))
        })
    }
}
