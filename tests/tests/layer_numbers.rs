//! Layers that the modules' goldens leave out, against PyTorch's numbers (`layer_numbers/generate.py`): outputs, gradients, and the
//! states that a pass leaves.

use gradus_core::functional::attention::AttentionOptions;
use gradus_core::functional::interpolate::InterpolateMode;
use gradus_core::ops::PadMode;
use gradus_core::{Device, Tensor};
use gradus_nn::loss::{BinaryFocal, Dice, Focal, InfoNce, Loss, Reduction};
use gradus_nn::*;
use std::collections::BTreeMap;
use std::path::Path;

fn device() -> Device {
    gradus_cpu::device()
}

fn init() -> Init {
    Init::new(device(), 0)
}

/// What PyTorch was given and gave, by name.
struct Numbers(BTreeMap<String, Tensor>);

impl Numbers {
    fn open() -> Numbers {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layer_numbers/layers.safetensors");
        let file = gradus_io::SafeTensors::open(&path).unwrap_or_else(|e| panic!("{e}"));
        let tensor = |name: &str| file.tensor(name, device()).unwrap_or_else(|e| panic!("{e}"));
        Numbers(file.infos().iter().map(|info| (info.name.clone(), tensor(&info.name))).collect())
    }

    fn close(&self, what: &str, have: &Tensor) {
        let want = &self.0[what];
        assert_eq!(have.shape(), want.shape(), "{what}");
        let [have, want] = [have, want].map(|t| t.to_vec::<f64>().expect("readable"));
        let scale = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, (a, b)) in have.iter().zip(&want).enumerate() {
            assert!((a - b).abs() <= 1e-5 * scale, "{what}[{i}] is {a}, in PyTorch {b}");
        }
    }

    fn load(&self, name: &str, module: &mut dyn Module) {
        let prefix = format!("{name}.state.");
        let state = self.0.iter().filter_map(|(n, t)| Some((n.strip_prefix(&prefix)?.to_owned(), t.clone()))).collect();
        module.load_state_dict(&state).unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    fn check<M: Module>(&self, name: &str, mut module: M, cx: &Cx, run: impl Fn(&M, &[Tensor], &Cx) -> Tensor) {
        self.load(name, &mut module);
        let inputs: Vec<Tensor> = (0..)
            .map_while(|i| self.0.get(&format!("{name}.in{i}")))
            .map(|x| if x.dtype().is_float() { x.requires_grad() } else { x.clone() })
            .collect();
        let y = run(&module, &inputs, cx);
        self.close(&format!("{name}.out"), &y);
        y.square().sum().backward();
        for (i, x) in inputs.iter().enumerate().filter(|(_, x)| x.dtype().is_float()) {
            self.close(&format!("{name}.grad{i}"), &x.grad().expect("a gradient"));
        }
        for (parameter, p) in module.named_parameters() {
            if p.is_frozen() {
                assert!(p.grad().is_none(), "{name}: {parameter} is frozen, and has a gradient");
                continue;
            }
            self.close(&format!("{name}.grad.{parameter}"), &p.grad().expect("a gradient"));
        }
        for (state, s) in module.named_states() {
            self.close(&format!("{name}.after.{state}"), &s.value());
        }
    }

    fn layer(&self, name: &str, layer: impl Layer) {
        self.check(name, layer, &Cx::eval(), |l, x, cx| l.call(&x[0], cx));
    }
}

#[test]
fn parametrizations_have_pytorchs_numbers() {
    let (n, mut i) = (Numbers::open(), init());
    n.layer("weight_norm_linear", WeightNorm::new(Linear::new(4, 3, &mut i)));
    n.layer("weight_norm_conv", WeightNorm::new(Conv1d::new(2, 3, 3, &mut i)));
    n.layer("weight_norm_transposed", WeightNorm::new(ConvTranspose1d::new(2, 3, 3, &mut i)));
    n.layer("spectral_norm_linear", SpectralNorm::new(Linear::new(4, 3, &mut i), &mut init()));
    n.layer("spectral_norm_transposed", SpectralNorm::new(ConvTranspose1d::new(2, 3, 3, &mut i), &mut init()));
    let trained = SpectralNorm::new(Linear::new(4, 3, &mut i), &mut init());
    n.check("spectral_norm_train", trained, &Cx::train(0, 0), |l, x, cx| l.call(&x[0], cx));
}

#[test]
fn attention_has_pytorchs_numbers() {
    let (n, mut i) = (Numbers::open(), init());
    let options = MultiheadOptions::new(8, 2).key_value_widths(5, 6);
    let attention = MultiheadAttention::try_with(options, &mut i).unwrap_or_else(|e| panic!("{e}"));
    n.check("attention_widths", attention, &Cx::eval(), |l, x, cx| {
        l.attend(&x[0], &x[1], &x[2], &AttentionOptions::default(), cx)
    });
    let options = TransformerOptions::new(8, 2).feed_forward(16).dropout(0.0).norm_first(true);
    let options = options.activation(FeedForwardActivation::Gelu);
    n.layer("encoder", TransformerEncoder::new(options, 2, &mut i).norm(LayerNorm::new(8, &mut init())));
    n.check("rotary", RotaryEmbedding::new(8), &Cx::eval(), |l, x, _| l.rotate(&x[0], 0));
}

