//! A trainer's steps are recorded and replayed unless told otherwise: with the same bits.

mod net;

use gradus_core::Result;
use gradus_optim::AdamW;
use gradus_train::{Checkpoints, Progress, Step, Trainer};
use net::{Net, bits, contents, data, scratch, step, trainer};

#[test]
fn replayed_runs_write_the_same_checkpoints_and_history_as_eager_ones() {
    let run = |name: &str, capture: bool| {
        let dir = scratch(name);
        let (train, valid) = data();
        let mut trainer = trainer(&dir).capture(capture).epochs(12);
        trainer.fit(&train, &valid, step).unwrap();
        (contents(&dir), bits(trainer.model()), trainer.captured().replays(), dir)
    };
    let (eager, captured) = (run("eager", false), run("captured", true));
    assert!(eager.0 == captured.0, "the files differ");
    assert_eq!(eager.1, captured.1);
    assert_eq!(eager.2, 0);
    // Whatever holds the weights when a step begins (best weights, checkpoints) makes one step move them.
    assert!(captured.2 >= 15, "{} replays", captured.2);
    [eager.3, captured.3].iter().for_each(|d| std::fs::remove_dir_all(d).unwrap());
}

/// Without callbacks and checkpoints: a plain run of 20 epochs of 5 steps.
fn plain(capture: bool, accumulate: usize, mut weight: impl FnMut() -> f64) -> Result<Trainer<Net>> {
    let mut trainer = Trainer::new(Net::new(16), AdamW::new(0.01))
        .epochs(20)
        .accumulate(accumulate)
        .capture(capture)
        .progress(Progress::Silent);
    trainer.fit_unvalidated(&data().0, |net, batch, cx| {
        let out = net.logits(&batch.input, cx)?;
        Ok(Step::new(out.cross_entropy(&batch.target) * weight()))
    })?;
    Ok(trainer)
}

#[test]
fn nearly_every_step_of_a_plain_run_is_a_replay() -> Result<()> {
    let (eager, captured) = (plain(false, 1, || 1.0)?, plain(true, 1, || 1.0)?);
    assert_eq!(bits(eager.model()), bits(captured.model()));
    // One eager step, and a recording for each of the two batch sizes.
    assert_eq!(captured.captured().replays(), 97, "{:?}", captured.captured().why_eager());
    Ok(())
}

#[test]
fn gathered_batches_are_replayed() -> Result<()> {
    let (eager, captured) = (plain(false, 2, || 1.0)?, plain(true, 2, || 1.0)?);
    assert_eq!(bits(eager.model()), bits(captured.model()));
    assert!(captured.captured().replays() >= 55, "{:?}", captured.captured().why_eager());
    Ok(())
}

#[test]
fn a_loss_weight_that_changes_in_the_step_is_seen() -> Result<()> {
    let run = |capture| {
        let mut n = 0;
        plain(capture, 1, move || {
            n += 1;
            if n > 50 { 0.1 } else { 1.0 }
        })
    };
    let (eager, captured) = (run(false)?, run(true)?);
    assert_eq!(bits(eager.model()), bits(captured.model()));
    assert_ne!(bits(captured.model()), bits(plain(true, 1, || 1.0)?.model()));
    assert!(captured.captured().replays() >= 90);
    Ok(())
}

#[test]
fn a_replayed_run_resumes_from_its_checkpoints_with_the_same_bits() -> Result<()> {
    let whole = plain(true, 1, || 1.0)?;
    let dir = scratch("resumed");
    for epochs in [7, 20] {
        let mut trainer = Trainer::new(Net::new(16), AdamW::new(0.01))
            .epochs(epochs)
            .checkpoint(Checkpoints::at(dir.join("checkpoints")).every_epochs(7))
            .progress(Progress::Silent);
        trainer.resume(dir.join("checkpoints"))?;
        trainer.fit_unvalidated(&data().0, |net, batch, cx| {
            Ok(Step::new(net.logits(&batch.input, cx)?.cross_entropy(&batch.target) * 1.0))
        })?;
        assert!(trainer.captured().replays() > 20, "{:?}", trainer.captured().why_eager());
        if epochs == 20 {
            assert_eq!(bits(trainer.model()), bits(whole.model()));
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
    Ok(())
}
