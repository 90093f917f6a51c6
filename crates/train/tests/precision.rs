//! Runs in mixed precision: how far their losses are from those in `f32`, and what an overflow does.

mod net;

use gradus_core::{DType, Precision};
use gradus_nn::Module;
use gradus_optim::{AdamW, LossScale};
use gradus_train::{Checkpoints, Progress, Summary, Trainer};
use net::{Net, bits, data, scratch, step};

fn trainer(precision: Precision) -> Trainer<Net> {
    Trainer::new(Net::new(32), AdamW::new(0.01)).epochs(12).seed(7).progress(Progress::Silent).precision(precision)
}

fn trained(mut t: Trainer<Net>) -> (Trainer<Net>, Summary) {
    let (train, valid) = data();
    let summary = t.fit(&train, &valid, step).unwrap();
    (t, summary)
}

#[test]
fn half_precision_ends_where_f32_does() {
    let loss = |precision| {
        let (t, summary) = trained(trainer(precision));
        let masters = t.model().named_parameters();
        assert!(masters.iter().all(|(_, p)| p.dtype() == DType::F32), "the parameters are the masters");
        summary.history.last("train/loss").unwrap()
    };
    let full = loss(Precision::F32);
    for half in [Precision::Bf16, Precision::F16] {
        let have = loss(half);
        assert!(have != full, "{half:?} is f32");
        assert!((have - full).abs() <= 0.02 * full, "{half:?} ends at {have}, f32 at {full}");
    }
}

#[test]
fn a_step_that_overflows_is_skipped_and_the_run_goes_on() {
    // 2¹⁰⁰ overflows every product of the backward pass; after some halvings it no longer does.
    let huge = 2f64.powi(100);
    let (t, summary) = trained(trainer(Precision::F16).epochs(24).loss_scale(LossScale::new().initial(huge)));
    let skipped = summary.history.last("skipped_steps").unwrap();
    assert!(skipped >= 1.0 && skipped < summary.steps as f64, "{skipped} steps of {} were skipped", summary.steps);
    assert!(t.model().named_parameters().iter().all(|(_, p)| p.to_vec::<f32>().unwrap().iter().all(|v| v.is_finite())));
    let losses: Vec<f64> = summary.history.rows().iter().filter_map(|r| r.get("train/loss")).collect();
    assert!(losses[losses.len() - 1] < 0.7 * losses[0], "{losses:?}");
    // Without an overflow none is.
    assert_eq!(trained(trainer(Precision::F16)).1.history.last("skipped_steps"), Some(0.0));
}

#[test]
fn a_resumed_run_scales_as_the_whole_one() {
    let make = |epochs| {
        let scale = LossScale::new().initial(2f64.powi(100)).growth_interval(3);
        trainer(Precision::F16).epochs(epochs).loss_scale(scale)
    };
    let (whole, summary) = trained(make(24));
    let dir = scratch("scaled");
    trained(make(20).checkpoint(Checkpoints::at(&dir)));
    let mut rest = make(24).checkpoint(Checkpoints::at(&dir));
    rest.resume(&dir).unwrap().unwrap();
    let (rest, again) = trained(rest);
    assert_eq!(bits(rest.model()), bits(whole.model()));
    assert_eq!(again.history.last("skipped_steps"), summary.history.last("skipped_steps"));
}
