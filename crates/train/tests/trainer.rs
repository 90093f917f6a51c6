//! What a run does: means, accumulation, early stopping, best weights, errors.

mod net;

use gradus_core::{Error, Result, Tensor};
use gradus_data::{Batch, InMemory, Loader};
use gradus_metrics::Accuracy;
use gradus_nn::{Cx, Module, Param};
use gradus_optim::{AdamW, Sgd};
use gradus_train::{Audit, Callback, Checkpoints, EarlyStopping, Event, Flow, Progress, Step, Trainer, evaluate};
use net::{Net, bits, cpu, data, scratch, step};
use std::sync::{Arc, Mutex};

fn quiet<M: Module>(model: M, rate: f64) -> Trainer<M> {
    Trainer::new(model, Sgd::new(rate)).progress(Progress::Silent)
}

/// y = w, whatever x.
#[derive(Module)]
struct Guess {
    w: Param,
}

fn guess(w: f32) -> Guess {
    Guess { w: Param::new(Tensor::from_slice(&[w], cpu())) }
}

fn squared(model: &Guess, batch: &Batch, _: &Cx) -> Result<Step> {
    Ok(Step::new((&*model.w - &batch.input).square().mean()).value("guess", &model.w))
}

fn numbers(x: &[f32]) -> Loader<InMemory> {
    Loader::new(InMemory::labelled(x, &[], &vec![0; x.len()]).unwrap(), cpu())
}

#[test]
fn means_are_weighted_by_samples() {
    let data = numbers(&[1.0, 2.0, 6.0]).batch_size(2);
    let e = evaluate(&guess(0.0), &data, &mut [], squared).unwrap();
    assert_eq!((e.samples, e.loss()), (3, (1.0 + 4.0 + 36.0) / 3.0));
    let mut t = quiet(guess(0.0), 0.0).epochs(1);
    let summary = t.fit(&data, &data, squared).unwrap();
    let h = summary.history;
    assert_eq!(h.names(), ["train/loss", "train/guess", "val/loss", "val/guess", "lr"]);
    assert_eq!((h.last("train/loss"), h.last("val/loss")), (Some(e.loss()), Some(e.loss())));
    assert_eq!((summary.epochs, summary.steps), (1, 2));
}

