//! Trains a GPT on text: nine books of the King James Bible, in the library itself, or any text or file of tokens.
//!
//! `cargo run --release --example gpt`, and `-- --help` for what can be changed. Nine tenths of the text are learnt, the last is
//! held back; after every hundred steps the loss on it is shown, and what the model writes by itself.

use clap::{Parser, ValueEnum};
use gradus::ops::UnaryOp;
use gradus::prelude::*;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Train a language model.
#[derive(Parser)]
struct Args {
    /// Where to train: cpu, wgpu:0, cuda:0, or best
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Layers, heads, width and context
    #[arg(long, value_enum, default_value_t = Size::Small)]
    size: Size,
    /// A text to learn, character by character, in place of the one in the library
    #[arg(long, conflicts_with = "tokens")]
    text: Option<PathBuf>,
    /// A file of 16-bit tokens to learn, as nanoGPT's programs write it
    #[arg(long)]
    tokens: Option<PathBuf>,
    /// Optimizer steps
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Steps between two looks at the model
    #[arg(long, default_value_t = 100)]
    every: usize,
    /// Windows of text in a batch
    #[arg(long, default_value_t = 12)]
    batch_size: usize,
    /// The highest learning rate
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Names the run: first weights, windows of text, dropout, samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The probability of a number to be dropped in training
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// How many characters or tokens to write after each look
    #[arg(long, default_value_t = 200)]
    write: usize,
    /// What products of matrices are computed in: f32, f16 or bf16; the weights stay f32
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// A directory for checkpoints and model.safetensors
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on from the newest checkpoint in --out, if there is one
    #[arg(long, requires = "out")]
    resume: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    /// 2 layers, 2 heads, width 64, 32 tokens: seconds on a CPU
    Tiny,
    /// 4 layers, 4 heads, width 128, 64 tokens
    Small,
    /// 6 layers, 6 heads, width 384, 256 tokens
    Medium,
    /// 12 layers, 12 heads, width 768, 1,024 tokens
    Gpt2,
}

/// Layers, heads, width, context.
fn shape(size: Size) -> [usize; 4] {
    match size {
        Size::Tiny => [2, 2, 64, 32],
        Size::Small => [4, 4, 128, 64],
        Size::Medium => [6, 6, 384, 256],
        Size::Gpt2 => [12, 12, 768, 1024],
    }
}

/// Attention, then two linear layers, each beside a shortcut.
#[derive(Module)]
struct Block {
    ln_1: LayerNorm,
    attn: MultiheadAttention,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
    drop: Dropout,
}

impl Layer for Block {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let attended = self.drop.call(&self.attn.call(&self.ln_1.call(x, cx), cx), cx);
        let (normed, x) = self.ln_2.call_add(&attended, x, cx); // of the sum, and the sum
        let hidden = self.c_fc.call_then(UnaryOp::GeluTanh, &normed, cx);
        self.drop.call_add(&self.c_proj.call(&hidden, cx), &x, cx)
    }
}

/// GPT-2 (Radford et al., 2019): tokens and their places, blocks, and a head that is the table of tokens.
#[derive(Module)]
struct Gpt {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

impl Gpt {
    fn new(
        vocabulary: usize,
        [layers, heads, width, context]: [usize; 4],
        dropout: f64,
        init: &mut Init,
    ) -> Result<Gpt> {
        let block = |init: &mut Init| Block {
            ln_1: LayerNorm::new(width, init),
            attn: MultiheadAttention::new(width, heads, init).causal(),
            ln_2: LayerNorm::new(width, init),
            c_fc: Linear::new(width, 4 * width, init),
            c_proj: Linear::new(4 * width, width, init),
            drop: Dropout::new(dropout),
        };
        Ok(Gpt {
            wte: table(vocabulary, width, init)?,
            wpe: table(context, width, init)?,
            h: (0..layers).map(|_| block(init)).collect(),
            ln_f: LayerNorm::new(width, init),
        })
    }
}

/// A table whose rows begin small, as the head needs them.
fn table(rows: usize, width: usize, init: &mut Init) -> Result<Embedding> {
    let mut table = Embedding::try_new(rows, width, init)?;
    let small = Initializer::Normal { mean: 0.0, std: 0.02 };
    table.weight.replace(small.try_draw([rows, width], init.place(), init.next_key())?)?;
    Ok(table)
}

impl Layer for Gpt {
    /// Tokens `[batch, length]` to what the head makes logits of, `[batch, length, width]`.
    fn forward(&self, tokens: &Tensor, cx: &Cx) -> Tensor {
        let places = Tensor::arange(0i64, tokens.dim(1) as i64, 1i64, tokens.place());
        let mut x = self.wte.call(tokens, cx) + self.wpe.call(&places, cx);
        for block in &self.h {
            x = block.call(&x, cx);
        }
        self.ln_f.call(&x, cx)
    }
}

/// The mean cross-entropy of the tokens that follow; the logits of a whole batch are never there at once.
fn step(model: &Gpt, batch: &Batch, cx: &Cx) -> Result<Step> {
    let hidden = model.call(&batch.input, cx);
    Ok(Step::new(CrossEntropy::new().try_of_linear(&hidden, &model.wte.weight, None, &batch.target, None)?))
}

/// What the model writes after `start`: each token drawn by its probability, at a temperature of 0.8.
fn write(model: &Gpt, start: &[u32], count: usize, context: usize, device: Device, key: &Key) -> Result<Vec<u32>> {
    let mut tokens: Vec<i64> = start.iter().map(|&t| t.into()).collect();
    for i in 0..count {
        let seen = &tokens[tokens.len().saturating_sub(context)..];
        let seen = Tensor::try_from_vec(seen.to_vec(), [1, seen.len()], device)?;
        let last = no_grad(|| model.call(&seen, &Cx::eval()).select(1, -1).linear(&model.wte.weight, None));
        let probabilities = (last / 0.8).softmax(-1).to_vec::<f32>()?;
        let mut left = gradus::rng::uniform(key.fold_in(i as u64).block(0)[0]);
        let drawn = probabilities.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        tokens.push(drawn.unwrap_or(probabilities.len() - 1) as i64);
    }
    Ok(tokens[start.len()..].iter().map(|&t| t as u32).collect())
}

/// The tokens to learn, how many kinds there are, and, of a text, its characters.
fn read(args: &Args) -> Result<(Vec<u32>, usize, Option<Characters>)> {
    if let Some(path) = &args.tokens {
        let tokens = TokenWindows::read_u16(path)?;
        let kinds = tokens.iter().max().map_or(0, |&t| t as usize + 1);
        return Ok((tokens, kinds, None));
    }
    let text = match &args.text {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?
        }
        None => king_james()?,
    };
    let characters = Characters::of(&text);
    Ok((characters.encode(&text)?, characters.len(), Some(characters)))
}

