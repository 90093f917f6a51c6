//! One optimizer step: the passes over its batches, on one device or on several, the audit, the update.

use crate::exact::Exact;
use crate::fit::StepFn;
use crate::progress::Display;
use crate::running::{GRADIENT_NORM, LOSS};
use crate::trainer::{Audit, Trainer};
use gradus_core::{Device, Error, Key, Result, Tensor, no_grad, with_precision};
use gradus_data::{Collate, Epoch, Loader, Source};
use gradus_nn::{Cx, Mode, Module, audit_gradients};
use gradus_optim::{NamedGrad, NamedGrads, scaled_gradient_norm};
use std::ops::Range;

impl<M: Module> Trainer<M> {
    /// A training step, replayed if it is one that was recorded. Gives the number of samples and the learning rate.
    pub(crate) fn captured_step<S: Source, B>(
        &mut self,
        data: &mut Epoch<'_, S>,
        train: &Loader<S>,
        step: &mut StepFn<'_, M, B>,
        display: &Display,
    ) -> Result<(usize, f64)>
    where
        S::Item: Collate<Batch = B>,
    {
        let shape =
            [train.samples_in(data.batch_index()), self.next_batches(data, train).map(|i| train.samples_in(i)).sum()];
        let mut captured = std::mem::take(&mut self.captured);
        // Whether a scaled loss overflowed is read back within the step: that cannot be replayed.
        let records = self.records() && self.loss_scale.is_none();
        let mut whole = || {
            let samples = self.pass(data, train, step)?;
            self.audit_once(display)?;
            Ok((samples, self.update(train.device())?))
        };
        let done = if records { captured.run_on(train.device(), &shape, whole) } else { whole() };
        self.captured = captured;
        done
    }

    /// The batches of the next step.
    fn next_batches<S: Source>(&self, data: &Epoch<'_, S>, train: &Loader<S>) -> Range<usize> {
        let first = data.batch_index();
        first..(first + self.batches_a_step()).min(train.batches())
    }

    /// Gathers the gradients of the next group of batches, weighted so that they are those of its samples' mean loss. Gives the
    /// number of samples.
    fn pass<S: Source, B>(
        &mut self,
        data: &mut Epoch<'_, S>,
        train: &Loader<S>,
        step: &mut StepFn<'_, M, B>,
    ) -> Result<usize>
    where
        S::Item: Collate<Batch = B>,
    {
        let group = self.next_batches(data, train);
        let s = self.position()?;
        let (epoch, done, seed) = (s.epoch + 1, s.step, s.seed);
        self.step_cell.set(done as u32 as f64);
        let total: usize = group.clone().map(|i| train.samples_in(i)).sum();
        self.model.zero_grad();
        for (part, index) in group.clone().enumerate() {
            let (model, device) = self.replica(part, train.device());
            let Some(batch) = data.next_on(device) else { break };
            let at = |e: Error| e.context(format!("epoch {epoch}, batch {}", index + 1));
            let samples = train.samples_in(index);
            let key = Key::new(seed).fold("pass").fold_in(part as u64);
            // A number would make each step another one than the recorded.
            let key = if self.records() { key.at_slot(&self.step_cell) } else { key.at(done as u32) };
            let (batch, cx) = (batch.map_err(at)?, Cx::new(Mode::Train, key));
            let out = with_precision(self.precision, || step(model, &batch, &cx)).map_err(at)?;
            self.running.add(LOSS, &out.loss, samples as f64, epoch, done + 1)?;
            for (name, value) in &out.values {
                self.running.add(name, value, samples as f64, epoch, done + 1)?;
            }
            let loss = if group.len() == 1 { out.loss } else { out.loss * (samples as f64 / total as f64) };
            let loss = self.loss_scale.as_ref().map_or(Ok(loss.clone()), |s| s.scaled(&loss)).map_err(at)?;
            loss.try_backward().map_err(at)?;
        }
        // Devices with queues of their own have all got their work before the first is waited for.
        self.running.read_some(train.device())?;
        self.gather_gradients()?;
        Ok(total)
    }

    /// After the first step's backward passes: tells of parameters that they did not reach.
    fn audit_once(&mut self, display: &Display) -> Result<()> {
        // Refused once, a run is refused again, however often it is begun.
        let settled = self.flow.as_ref().is_some_and(|f| f.is_sound() || self.audit == Audit::Warn);
        if self.audit == Audit::Off || settled {
            return Ok(());
        }
        let flow = audit_gradients(&self.model)?;
        let (sound, text) = (flow.is_sound(), flow.to_string());
        self.flow = Some(flow);
        match self.audit {
            Audit::Refuse if !sound => Err(Error::misuse(format!("after the first backward pass, {text}"))),
            _ => {
                if !sound {
                    display.say(&format!("warning: {text}"));
                }
                Ok(())
            }
        }
    }

    /// One optimizer step, unless the scaled gradients overflowed. Gives its learning rate.
    fn update(&mut self, device: Device) -> Result<f64> {
        let (epoch, step) = (self.position()?.epoch + 1, self.position()?.step + 1);
        let Some(by) = self.unscaling()? else {
            return Ok(self.optimizer()?.learning_rate());
        };
        let norm = if self.track_gradient_norm { norm_of(&self.model, by)? } else { None };
        let (model, optimizer) = self.parts()?;
        let report = optimizer.step_scaled(model, by)?;
        self.spread_weights()?;
        if let Some(norm) = norm {
            self.running.add(GRADIENT_NORM, &norm, 1.0, epoch, step)?;
            self.running.read_some(device)?;
        }
        Ok(report.learning_rate)
    }

    /// What undoes the scaling of the loss, if the gradients can be used; and notes what a checkpoint keeps of it.
    fn unscaling(&mut self) -> Result<Option<f64>> {
        let Some(scale) = &mut self.loss_scale else { return Ok(Some(1.0)) };
        let by = scale.checked(&self.model)?;
        let state = scale.state().into_iter().map(|(name, x)| (name, Exact(x))).collect();
        self.position()?.loss_scale = state;
        Ok(by)
    }
}

/// The 2-norm of all gradients together, times `by`.
fn norm_of(model: &dyn Module, by: f64) -> Result<Option<Tensor>> {
    let mut grads = NamedGrads::new();
    model.for_each_parameter(&mut |name, p| {
        if let Some(grad) = p.grad() {
            grads.push(NamedGrad { name: name.into(), param: p.detach(), grad });
        }
    });
    no_grad(|| scaled_gradient_norm(&grads, by, 2.0))
}
