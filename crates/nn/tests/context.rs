//! Forward passes: randomness, running statistics, checkpointing, scopes in messages, tables.

use gradus_core::{Result, Tensor};
use gradus_nn::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

fn ones(shape: &[usize]) -> Tensor {
    Tensor::ones(shape, gradus_cpu::device())
}

fn values(t: &Tensor) -> Vec<f32> {
    t.to_vec().expect("readable")
}

#[derive(Module, Clone)]
struct Net {
    fc: Linear,
    norm: BatchNorm1d,
    drop: Dropout,
    site: Site,
}

impl Net {
    fn new(seed: u64) -> Net {
        let mut init = Init::new(gradus_cpu::device(), seed);
        Net {
            fc: Linear::new(3, 6, &mut init),
            norm: BatchNorm1d::new(6, &mut init),
            drop: Dropout::new(0.5),
            site: Site::default(),
        }
    }
}

impl Layer for Net {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let y = self.norm.call(&self.fc.call(x, cx), cx);
        self.drop.call(&y, cx).square()
    }
}

#[test]
fn dropout_drops_its_share_and_keeps_the_mean() {
    let seed = 5;
    println!("seed {seed}");
    let y = values(&Dropout::new(0.25).call(&ones(&[10_000]), &Cx::train(seed, 0)));
    assert!(y.iter().all(|&v| v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-6));
    let dropped = y.iter().filter(|&&v| v == 0.0).count() as f64 / 1e4;
    assert!((dropped - 0.25).abs() < 5.0 * (0.25 * 0.75 / 1e4f64).sqrt(), "{dropped} were dropped");
    let y = values(&ChannelDropout::new(0.5).call(&ones(&[8, 8, 3, 2]), &Cx::train(seed, 0)));
    assert!(y.chunks(6).all(|channel| channel.iter().all(|&v| v == channel[0])), "a channel is dropped as a whole");
    assert!(y.contains(&0.0) && y.contains(&2.0));
    assert_eq!(values(&Dropout::new(1.0).call(&ones(&[4]), &Cx::train(seed, 0))), [0.0; 4]);
}

#[test]
fn masks_are_told_apart_by_seed_step_path_and_call() {
    let mut net = (Dropout::new(0.5), Dropout::new(0.5));
    net.assign_paths();
    let x = ones(&[64]);
    let at = |layer: &Dropout, cx: &Cx| values(&layer.call(&x, cx));
    let first = at(&net.0, &Cx::train(1, 0));
    assert_eq!(first, at(&net.0, &Cx::train(1, 0)), "the same seed, step, path and call");
    assert_ne!(first, at(&net.0, &Cx::train(2, 0)), "another seed");
    assert_ne!(first, at(&net.0, &Cx::train(1, 1)), "another step");
    assert_ne!(first, at(&net.1, &Cx::train(1, 0)), "another path");
    let cx = Cx::train(1, 0);
    let other = at(&net.1, &cx);
    assert_eq!(first, at(&net.0, &cx), "a mask does not depend on what other layers drew");
    assert_ne!(first, at(&net.0, &cx), "another call");
    // Without paths, the order of calls tells layers apart.
    let (a, b, cx) = (Dropout::new(0.5), Dropout::new(0.5), Cx::train(1, 0));
    assert_ne!(at(&a, &cx), at(&b, &cx));
    assert_ne!(other, first);
}

#[test]
fn statistics_that_fade_become_zero_and_never_a_number_of_less_than_full_precision() {
    let norm = BatchNorm1d::new(3, &mut Init::new(gradus_cpu::device(), 0));
    for batch in 0..900 {
        norm.call(&ones(&[4, 3]), &Cx::train(0, batch));
        let var = values(&norm.running().expect("tracked").var.value());
        assert!(!var.iter().any(|v| v.is_subnormal()), "{var:?} after batch {batch}");
        assert_eq!(var[0] == 0.0, batch >= 828, "{var:?} after batch {batch}"); // 0.9⁸²⁹ is the first below 2⁻¹²⁶
    }
}