#[test]
fn tables_have_pytorchs_numbers() {
    let (n, mut i) = (Numbers::open(), init());
    n.layer("embedding_bag", EmbeddingBag::new(10, 4, BagMode::Mean, &mut i).padding_index(0));
    n.layer("max_norm", Embedding::new(10, 4, &mut i).max_norm(1.0, 2.0));
}

#[test]
fn convolutions_and_places_have_pytorchs_numbers() {
    let (n, mut i) = (Numbers::open(), init());
    n.layer("conv_reflect", Conv2d::new(2, 3, 3, &mut i).padding(1).padding_mode(PadMode::Reflect));
    n.layer("conv_circular_same", Conv1d::new(2, 3, 4, &mut i).same().padding_mode(PadMode::Circular));
    n.layer("upsample", Upsample::by(2.0, InterpolateMode::Linear).align_corners(true));
    n.layer("unfold", Unfold::new(2).padding(1).stride(2));
    n.layer("fold", Fold::new([4, 4], 2).padding(1).stride(2));
}

#[test]
fn grouped_queries_and_gates_have_pytorchs_numbers() {
    let (n, mut i) = (Numbers::open(), init());
    n.layer("gated", GatedFeedForward::new(4, 6, &mut i));
    let grouped = || GroupedQueryAttention::new(16, 4, 2, &mut init()).rotary(RotaryEmbedding::new(4));
    n.layer("grouped", grouped());
    // In parts, through a cache: the first three tokens, one that is taken back, and the last two.
    n.check("grouped", grouped(), &Cx::eval(), |l, x, cx| {
        let (mut cache, x) = (KvCache::new(), &x[0]);
        let first = l.step(&x.narrow(1, 0, 3), &mut cache, cx);
        gradus_core::no_grad(|| l.step(&x.narrow(1, 0, 1), &mut cache, cx));
        cache.truncate(3).unwrap_or_else(|e| panic!("{e}"));
        // A cache holds values alone, so what the last tokens owe the first ones is left out of the gradients: they are the whole's.
        let last = gradus_core::no_grad(|| l.step(&x.narrow(1, 3, 2), &mut cache, cx));
        let whole = l.call(x, cx);
        let parts = Tensor::cat(&[&first, &last], 1);
        assert!((parts - &whole).abs().amax(&[0, 1, 2], false).item::<f32>().expect("readable") < 1e-5);
        whole
    });
}

#[test]
fn adapters_have_pytorchs_numbers() {
    let (n, mut i) = (Numbers::open(), init());
    let options = LoraOptions::new(2).alpha(3.0);
    let linear = || LoraLinear::new(Linear::new(4, 3, &mut init()), options, &mut init());
    n.layer("lora_linear", linear());
    let table = || LoraEmbedding::new(Embedding::new(10, 4, &mut init()), options, &mut init());
    n.layer("lora_embedding", table());
    let all = LoraTargets { query: true, key: true, value: true, output: true };
    let base = MultiheadAttention::new(8, 2, &mut i).causal();
    n.layer("lora_attention", LoraAttention::new(base, all, options, &mut i));

    // Merged, they give the same.
    let mut linear = linear();
    n.load("lora_linear", &mut linear);
    n.close(
        "lora_linear.out",
        &linear.merged().unwrap_or_else(|e| panic!("{e}")).call(&n.0["lora_linear.in0"], &Cx::eval()),
    );
    let mut table = table();
    n.load("lora_embedding", &mut table);
    let table = table.merged().unwrap_or_else(|e| panic!("{e}"));
    n.close("lora_embedding.out", &table.call(&n.0["lora_embedding.in0"], &Cx::eval()));
}

#[test]
fn contrastive_dice_and_focal_losses_have_their_formulas() {
    let n = Numbers::open();
    n.check("info_nce", InfoNce::new().temperature(0.2).symmetric(true), &Cx::eval(), |l, x, _| {
        l.forward(&x[0], &x[1])
    });
    let inside: Vec<f32> = (0..24).map(|i| if i % 3 == 0 { 1.0 } else { 0.0 }).collect();
    let target = Tensor::from_vec(inside, [2, 3, 4], device());
    n.check("dice", Dice::new().squared(true).reduction(Reduction::None), &Cx::eval(), |l, x, _| {
        l.forward(&x[0], &target)
    });
    let target = Tensor::from_vec(vec![2i64, 0, 1, 2], [4], device());
    let weight = Tensor::from_slice(&[0.5f32, 1.0, 2.0], device());
    let focal = || Focal::new(2.0).weight(weight.clone()).reduction(Reduction::None);
    // The weights are the loss's state, which PyTorch's formula has not.
    let y = focal().forward(&n.0["focal.in0"], &target);
    n.close("focal.out", &y);
    let x = n.0["focal.in0"].requires_grad();
    focal().forward(&x, &target).square().sum().backward();
    n.close("focal.grad0", &x.grad().expect("a gradient"));
}

#[test]
fn focal_loss_has_pytorchs_numbers() {
    let target = Tensor::from_vec(vec![0f32, 1.0, 1.0, 0.0], [4], device());
    Numbers::open().check("binary_focal", BinaryFocal::new(2.0).reduction(Reduction::None), &Cx::eval(), |l, x, _| {
        l.forward(&x[0], &target)
    });
}
