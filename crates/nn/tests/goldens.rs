//! Layers and losses against PyTorch's numbers: values, gradients, and the states they leave. See goldens/generate.py.

#[path = "goldens/cases.rs"]
mod cases;

use cases::CASES;
use gradus_core::functional::attention::AttentionOptions;
use gradus_core::{DType, Tensor};
use gradus_nn::loss::{BceWithLogits, CrossEntropy, Huber, L1, Loss, Mse, Nll, Reduction, SmoothL1};
use gradus_nn::*;
use std::collections::BTreeMap;

/// What PyTorch was given and gave, by name; in f64.
pub struct Case {
    name: &'static str,
    tensors: &'static [(&'static str, &'static [usize], &'static [f64])],
}

impl Case {
    fn find(&self, name: &str) -> Option<Tensor> {
        let (_, shape, data) = self.tensors.iter().find(|(n, ..)| *n == name)?;
        Some(Tensor::from_vec(data.to_vec(), *shape, gradus_cpu::device()))
    }
    fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("{}: no {name}", self.name))
    }
    /// Indices.
    fn get_i64(&self, name: &str) -> Tensor {
        self.get(name).to_dtype(DType::I64)
    }
    /// The tensors whose names start with `prefix`, by the rest of their names.
    fn all(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        self.tensors.iter().filter_map(|(n, ..)| Some((n.strip_prefix(prefix)?.to_owned(), self.get(n)))).collect()
    }
    fn check(&self, what: &str, ours: &Tensor, theirs: &Tensor) {
        assert_eq!(ours.shape(), theirs.shape(), "{}: shape of {what}", self.name);
        let [ours, theirs] = [ours, theirs].map(|t| t.to_vec::<f64>().expect("readable"));
        for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            assert!((a - b).abs() <= 1e-10 * (1.0 + b.abs()), "{}: {what}[{i}] is {a}, in PyTorch {b}", self.name);
        }
    }

    /// Loads the case's parameters into a layer, runs it forward and backward, and compares everything that PyTorch said.
    fn run<L: Layer>(&self, mut layer: L, cx: &Cx, call: impl Fn(&L, &Tensor, &Cx) -> Tensor) {
        let mut before = self.all("before.");
        for name in ["num_batches_tracked"] {
            if let Some(count) = before.get_mut(name) {
                *count = count.to_dtype(DType::I64);
            }
        }
        layer.load_state_dict(&before).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let indices = self.find("grad.x").is_none();
        let x = if indices { self.get_i64("x") } else { self.get("x").requires_grad() };
        let y = call(&layer, &x, cx);
        self.check("y", &y, &self.get("y"));
        (y * self.get("g")).sum().backward();
        if !indices {
            self.check("grad.x", &x.grad().expect("a gradient"), &self.get("grad.x"));
        }
        for (name, p) in layer.named_parameters() {
            let grad = p.grad().unwrap_or_else(|| panic!("{}: {name} got no gradient", self.name));
            self.check(&format!("grad.{name}"), &grad, &self.get(&format!("grad.{name}")));
        }
        for (name, after) in self.all("after.") {
            self.check(&format!("after.{name}"), &layer.state_dict()[&name], &after);
        }
    }

    fn layer<L: Layer>(&self, layer: L) {
        self.run(layer, &Cx::eval(), |layer, x, cx| layer.call(x, cx));
    }

    fn trained<L: Layer>(&self, layer: L) {
        self.run(layer, &Cx::train(0, 0), |layer, x, cx| layer.call(x, cx));
    }

    fn loss(&self, loss: impl Loss) {
        let x = self.get("x").requires_grad();
        let target = self.get("target");
        let classes = self.name.starts_with("cross_entropy") || self.name.starts_with("nll");
        let y = loss.forward(&x, &if classes { target.to_dtype(DType::I64) } else { target });
        self.check("y", &y, &self.get("y"));
        y.sum().backward();
        self.check("grad.x", &x.grad().expect("a gradient"), &self.get("grad.x"));
    }
}

fn reduction(name: &str) -> Reduction {
    match name.rsplit('_').next() {
        Some("sum") => Reduction::Sum,
        Some("none") => Reduction::None,
        _ => Reduction::Mean,
    }
}

