//! A GPT in mixed precision: its losses against those in `f32`, and a step that overflows.

use gradus_core::{Device, Precision, Result, Tensor};
use gradus_data::{Batch, Characters, Loader, TokenWindows, king_james};
use gradus_nn::loss::CrossEntropy;
use gradus_nn::{Cx, Embedding, GeluTanh, Init, Layer, LayerNorm, Linear, Module, MultiheadAttention};
use gradus_optim::{AdamW, ClipNorm, LossScale};
use gradus_train::{Progress, Step, Summary, Trainer};

/// The block of `examples/gpt.rs`.
#[derive(Module)]
struct Block {
    ln_1: LayerNorm,
    attn: MultiheadAttention,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
}

impl Layer for Block {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let x = x + self.attn.call(&self.ln_1.call(x, cx), cx);
        let hidden = GeluTanh.call(&self.c_fc.call(&self.ln_2.call(&x, cx), cx), cx);
        &x + self.c_proj.call(&hidden, cx)
    }
}

/// The model of `examples/gpt.rs`, at its size `tiny`.
#[derive(Module)]
struct Gpt {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

/// Blocks, heads, width, and how much text is seen at once.
const SIZE: [usize; 4] = [2, 2, 64, 32];

impl Gpt {
    fn new(kinds: usize, device: Device) -> Gpt {
        let ([blocks, heads, width, context], init) = (SIZE, &mut Init::new(device, 0));
        let block = |init: &mut Init| Block {
            ln_1: LayerNorm::new(width, init),
            attn: MultiheadAttention::new(width, heads, init).causal(),
            ln_2: LayerNorm::new(width, init),
            c_fc: Linear::new(width, 4 * width, init),
            c_proj: Linear::new(4 * width, width, init),
        };
        Gpt {
            wte: Embedding::new(kinds, width, init),
            wpe: Embedding::new(context, width, init),
            h: (0..blocks).map(|_| block(init)).collect(),
            ln_f: LayerNorm::new(width, init),
        }
    }
    fn loss(&self, batch: &Batch, cx: &Cx) -> Result<Step> {
        let places = Tensor::arange(0i64, batch.input.dim(1) as i64, 1i64, batch.input.place());
        let mut x = self.wte.call(&batch.input, cx) + self.wpe.call(&places, cx);
        for block in &self.h {
            x = block.call(&x, cx);
        }
        let hidden = self.ln_f.call(&x, cx);
        Ok(Step::new(CrossEntropy::new().try_of_linear(&hidden, &self.wte.weight, None, &batch.target, None)?))
    }
}

/// Four rounds of 25 steps on the start of the King James Bible.
fn trained(precision: Precision, scale: Option<LossScale>) -> Summary {
    let device = gradus_cpu::device();
    let text: String = king_james().expect("the text is there").chars().take(60_000).collect();
    let characters = Characters::of(&text);
    let tokens = characters.encode(&text).expect("it is made of them");
    let windows = TokenWindows::new(tokens.clone(), SIZE[3]).expect("it is long enough").random(25 * 12);
    let train = Loader::new(windows, device).batch_size(12).shuffle(0);
    let valid = TokenWindows::new(tokens[..1000].to_vec(), SIZE[3]).expect("it is long enough");
    let valid = Loader::new(valid, device).batch_size(12);
    let mut trainer = Trainer::new(Gpt::new(characters.len(), device).with_paths(), AdamW::new(2e-3))
        .transform(ClipNorm::new(1.0))
        .epochs(4)
        .seed(7)
        .progress(Progress::Silent)
        .precision(precision);
    if let Some(scale) = scale {
        trainer = trainer.loss_scale(scale);
    }
    trainer.fit(&train, &valid, Gpt::loss).expect("it trains")
}

fn losses(summary: &Summary) -> Vec<f64> {
    summary.history.rows().iter().filter_map(|r| r.get("train/loss")).collect()
}

#[test]
fn a_gpt_in_half_precision_ends_where_f32_does() {
    let full = losses(&trained(Precision::F32, None));
    assert!(full[3] < 0.85 * full[0], "f32 learns nothing: {full:?}");
    for half in [Precision::Bf16, Precision::F16] {
        let summary = trained(half, None);
        let have = losses(&summary);
        assert_ne!(have, full, "{half:?} is f32");
        assert!((have[3] - full[3]).abs() <= 0.02 * full[3], "{half:?} ends at {have:?}, f32 at {full:?}");
    }
}

#[test]
fn a_gpt_s_step_that_overflows_is_skipped_and_the_run_goes_on() {
    // 2¹⁰⁰ overflows every product of the backward pass; after some halvings it no longer does.
    let summary = trained(Precision::F16, Some(LossScale::new().initial(2f64.powi(100))));
    let skipped = summary.history.last("skipped_steps").expect("it is counted");
    assert!(skipped >= 1.0 && skipped < summary.steps as f64, "{skipped} steps of {} were skipped", summary.steps);
    let losses = losses(&summary);
    assert!(losses.iter().all(|l| l.is_finite()), "{losses:?}");
}
