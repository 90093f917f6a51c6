//! Learns to read handwritten digits: 1,797 real images of 8×8 pixels, in the library itself.
//!
//! `cargo run --release --example digits`, and `-- --help` for what can be changed. The data are split, digit by digit, into
//! training (70 %), validation (10 %) and test (20 %) parts. The best epoch is chosen on the validation part alone; the test
//! part is scored once, at the end.

use clap::Parser;
use gradus::prelude::*;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Learn to read handwritten digits.
#[derive(Parser)]
struct Args {
    /// Where to train: cpu, wgpu:0, cuda:0, or best
    #[arg(long, default_value = "cpu")]
    device: String,
    /// How many times to go through the training images
    #[arg(long, default_value_t = 30)]
    epochs: usize,
    /// Images in a batch
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// The highest learning rate
    #[arg(long, default_value_t = 0.003)]
    lr: f64,
    /// Names the run: split, first weights, order of the images, dropout
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Strength of an L1 penalty on the weights
    #[arg(long, default_value_t = 0.0)]
    l1: f64,
    /// Strength of an L2 penalty on the weights
    #[arg(long, default_value_t = 0.0)]
    l2: f64,
    /// The probability of a feature to be dropped in training
    #[arg(long, default_value_t = 0.3)]
    dropout: f64,
    /// What products of matrices are computed in: f32, f16 or bf16; the weights stay f32
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// A directory for checkpoints, history.csv and model.safetensors
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on from the newest checkpoint in --out, if there is one
    #[arg(long, requires = "out")]
    resume: bool,
    /// Draw so many test images with what was read
    #[arg(long, default_value_t = 0)]
    predict: usize,
}

/// Three convolutions, each of which sees more of the image than the one before, and a linear layer that decides.
#[derive(Module)]
struct Reader {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    conv3: Conv2d,
    flatten: Flatten,
    drop: Dropout,
    fc: Linear,
}

impl Reader {
    fn new(dropout: f64, init: &mut Init) -> Result<Reader> {
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::misuse(format!("--dropout must be at least 0 and less than 1; got {dropout}")));
        }
        Ok(Reader {
            conv1: Conv2d::new(1, 16, 3, init).same(),
            conv2: Conv2d::new(16, 32, 3, init).same(),
            pool: MaxPool2d::new(2),
            conv3: Conv2d::new(32, 64, 3, init).same(),
            flatten: Flatten::default(),
            drop: Dropout::new(dropout),
            fc: Linear::new(64 * 2 * 2, 10, init),
        })
    }
}

impl Layer for Reader {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let x = Relu.call(&self.conv1.call(x, cx), cx); // [batch, 16, 8, 8]
        let x = self.pool.call(&Relu.call(&self.conv2.call(&x, cx), cx), cx); // [batch, 32, 4, 4]
        let x = self.pool.call(&Relu.call(&self.conv3.call(&x, cx), cx), cx); // [batch, 64, 2, 2]
        self.fc.call(&self.drop.call(&self.flatten.call(&x, cx), cx), cx) // [batch, 10]
    }
}

/// One pass over a batch, in training and evaluation.
fn step(model: &Reader, batch: &Batch, cx: &Cx) -> Result<Step> {
    let logits = model.call(&batch.input, cx);
    Ok(Step::new(logits.try_cross_entropy(&batch.target)?).outputs(&logits, &batch.target))
}

fn trainer(args: &Args, model: Reader, steps: u64) -> Trainer<Reader> {
    let mut trainer = Trainer::new(model, AdamW::new(args.lr).weight_decay(0.01))
        .schedule(Cosine::warmup(steps / 20, steps.max(1)))
        .epochs(args.epochs)
        .precision(args.precision)
        .seed(args.seed)
        .metric(Accuracy::new())
        .callback(EarlyStopping::on("val/loss").patience(12))
        .restore_best("val/loss");
    if args.l1 != 0.0 {
        trainer = trainer.transform(L1::new(args.l1).only("*.weight"));
    }
    if args.l2 != 0.0 {
        trainer = trainer.transform(L2::new(args.l2).only("*.weight"));
    }
    if let Some(out) = &args.out {
        let checkpoints =
            Checkpoints::at(out.join("checkpoints")).every_epochs(1).every_steps(15).keep_best("val/loss", 1);
        trainer = trainer.checkpoint(checkpoints).history_csv(out.join("history.csv"));
    }
    trainer
}