/// Runs a case that is a layer; says whether it was one.
fn layer(case: &Case) -> bool {
    let i = &mut Init::new(gradus_cpu::device().with(DType::F64), 0);
    match case.name {
        "linear" => case.layer(Linear::new(3, 2, i)),
        "linear_no_bias" => case.layer(Linear::new(3, 2, i).bias(false)),
        "conv1d" => case.layer(Conv1d::grouped(2, 4, 3, 2, i).stride(2).padding(1)),
        "conv2d" => case.layer(Conv2d::new(2, 2, [3, 2], i).stride([1, 2]).padding([1, 0]).dilation([2, 1])),
        "conv2d_same" => case.layer(Conv2d::new(1, 1, [2, 3], i).same()),
        "conv_transpose2d" => case.layer(ConvTranspose2d::new(2, 1, 2, i).stride(2).output_padding(1)),
        "batch_norm1d_train" => case.trained(BatchNorm1d::new(2, i)),
        "batch_norm1d_eval" => case.layer(BatchNorm1d::new(2, i)),
        "batch_norm2d_train" => case.trained(BatchNorm2d::new(2, i)),
        "batch_norm2d_cumulative" => case.trained(BatchNorm2d::new(2, i).momentum(None)),
        "layer_norm" => case.layer(LayerNorm::new([2, 3], i)),
        "group_norm" => case.layer(GroupNorm::new(2, 4, i)),
        "rms_norm" => case.layer(RmsNorm::new(4, i).eps(1e-6)),
        "embedding" => case.layer(Embedding::new(4, 2, i).padding_index(1)),
        "prelu" => case.layer(Prelu::new(2, i)),
        "max_pool2d" => case.layer(MaxPool2d::new(2).stride(1).padding(1)),
        "avg_pool2d" => case.layer(AvgPool2d::new([2, 1]).padding([1, 0])),
        "adaptive_avg_pool2d" => case.layer(AdaptiveAvgPool2d::new([2, 3])),
        "adaptive_max_pool1d" => case.layer(AdaptiveMaxPool1d::new(2)),
        "attention" => case.layer(MultiheadAttention::new(4, 2, i)),
        "attention_masked" => {
            let (memory, mask) = (case.get("memory"), case.get("mask").gt_scalar(0.5));
            case.run(MultiheadAttention::new(4, 2, i).bias(false), &Cx::eval(), |layer, x, cx| {
                layer.attend(x, &memory, &memory, &AttentionOptions::default().mask(&mask), cx)
            });
        }
        "relu" => case.layer(Relu),
        "gelu" => case.layer(Gelu),
        "silu" => case.layer(Silu),
        "mish" => case.layer(Mish),
        "elu" => case.layer(Elu::default()),
        "selu" => case.layer(Selu),
        "celu" => case.layer(Celu::new(0.5)),
        "leaky_relu" => case.layer(LeakyRelu::default()),
        "hardtanh" => case.layer(Hardtanh::default()),
        "hardshrink" => case.layer(Hardshrink::default()),
        "softshrink" => case.layer(Softshrink::default()),
        "glu" => case.layer(Glu::default()),
        "softmax" => case.layer(Softmax::default()),
        "log_softmax" => case.layer(LogSoftmax::default()),
        "softplus" => case.layer(Softplus::default()),
        "hardswish" => case.layer(HardSwish),
        "tanhshrink" => case.layer(Tanhshrink),
        _ => return false,
    }
    true
}

/// Runs a case that is a loss; says whether it was one.
fn loss(case: &Case) -> bool {
    match case.name {
        "cross_entropy_mean" | "cross_entropy_sum" | "cross_entropy_none" => {
            case.loss(CrossEntropy::new().reduction(reduction(case.name)))
        }
        "nll_mean" | "nll_sum" | "nll_none" => {
            case.loss(Nll::new().weight(case.get("weight")).reduction(reduction(case.name)))
        }
        "cross_entropy_everything" => case.loss(CrossEntropy::new().weight(case.get("weight")).smoothing(0.2)),
        "cross_entropy_images" => case.loss(CrossEntropy::new().ignore(0).smoothing(0.1)),
        "nll_images" => case.loss(Nll::new()),
        "bce_with_logits" => case.loss(BceWithLogits::new()),
        "bce_with_logits_weights" => {
            case.loss(BceWithLogits::new().weight(case.get("weight")).positive_weight(case.get("positive_weight")));
        }
        "mse" | "mse_sum" => case.loss(Mse::default().reduction(reduction(case.name))),
        "l1" => case.loss(L1::default()),
        "huber" => case.loss(Huber::new(0.8)),
        "smooth_l1" => case.loss(SmoothL1::new(0.5)),
        "smooth_l1_none" => case.loss(SmoothL1::new(0.0).reduction(Reduction::None)),
        _ => return false,
    }
    true
}

#[test]
fn layers_and_losses_have_pytorchs_values_and_gradients() {
    for case in CASES {
        assert!(layer(case) || loss(case), "no such layer or loss here: {}", case.name);
    }
    assert!(CASES.len() >= 55, "the goldens have shrunk to {}", CASES.len());
}
