//! Training on several devices: the same run as on one, whatever their number.

use gradus_core::{Device, Result, Tensor};
use gradus_data::{Batch, InMemory, Loader, Subset};
use gradus_nn::{Cx, Dropout, Init, Layer, Linear, Module};
use gradus_optim::{AdamW, ClipNorm};
use gradus_train::{Checkpoints, Progress, Step, Trainer};

/// Two layers, with dropout between if wanted.
#[derive(Module, Clone)]
struct Net {
    first: Linear,
    drop: Dropout,
    last: Linear,
}

fn trainer(dropout: f64) -> Trainer<Net> {
    let mut init = Init::new(gradus_cpu::device(), 5);
    let (first, last) = (Linear::new(64, 24, &mut init), Linear::new(24, 10, &mut init));
    let net = Net { first, drop: Dropout::new(dropout), last };
    Trainer::new(net, AdamW::new(0.01)).transform(ClipNorm::new(1.0)).seed(7).progress(Progress::Silent)
}

fn step(net: &Net, batch: &Batch, cx: &Cx) -> Result<Step> {
    let h = net.first.call(&batch.input.flatten(1, -1), cx).relu();
    let logits = net.last.call(&net.drop.call(&h, cx), cx);
    Ok(Step::new(logits.cross_entropy(&batch.target)))
}

/// `samples` digits in batches of `batch`.
fn data(samples: usize, batch: usize) -> Loader<Subset<InMemory>> {
    let digits = gradus_data::digits().unwrap();
    Loader::new(Subset::new(digits, (0..samples).collect()).unwrap(), gradus_cpu::device()).batch_size(batch).shuffle(3)
}

fn cpus(n: usize) -> Vec<Device> {
    (0..n).map(|i| gradus_cpu::nth(i).unwrap()).collect()
}

fn weights(t: &Trainer<Net>) -> Vec<f32> {
    t.model().state_dict().values().flat_map(|w: &Tensor| w.to_vec::<f32>().unwrap()).collect()
}

#[test]
fn one_two_and_four_devices_learn_the_same_from_the_same_batches() {
    let trained = |devices: usize| {
        let mut t = trainer(0.0).devices(&cpus(devices)).epochs(10);
        let summary = t.fit_unvalidated(&data(160, 32 / devices), step).unwrap();
        assert_eq!(summary.steps, 50);
        (weights(&t), summary.history.last("train/loss").unwrap())
    };
    let (one, loss) = trained(1);
    for devices in [2, 4] {
        let (many, same) = trained(devices);
        let furthest = one.iter().zip(&many).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{devices} devices: furthest from one device's parameters after 50 steps: {furthest:e}");
        assert!(furthest <= 1e-6, "{devices} devices: {furthest}");
        assert!((loss - same).abs() <= 1e-6, "{devices} devices: loss {same}, not {loss}");
    }
}

#[test]
fn devices_have_the_bits_of_batches_gathered_on_one() {
    // 5 batches an epoch: the last step has batches for some of the devices only.
    for devices in [2, 3] {
        let train = data(75, 16);
        let mut gathered = trainer(0.3).accumulate(devices).epochs(3);
        let mut parallel = trainer(0.3).devices(&cpus(devices)).epochs(3);
        gathered.fit_unvalidated(&train, step).unwrap();
        parallel.fit_unvalidated(&train, step).unwrap();
        assert_eq!(weights(&parallel), weights(&gathered), "{devices} devices");
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_devices() {
    let dir = std::env::temp_dir().join(format!("gradus-replicas-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let train = data(96, 16);
    let mut whole = trainer(0.3).devices(&cpus(2)).epochs(4);
    whole.fit_unvalidated(&train, step).unwrap();
    let mut begun = trainer(0.3).devices(&cpus(2)).epochs(2).checkpoint(Checkpoints::at(&dir));
    begun.fit_unvalidated(&train, step).unwrap();
    let mut rest = trainer(0.3).accumulate(2).epochs(4).checkpoint(Checkpoints::at(&dir));
    rest.resume(&dir).unwrap().unwrap();
    rest.fit_unvalidated(&train, step).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(weights(&rest), weights(&whole));
}

#[test]
fn devices_that_cannot_be_used_are_refused_by_name() {
    let refused = |devices: &[Device]| {
        let mut t = trainer(0.0).devices(devices);
        t.fit_unvalidated(&data(32, 16), step).unwrap_err().to_string()
    };
    let [a, b] = [gradus_cpu::device(), gradus_cpu::nth(1).unwrap()];
    for (devices, says) in
        [(vec![b, a], "training loader's"), (vec![], "training loader's"), (vec![a, b, b], "cpu:1 is given twice")]
    {
        let message = refused(&devices);
        assert!(message.contains(says), "{devices:?}: {message}");
    }
}