#[test]
fn accumulated_batches_are_one_batch() {
    let x = [1.0, 2.0, 6.0, -3.0, 0.5];
    let after = |batch_size, accumulate| {
        let mut t = quiet(guess(0.25), 0.1).epochs(1).accumulate(accumulate).track_gradient_norm(true);
        let summary = t.fit_unvalidated(&numbers(&x).batch_size(batch_size), squared).unwrap();
        (t.model().w.item::<f32>().unwrap(), summary.steps, summary.history.last("train/grad_norm").unwrap())
    };
    let (w, steps, norm) = after(5, 1);
    assert_eq!(steps, 1);
    for (batch_size, accumulate) in [(2, 3), (1, 5), (4, 2), (1, 99)] {
        let (v, steps, n) = after(batch_size, accumulate);
        assert!(
            steps == 1 && (v - w).abs() < 1e-6 && (n - norm).abs() < 1e-6,
            "{batch_size} × {accumulate}: {v} for {w}"
        );
    }
    assert_eq!(after(1, 2).1, 3);
    // the gradient by hand: 2·(w − mean)
    assert!((norm - 2.0 * (0.25f64 - 6.5 / 5.0).abs()).abs() < 1e-6);
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_with_its_place() {
    let data = numbers(&[1.0; 6]).batch_size(2);
    let mut passes = 0;
    let dir = scratch("nan");
    let mut t = quiet(guess(0.0), 0.1).epochs(5).checkpoint(Checkpoints::at(dir.join("c")).every_steps(1));
    let e = t.fit_unvalidated(&data, |model, batch, cx| {
        passes += 1;
        let s = squared(model, batch, cx)?;
        Ok(if passes == 5 { Step::new((&*model.w * f64::NAN).sum()) } else { s })
    });
    let e = e.unwrap_err().to_string();
    assert!(e.contains("the loss is NaN in epoch 2, step 5"), "{e}");
    assert!(t.model().w.item::<f32>().unwrap().is_finite(), "the step must not be made");
    let newest = t.resume(dir.join("c")).unwrap().unwrap();
    assert_eq!(newest.steps, 4);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn early_stopping_ends_a_run_that_gets_no_better() {
    let numbers = numbers(&[1.0, 2.0]);
    let mut t = quiet(guess(0.0), 0.0).epochs(50).callback(EarlyStopping::on("val/loss").patience(3));
    let summary = t.fit(&numbers, &numbers, squared).unwrap();
    assert_eq!(summary.epochs, 4);
    assert!(summary.stopped.unwrap().contains("val/loss has not been better than"));
    assert_eq!(summary.history.rows().len(), 4);

    let mut t = quiet(guess(0.0), 0.0).callback(EarlyStopping::on("val/f1"));
    let e = t.fit(&numbers, &numbers, squared).unwrap_err().to_string();
    assert!(e.contains("\"val/f1\"") && e.contains("train/loss, train/guess, val/loss, val/guess, lr"), "{e}");
}

#[test]
fn the_best_weights_come_back_at_the_end() {
    let (train, valid) = data();
    let by_epoch = Arc::new(Mutex::new(Vec::new()));
    struct Record(Arc<Mutex<Vec<Vec<u8>>>>);
    impl Callback for Record {
        fn name(&self) -> &str {
            "record"
        }
        fn on(&mut self, event: &mut Event<'_>) -> Result<Flow> {
            if let Event::EpochEnded { model, row } = event {
                self.0.lock().unwrap().push(model.state_dict()["last.weight"].to_bytes()?);
                row.set("val/wanted", [0.1, 0.9, 0.5, 0.9][row.epoch - 1]);
            }
            Ok(Flow::Continue)
        }
    }
    let mut t = quiet(Net::new(8), 0.1).epochs(4).callback(Record(by_epoch.clone())).restore_best("val/wanted");
    let summary = t.fit(&train, &valid, step).unwrap();
    assert_eq!(summary.best, Some((2, 0.9)));
    let now = t.model().last.weight.to_bytes().unwrap();
    let by_epoch = by_epoch.lock().unwrap();
    assert_eq!(by_epoch.iter().position(|w| *w == now), Some(1));
}

#[test]
fn callbacks_hear_of_everything_and_may_stop_in_the_middle_of_an_epoch() {
    let (train, valid) = data();
    let heard = Arc::new(Mutex::new(String::new()));
    struct Listen(Arc<Mutex<String>>);
    impl Callback for Listen {
        fn name(&self) -> &str {
            "listen"
        }
        fn on(&mut self, event: &mut Event<'_>) -> Result<Flow> {
            let letter = match event {
                Event::FitStarted { .. } => 'F',
                Event::EpochStarted { .. } => 'E',
                Event::Stepped { .. } => 's',
                Event::EpochEnded { .. } => 'e',
                Event::Saved { .. } => 'c',
                _ => 'f',
            };
            self.0.lock().unwrap().push(letter);
            Ok(match event {
                Event::Stepped { step: 7, .. } => Flow::Stop("seven is enough".into()),
                _ => Flow::Continue,
            })
        }
    }
    let dir = scratch("events");
    let mut t = quiet(Net::new(4), 0.1)
        .callback(Listen(heard.clone()))
        .checkpoint(Checkpoints::at(dir.join("c")).every_steps(3));
    let summary = t.fit(&train, &valid, step).unwrap();
    assert_eq!(heard.lock().unwrap().as_str(), "FEssscsseEscsecf");
    assert_eq!((summary.epochs, summary.steps, summary.stopped.as_deref()), (2, 7, Some("seven is enough")));
    std::fs::remove_dir_all(dir).unwrap();

    let mut t = quiet(Net::new(4), 0.1).callback(Listen(heard.clone())).callback(Listen(heard));
    assert!(t.fit(&train, &valid, step).unwrap_err().to_string().contains("\"listen\""));
}

#[test]
fn a_second_fit_goes_on_where_the_first_ended() {
    let (train, valid) = data();
    let mut long = quiet(Net::new(8), 0.1).epochs(4);
    long.fit(&train, &valid, step).unwrap();
    let mut short = quiet(Net::new(8), 0.1).epochs(2);
    short.fit(&train, &valid, step).unwrap();
    let mut short = short.epochs(4);
    let summary = short.fit(&train, &valid, step).unwrap();
    assert_eq!((summary.epochs, summary.history.rows().len()), (4, 4));
    assert_eq!(bits(short.model()), bits(long.model()));
}

#[test]
fn bad_settings_are_refused_before_anything_is_written() {
    let dir = scratch("refused");
    let (train, valid) = data();
    let at = || Checkpoints::at(dir.join("c"));
    let refused = |t: Trainer<Net>, train: &net::Digits, part: &str| {
        let mut t = t.checkpoint(at()).history_csv(dir.join("h.csv"));
        let e = t.fit(train, &valid, step).expect_err("must be refused").to_string();
        assert!(e.contains(part), "{e}");
        assert!(std::fs::read_dir(&dir).unwrap().next().is_none(), "{part}: something was written");
    };
    refused(quiet(Net::new(4), 0.1), &train.clone().batch_size(0), "training data: the batch size is 0");
    refused(quiet(Net::new(4), f64::NAN), &train, "NaN");
    refused(Trainer::new(Net::new(4), AdamW::new(-1.0)), &train, "-1");
    refused(quiet(Net::new(4), 0.1).epochs(0), &train, "at least 1 epoch");
    refused(quiet(Net::new(4), 0.1).accumulate(0), &train, "1 batch a step; got 10 and 0");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_a_step_gives_wrongly_is_named() {
    let (train, valid) = data();
    let refused = |t: Trainer<Net>, step: fn(&Net, &Batch, &Cx) -> Result<Step>, part: &str| {
        let mut t = t;
        let e = t.fit(&train, &valid, step).expect_err("must be refused").to_string();
        assert!(e.contains(part), "{e}");
    };
    refused(
        quiet(Net::new(4), 0.1),
        |n, b, cx| Ok(Step::new(n.logits(&b.input, cx)?)),
        "one number for the batch; it has shape [32, 10]",
    );
    refused(quiet(Net::new(4), 0.1), |_, _, _| Err(Error::data("no")), "epoch 1, batch 1: no");
    let without = |n: &Net, b: &Batch, cx: &Cx| Ok(Step::new(n.logits(&b.input, cx)?.cross_entropy(&b.target)));
    refused(quiet(Net::new(4), 0.1).metric(Accuracy::new()), without, "Step::outputs");
    refused(quiet(Net::new(4), 0.1), |_, b, _| Ok(Step::new(b.input.mean())), "epoch 1, batch 1: backward");
}

/// A guess with a parameter that the loss never sees.
#[derive(Module)]
struct Spare {
    used: Param,
    spare: Param,
}

#[test]
fn parameters_that_the_loss_does_not_reach_are_named() -> Result<()> {
    let spare = || Spare { used: guess(1.0).w, spare: guess(1.0).w };
    let squared = |m: &Spare, b: &Batch, _: &Cx| Ok(Step::new((&*m.used - &b.input).square().mean()));
    let data = numbers(&[1.0, 2.0]);
    let mut t = quiet(spare(), 0.1).epochs(1);
    assert!(t.gradient_flow().is_none());
    t.fit_unvalidated(&data, squared)?;
    assert_eq!(t.gradient_flow().expect("it was looked at").missing, ["spare"]);
    let mut t = quiet(spare(), 0.1).epochs(1).audit(Audit::Refuse);
    for _ in 0..2 {
        let e = t.fit_unvalidated(&data, squared).unwrap_err().to_string();
        assert!(e.contains("1 of 2 trainable parameters") && e.contains("spare"), "{e}");
    }
    assert_eq!(t.model().used.to_vec::<f32>()?, [1.0], "nothing was updated");
    let mut t = quiet(spare(), 0.1).epochs(1).audit(Audit::Off);
    t.fit_unvalidated(&data, squared)?;
    assert!(t.gradient_flow().is_none());
    // A parameter that is frozen on purpose is none of the audit's business.
    let mut model = spare();
    model.spare.freeze();
    quiet(model, 0.1).epochs(1).audit(Audit::Refuse).fit_unvalidated(&data, squared)?;
    Ok(())
}