#[test]
fn evaluation_changes_nothing_and_training_moves_the_statistics() {
    let (net, x) = (Net::new(0), Tensor::randn([16, 3], gradus_cpu::device(), 1));
    let state = |net: &Net| -> Vec<Vec<f32>> { net.named_states().iter().map(|(_, s)| values(&s.value())).collect() };
    let before = state(&net);
    assert_eq!(values(&net.call(&x, &Cx::eval())), values(&net.call(&x, &Cx::eval())));
    assert_eq!(state(&net), before);
    let kept = net.norm.running().expect("tracked").mean.value();
    net.call(&x, &Cx::train(0, 0));
    assert_ne!(state(&net), before);
    assert_eq!(values(&kept), [0.0; 6], "what was read before stays as it was");
    let plain = BatchNorm1d::new(6, &mut Init::new(gradus_cpu::device(), 0)).track(false);
    assert!(plain.running().is_none() && plain.named_states().is_empty());
    let y = ones(&[2, 6]);
    assert_eq!(values(&plain.call(&y, &Cx::eval())), [0.0; 12], "the batch's own statistics");
}

#[test]
fn a_checkpointed_block_gives_the_same_gradients_and_moves_statistics_once() {
    let run = |checkpointed: bool| {
        let net = Net::new(3).with_paths();
        let x = Tensor::randn([8, 3], gradus_cpu::device(), 2).requires_grad();
        let cx = Cx::train(7, 4);
        let y = if checkpointed { cx.checkpoint(&net, &x) } else { net.call(&x, &cx) };
        let y = net.drop.call(&y, &cx); // the stream goes on where the block left it
        y.sum().backward();
        let grads: Vec<Vec<f32>> = net
            .named_parameters()
            .iter()
            .map(|(name, p)| values(&p.grad().unwrap_or_else(|| panic!("{name} has no gradient"))))
            .collect();
        let states: Vec<Vec<f32>> = net.named_states().iter().map(|(_, s)| values(&s.value())).collect();
        (values(&y), values(&x.grad().expect("a gradient")), grads, states)
    };
    let (plain, checkpointed) = (run(false), run(true));
    assert_eq!(plain.3.last(), Some(&vec![1.0]), "one batch was counted");
    assert_eq!(plain, checkpointed);
}

fn message(f: impl FnOnce() -> Tensor) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it does not fit");
    panic.downcast_ref::<String>().cloned().expect("a message")
}