/// Goes on from the newest checkpoint, if that is wanted and there is one.
fn resume(args: &Args, trainer: &mut Trainer<Reader>) -> Result<()> {
    let Some(out) = args.out.as_ref().filter(|_| args.resume) else { return Ok(()) };
    match trainer.resume(out.join("checkpoints"))? {
        Some(r) => {
            r.damaged.iter().for_each(|d| eprintln!("passed over a damaged checkpoint: {d}"));
            eprintln!("resuming after {} epochs, {} batches ({})", r.epochs, r.batches, r.path.display());
        }
        None => eprintln!("no checkpoint to resume in {}: starting anew", out.display()),
    }
    Ok(())
}

fn save(model: &Reader, out: &Path) -> Result<()> {
    gradus::io::save(out.join("model.safetensors"), &model.state_dict(), &Default::default())?;
    Ok(())
}

/// Test images as text, each above its label and what was read.
fn draw(model: &Reader, test: &Loader<Subset<InMemory>>, count: usize) -> Result<()> {
    const INK: [char; 9] = [' ', '.', ':', '-', '=', '+', '*', '#', '@'];
    for i in 0..count.min(test.source().len()) {
        let batch = test.source().batch(&[i], &Key::new(0), test.device())?;
        let probabilities = no_grad(|| model.call(&batch.input, &Cx::eval())).softmax(-1).to_vec::<f32>()?;
        let (digit, share) =
            probabilities.iter().enumerate().fold((0, 0.0), |best, (i, &p)| if p > best.1 { (i, p) } else { best });
        for line in batch.input.to_vec::<f32>()?.chunks(8) {
            println!("    {}", line.iter().flat_map(|p| [INK[(p * 8.0).round() as usize]; 2]).collect::<String>());
        }
        println!("    is {}, read as {digit} ({:.1} %)\n", batch.target.item::<i64>()?, 100.0 * share);
    }
    Ok(())
}

fn run(args: &Args) -> Result<()> {
    let device = Device::parse(&args.device)?;
    let digits = digits()?;
    let mut parts = stratified_split(&digits.labels()?, &[0.7, 0.1, 0.2], args.seed)?.into_iter();
    let mut part = || Subset::new(digits.clone(), parts.next().unwrap_or_default());
    let train = Loader::new(part()?, device).batch_size(args.batch_size).shuffle(args.seed);
    let valid = Loader::new(part()?, device).batch_size(256);
    let test = Loader::new(part()?, device).batch_size(256);

    let model = Reader::new(args.dropout, &mut Init::new(device, args.seed))?.with_paths();
    print!("{}", Table::of(&model).run(&model, &Tensor::zeros([1, 1, 8, 8], device)));
    let counts = [&train, &valid, &test].map(|l| l.source().len());
    println!("{} training, {} validation and {} test images on {device}\n", counts[0], counts[1], counts[2]);

    let mut trainer = trainer(args, model, (args.epochs * train.batches()) as u64);
    resume(args, &mut trainer)?;
    let summary = trainer.fit(&train, &valid, step)?;
    println!("{}", summary.history.chart(&["train/loss", "val/loss"], 60, 12));
    println!(
        "{} steps in {:.1} s; the weights are those of epoch {}\n",
        summary.steps,
        summary.seconds,
        summary.best.map_or(0, |b| b.0)
    );

    let model = trainer.into_model();
    if let Some(out) = &args.out {
        save(&model, out)?;
    }
    let (mut accuracy, mut matrix) = (Accuracy::new(), ConfusionMatrix::new(10));
    evaluate(&model, &test, &mut [&mut accuracy, &mut matrix], step)?;
    draw(&model, &test, args.predict)?;
    println!("{matrix}\nmacro F1 {:.4}", matrix.average(Average::Macro).f1);
    println!("test accuracy {:.4}", accuracy.value());
    Ok(())
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
