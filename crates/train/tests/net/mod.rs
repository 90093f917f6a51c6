//! A small network with everything that a run must remember (weights, momenta, a running statistic, dropout), its data, and
//! its trainer.

use gradus_core::{Device, Error, Result, Tensor};
use gradus_data::{InMemory, Loader, Subset};
use gradus_metrics::Accuracy;
use gradus_nn::{Cx, Dropout, Init, Layer, Linear, Module, State};
use gradus_optim::{AdamW, ClipNorm, Cosine, L1, Plateau};
use gradus_train::{Checkpoints, EarlyStopping, Progress, Step, Trainer};
use std::path::{Path, PathBuf};

pub fn cpu() -> Device {
    gradus_cpu::device()
}

/// Two layers with dropout between, behind a running mean of the inputs.
#[derive(Module)]
pub struct Net {
    pub mean: State,
    pub first: Linear,
    drop: Dropout,
    pub last: Linear,
}

impl Net {
    pub fn new(hidden: usize) -> Net {
        let mut init = Init::new(cpu(), 5);
        Net {
            mean: State::new(Tensor::zeros([64], cpu())),
            first: Linear::new(64, hidden, &mut init),
            drop: Dropout::new(0.2),
            last: Linear::new(hidden, 10, &mut init),
        }
    }
    pub fn logits(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
        let x = x.flatten(1, -1);
        cx.update(&self.mean, |old| Ok(old * 0.9 + x.detach().mean_dims(&[0], false) * 0.1))?;
        let h = self.first.call(&(&x - self.mean.value()), cx).relu();
        Ok(self.last.call(&self.drop.call(&h, cx), cx))
    }
}

/// The loss and the outputs of a batch of digits.
pub fn step(net: &Net, batch: &gradus_data::Batch, cx: &Cx) -> Result<Step> {
    let logits = net.logits(&batch.input, cx)?;
    Ok(Step::new(logits.cross_entropy(&batch.target)).outputs(&logits, &batch.target))
}

pub type Digits = Loader<Subset<InMemory>>;

/// 150 digits to train on (5 batches, the last smaller) and 60 to validate.
pub fn data() -> (Digits, Digits) {
    let digits = gradus_data::digits().unwrap();
    let part = |r: std::ops::Range<usize>| {
        Loader::new(Subset::new(digits.clone(), r.collect()).unwrap(), cpu()).batch_size(32)
    };
    (part(0..150).shuffle(3), part(150..210))
}

/// A trainer that uses all there is: 4 epochs of 5 steps.
#[allow(dead_code)] // not every test program trains with it
pub fn trainer(dir: &Path) -> Trainer<Net> {
    let checkpoints = Checkpoints::at(dir.join("checkpoints"))
        .every_epochs(1)
        .every_steps(2)
        .keep_last(3)
        .keep_best("val/accuracy", 1);
    Trainer::new(Net::new(16), AdamW::new(0.01))
        .plateau("val/loss", Plateau::higher().patience(1).factor(0.5))
        .schedule(Cosine::warmup(3, 20))
        .transform(L1::new(1e-4).only("*.weight"))
        .transform(ClipNorm::new(1.0))
        .epochs(4)
        .seed(7)
        .metric(Accuracy::new())
        .callback(EarlyStopping::on("val/loss").patience(4))
        .restore_best("val/accuracy")
        .track_gradient_norm(true)
        .history_csv(dir.join("history.csv"))
        .checkpoint(checkpoints)
        .progress(Progress::Silent)
}

/// An empty directory of this test's own.
pub fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("gradus-train-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir); // of an earlier process with this number
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Trains to the end, resuming where there is something to resume; ends with an error before pass `fail_at`.
#[allow(dead_code)]
pub fn train(dir: &Path, mut fail_at: Option<usize>) -> Result<Trainer<Net>> {
    let (train, valid) = data();
    let mut trainer = trainer(dir);
    trainer.resume(dir.join("checkpoints"))?;
    trainer.fit(&train, &valid, |net, batch, cx| {
        if cx.is_training() {
            if fail_at == Some(0) {
                return Err(Error::data("the power went out"));
            }
            fail_at = fail_at.map(|n| n - 1);
        }
        step(net, batch, cx)
    })?;
    Ok(trainer)
}

/// Every file under a directory with its content, hidden leftovers aside.
#[allow(dead_code)]
pub fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            all.extend(contents(&path).into_iter().map(|(n, c)| (format!("{name}/{n}"), c)));
        } else {
            all.push((name, std::fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

/// The weights, bit for bit.
#[allow(dead_code)]
pub fn bits(net: &Net) -> Vec<(String, Vec<u8>)> {
    net.state_dict().iter().map(|(name, t)| (name.clone(), t.to_bytes().unwrap())).collect()
}