#[test]
fn errors_name_the_layer() {
    let net = Sequential::new().add(Relu).add(Net::new(0));
    let x = ones(&[2, 5]);
    let unnamed = message(|| net.call(&x, &Cx::eval()));
    assert!(unnamed.contains("(in module Sequential.Net.Linear)"), "{unnamed}");
    assert!(unnamed.contains("f32 [2, 5]") && unnamed.contains("[.., 3]"), "{unnamed}");
    let named = message(|| net.with_paths().call(&x, &Cx::eval()));
    assert!(named.contains("(in module 1.fc)"), "{named}");
    assert_eq!(gradus_core::scope::path(), "", "the scopes were left");
    let mut init = Init::new(gradus_cpu::device(), 0);
    for (layer, x, says) in [
        (Box::new(Dropout::new(1.5)) as Box<dyn Layer>, ones(&[2]), "between 0 and 1; got 1.5"),
        (Box::new(BatchNorm2d::new(3, &mut init)), ones(&[2, 3]), "3 channels"),
        (Box::new(BatchNorm1d::new(3, &mut init)), ones(&[1, 3]), "more than one value"),
        (Box::new(MultiheadAttention::new(4, 2, &mut init)), ones(&[2, 5]), "[batch, length, 4]"),
        (Box::new(Unflatten::new(1, [2, 3])), ones(&[2, 5]), "[2, 3]"),
        (Box::new(Embedding::new(4, 2, &mut init)), ones(&[2]), "integers"),
        (Box::new(Embedding::new(4, 2, &mut init)), Tensor::from_vec(vec![4i64], [1], gradus_cpu::device()), "4"),
    ] {
        let error = message(|| layer.call(&x, &Cx::train(0, 0)));
        assert!(error.contains(says), "{}: {error}", layer.kind());
    }
    for (error, says) in [
        (Conv2d::try_new(3, 4, 3, 2, &mut init).err(), "4 and 3, do not fall into 2"),
        (Conv2d::try_new(4, 4, [3, 3, 3], 2, &mut init).err(), "3 dimensions"),
        (Conv2d::try_new(4, 4, 0, 2, &mut init).err(), "at least 1 place"),
        (MultiheadAttention::try_new(5, 2, &mut init).err(), "5 numbers"),
        (Linear::try_new(1 << 40, 1 << 40, &mut init).err(), "bytes"),
        (Embedding::new(4, 2, &mut init).try_padding_index(4).err(), "table of 4"),
        (GroupNorm::try_new(2, 3, &mut init).err(), "2 groups"),
    ] {
        let error = error.expect("misuse").to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn observers_see_each_call_from_the_inside_out() {
    let net = Sequential::new().add(Net::new(0)).add(Relu).with_paths();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    let cx = Cx::eval().observing(move |call| {
        let path = call.site.and_then(Site::path).map_or("–", |p| p);
        log.lock().expect("whole").push(format!("{} {path} {}", call.kind, call.output.shape()));
    });
    net.call(&ones(&[2, 3]), &cx);
    let expected = [
        "Linear 0.fc [2, 6]",
        "BatchNorm1d 0.norm [2, 6]",
        "Dropout 0.drop [2, 6]",
        "Net 0 [2, 6]",
        "Relu – [2, 6]",
        "Sequential  [2, 6]",
    ];
    assert_eq!(*seen.lock().expect("whole"), expected);
}

#[test]
fn a_model_prints_as_a_table() {
    let mut init = Init::new(gradus_cpu::device(), 0);
    let features = Sequential::new()
        .add(Conv2d::new(1, 16, 3, &mut init).padding(1).stride([2, 1]).bias(false))
        .add(BatchNorm2d::new(16, &mut init))
        .add(Relu)
        .add(MaxPool2d::new(2))
        .add(Dropout::new(0.1))
        .add(Flatten::default())
        .add(Linear::new(128, 10, &mut init));
    let mut model = Wrapped { net: features, scale: Param::new(ones(&[1])), note: "plain data has no row".into() };
    model.scale.freeze();
    let x = ones(&[4, 1, 8, 8]);
    let table = Table::of(&model).traced(|cx| drop(model.net.call(&x, cx) * &*model.scale));
    let expected = "\
name   layer                                                 output          parameters
       Wrapped                                               –                        1
net.0  Conv2d(1 → 16, 3×3, stride 2×1, padding 1×1, no bias)  [4, 16, 4, 8]          144
net.1  BatchNorm2d(16)                                       [4, 16, 4, 8]           32
net.2  Relu                                                  –                        0
net.3  MaxPool2d(2×2)                                        [4, 16, 2, 4]            0
net.4  Dropout(p = 0.1)                                      [4, 16, 2, 4]            0
net.5  Flatten                                               [4, 128]                 0
net.6  Linear(128 → 10)                                      [4, 10]              1,290
1,467 parameters (1,466 trainable, 1 frozen), 5.7 KiB
";
    let unpadded = |s: &str| s.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(unpadded(&table.to_string()), unpadded(expected), "\n{table}");
    assert_eq!((table.parameters(), table.frozen(), table.rows().len()), (1467, 1, 8));
    assert_eq!(model.note.len(), 21);
}

#[derive(Module)]
struct Wrapped {
    net: Sequential,
    scale: Param,
    note: String,
}

#[test]
fn losses_refuse_what_does_not_fit() {
    use gradus_nn::loss::{BceWithLogits, CrossEntropy, Huber, Loss, Mse, Nll, SmoothL1};
    let i = |v: Vec<i64>| Tensor::from_slice(&v, gradus_cpu::device());
    let cases: [(Result<Tensor>, &str); 8] = [
        (Mse::default().try_forward(&ones(&[3, 1]), &ones(&[3])), "of its shape; given f32 [3, 1], f32 [3]"),
        (BceWithLogits::new().try_forward(&i(vec![1]), &i(vec![1])), "floating-point"),
        (Huber::new(-1.0).try_forward(&ones(&[1]), &ones(&[1])), "delta must be a number above 0; got -1"),
        (SmoothL1::new(f64::NAN).try_forward(&ones(&[1]), &ones(&[1])), "beta"),
        (Nll::new().try_forward(&ones(&[2, 3]), &i(vec![0, 1, 2])), "[rows, ..]"),
        (Nll::new().weight(ones(&[2])).try_forward(&ones(&[2, 3]), &i(vec![0, 1])), "class weights of shape [3]"),
        (Nll::new().try_forward(&ones(&[2, 3]), &i(vec![0, 3])), "3"),
        (CrossEntropy::new().try_forward(&ones(&[2, 3]), &i(vec![0, -1])), "-1"),
    ];
    for (result, says) in cases {
        let error = result.expect_err("misuse").to_string();
        assert!(error.contains(says), "{error}");
    }
    // An ignored row counts for nothing, even where its log-probability is −∞.
    let log_p = Tensor::from_slice(&[f32::NEG_INFINITY, 0.0, -1.0, -2.0], gradus_cpu::device()).reshape([2, 2]);
    let y = Nll::new().forward(&log_p, &i(vec![-100, 1]));
    assert_eq!(values(&y), [2.0]);
}