fn run(args: &Args) -> Result<()> {
    if args.every == 0 || args.steps == 0 {
        return Err(Error::misuse(format!(
            "--steps and --every must be at least 1; got {} and {}",
            args.steps, args.every
        )));
    }
    let device = Device::parse(&args.device)?;
    let (mut tokens, kinds, characters) = read(args)?;
    let shape @ [layers, _, width, context] = shape(args.size);
    let held_back = tokens.split_off(tokens.len() * 9 / 10);
    let start = tokens[..tokens.len().min(1)].to_vec();
    println!("{} tokens of {kinds} kinds to learn, {} held back", tokens.len(), held_back.len());
    let windows = TokenWindows::new(tokens, context)?.random(args.every * args.batch_size);
    let train = Loader::new(windows, device).batch_size(args.batch_size).shuffle(args.seed);
    let windows = TokenWindows::new(held_back, context)?;
    let few = (0..windows.len().min(64)).collect();
    let valid = Loader::new(Subset::new(windows, few)?, device).batch_size(args.batch_size);

    let model = Gpt::new(kinds, shape, args.dropout, &mut Init::new(device, args.seed))?.with_paths();
    let parameters = model.parameter_count();
    println!("a GPT of {parameters} parameters on {device}\n");
    let rounds = args.steps.div_ceil(args.every);
    let mut trainer = Trainer::new(model, AdamW::new(args.lr).betas(0.9, 0.99).weight_decay(0.1))
        .schedule(Cosine::warmup(args.steps as u64 / 20, (rounds * args.every) as u64))
        .transform(ClipNorm::new(1.0))
        .precision(args.precision)
        .seed(args.seed);
    if let Some(out) = &args.out {
        trainer = trainer.checkpoint(Checkpoints::at(out.join("checkpoints")).every_epochs(1));
        if let Some(found) = if args.resume { trainer.resume(out.join("checkpoints"))? } else { None } {
            println!("resuming after {} steps", found.epochs * args.every);
        }
    }
    // Of a step: 6 a parameter and token in products, and attention's (Chowdhery et al., "PaLM", 2022, appendix B).
    let flops = (6 * parameters + 12 * layers * width * context) as f64;
    let peak = product_rate(device)?;
    let done = trainer.history().map_or(0, |h| h.rows().len());
    for round in done + 1..=rounds {
        let clock = Instant::now();
        trainer = trainer.epochs(round);
        let summary = trainer.fit(&train, &valid, step)?;
        let rate = (args.every * args.batch_size * context) as f64 / clock.elapsed().as_secs_f64();
        let memory = device.memory().peak as f64 / 1e6;
        println!(
            "step {}: {rate:.0} tokens/s with validation, {:.0} % of this device's products, {memory:.0} MB at most",
            summary.steps,
            100.0 * rate * flops / peak
        );
        let key = Key::new(args.seed).fold("write").fold_in(round as u64);
        let model = trainer.model();
        let written = with_precision(args.precision, || write(model, &start, args.write, context, device, &key))?;
        match &characters {
            Some(characters) => println!("{}\n", characters.decode(&written)?),
            None => println!("{written:?}\n"),
        }
    }
    if let Some(history) = trainer.history() {
        println!("{}", history.chart(&["train/loss", "val/loss"], 60, 12));
        println!("loss on the text held back {:.4}", history.last("val/loss").unwrap_or(f64::NAN));
    }
    if let Some(out) = &args.out {
        gradus::io::save(out.join("model.safetensors"), &trainer.model().state_dict(), &Default::default())?;
    }
    Ok(())
}

/// Floating-point operations a second of large products of matrices, which a training's rate is compared with.
fn product_rate(device: Device) -> Result<f64> {
    const N: usize = 1024;
    let a = Tensor::try_ones([N, N], device)?;
    let mut best = f64::INFINITY;
    for _ in 0..4 {
        let clock = Instant::now();
        let _product = a.try_matmul(&a)?;
        device.synchronize()?;
        best = best.min(clock.elapsed().as_secs_f64());
    }
    Ok(2.0 * (N * N * N) as f64 / best)
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}
