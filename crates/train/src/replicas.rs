//! Data parallelism within one process: a replica of the model on each device, each with batches of its own, one update.
//!
//! A step's batches are dealt out in turn. One thread hands the work to all devices before it waits for any, so devices with a queue of
//! their own compute at the same time. Then the gradients are added up in the order of the devices, the first device's optimizer
//! makes its step, and its weights go to all. Nothing is left to the order in which devices are done: a step over k devices has
//! the bits of one that [accumulates](Trainer::accumulate) k batches on one.

use crate::trainer::Trainer;
use gradus_core::tensor::to_device;
use gradus_core::{Device, Error, Result, no_grad};
use gradus_nn::Module;

/// The models on the devices beside the first.
pub(crate) struct Replicas<M> {
    devices: Vec<Device>,
    models: Vec<M>,
    copy: Option<fn(&M) -> M>,
}

impl<M> Default for Replicas<M> {
    fn default() -> Replicas<M> {
        Replicas { devices: Vec::new(), models: Vec::new(), copy: None }
    }
}

impl<M: Module + Clone> Trainer<M> {
    /// Trains on several devices at once. The first is the model's and the loader's; each of the others gets a replica of the model.
    /// A step takes one batch for each device (and so many of them as [`accumulate`](Self::accumulate) says), so the batch size
    /// is a device's, and the gradients are those of the mean over all samples. What layers remember of their inputs (running
    /// statistics) is the first device's. Steps are not [recorded](Self::capture).
    ///
    /// ```
    /// # use gradus_core::Tensor;
    /// # use gradus_nn::{Module, Param};
    /// # use gradus_optim::Sgd;
    /// # use gradus_train::Trainer;
    /// # #[derive(Module, Clone)]
    /// # struct Line { slope: Param }
    /// let devices = [gradus_cpu::device(), gradus_cpu::nth(1)?];
    /// let model = Line { slope: Param::new(Tensor::zeros([1], devices[0])) };
    /// let trainer = Trainer::new(model, Sgd::new(0.5)).devices(&devices);
    /// # let _ = trainer;
    /// # Ok::<(), gradus_core::Error>(())
    /// ```
    pub fn devices(mut self, devices: &[Device]) -> Self {
        self.replicas = Replicas { devices: devices.to_vec(), models: Vec::new(), copy: Some(M::clone) };
        self
    }
}

impl<M: Module> Trainer<M> {
    /// Batches that make one optimizer step.
    pub(crate) fn batches_a_step(&self) -> usize {
        self.accumulate.saturating_mul(self.replicas.devices.len().max(1))
    }
    /// Whether steps are recorded and replayed.
    pub(crate) fn records(&self) -> bool {
        self.capture && self.replicas.models.is_empty()
    }
    /// The model for the part of a step with this number, and its device; `first` is the loader's.
    pub(crate) fn replica(&self, part: usize, first: Device) -> (&M, Device) {
        match part % (1 + self.replicas.models.len()) {
            0 => (&self.model, first),
            n => (&self.replicas.models[n - 1], self.replicas.devices[n]),
        }
    }

    /// Makes the replicas from the model as it is, after checking the devices. `loader` is where the batches are made.
    pub(crate) fn place_replicas(&mut self, loader: Device) -> Result<()> {
        let Replicas { devices, copy: Some(copy), .. } = &self.replicas else { return Ok(()) };
        if devices.first() != Some(&loader) {
            return Err(Error::misuse(format!(
                "the first of the trainer's devices {devices:?} must be the training loader's, {loader}"
            )));
        }
        if let Some(twice) = devices.iter().enumerate().find(|(i, d)| devices[..*i].contains(d)) {
            return Err(Error::misuse(format!("the device {} is given twice", twice.1)));
        }
        let replica = |&device: &Device| {
            let mut model = copy(&self.model);
            model.to_device(device).map_err(|e| e.context(format!("the replica on {device}")))?;
            model.assign_paths();
            Ok(model)
        };
        self.replicas.models = devices[1..].iter().map(replica).collect::<Result<_>>()?;
        Ok(())
    }

    /// Adds the replicas' gradients to the model's.
    pub(crate) fn gather_gradients(&self) -> Result<()> {
        let mine = self.replicas.models.first().map(|_| self.model.named_parameters()).unwrap_or_default();
        for replica in &self.replicas.models {
            for ((name, mine), (_, theirs)) in mine.iter().zip(replica.named_parameters()) {
                let Some(grad) = theirs.take_grad() else { continue };
                let add = || {
                    let grad = to_device(&grad, mine.device())?;
                    mine.set_grad(match mine.take_grad() {
                        Some(sum) => sum.try_add(&grad)?,
                        None => grad,
                    })
                };
                no_grad(add).map_err(|e| e.context(format!("the gradient of {name}")))?;
            }
        }
        Ok(())
    }

    /// Gives the replicas the model's values.
    pub(crate) fn spread_weights(&mut self) -> Result<()> {
        if self.replicas.models.is_empty() {
            return Ok(());
        }
        let values = self.model.state_dict();
        self.replicas.models.iter_mut().try_for_each(|replica| replica.load_state_dict(&values))
    }
}
