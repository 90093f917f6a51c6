//! Trains a residual network on images of 3×32×32: a folder of them, or shapes that the program draws.
//!
//! `cargo run --release --example resnet -- --folder DIR`, where DIR has a folder of PNG or JPEG files for each class; without one,
//! ten kinds of shapes in random colours, sizes and places are learnt. `-- --help` for what can be changed.

use clap::Parser;
use gradus::prelude::*;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Learn to tell images apart.
#[derive(Parser)]
struct Args {
    /// Where to train: cpu, wgpu:0, cuda:0, or best
    #[arg(long, default_value = "cpu")]
    device: String,
    /// A folder with a folder of PNG or JPEG images for each class
    #[arg(long)]
    folder: Option<PathBuf>,
    /// How many images to draw where no folder is given
    #[arg(long, default_value_t = 4000)]
    images: usize,
    /// How many times to go through the training images
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// Images in a batch
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// The highest learning rate
    #[arg(long, default_value_t = 0.05)]
    lr: f64,
    /// Channels of the first stage; a ResNet-20 has 16
    #[arg(long, default_value_t = 16)]
    width: usize,
    /// Names the run: images, split, first weights, order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A directory for checkpoints and model.safetensors
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on from the newest checkpoint in --out, if there is one
    #[arg(long, requires = "out")]
    resume: bool,
}

/// Two convolutions beside a shortcut.
#[derive(Module, Clone)]
struct Basic {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    downsample: Option<Sequential>,
}

impl Basic {
    fn new(inputs: usize, outputs: usize, stride: usize, init: &mut Init) -> Basic {
        let shortcut = (inputs != outputs).then(|| {
            let conv = Conv2d::new(inputs, outputs, 1, init).stride(stride).bias(false);
            Sequential::new().add(conv).add(BatchNorm2d::new(outputs, init))
        });
        Basic {
            conv1: Conv2d::new(inputs, outputs, 3, init).stride(stride).padding(1).bias(false),
            bn1: BatchNorm2d::new(outputs, init),
            conv2: Conv2d::new(outputs, outputs, 3, init).padding(1).bias(false),
            bn2: BatchNorm2d::new(outputs, init),
            downsample: shortcut,
        }
    }
}

impl Layer for Basic {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let y = Relu.call(&self.bn1.call(&self.conv1.call(x, cx), cx), cx);
        let y = self.bn2.call(&self.conv2.call(&y, cx), cx);
        Relu.call(&(y + self.downsample.call(x, cx)), cx)
    }
}

/// The ResNet-20 of He et al. (2015), section 4.2, with 1×1 convolutions where a stage begins.
fn resnet20(classes: usize, width: usize, init: &mut Init) -> Sequential {
    let mut model = Sequential::new()
        .add(Conv2d::new(3, width, 3, init).padding(1).bias(false))
        .add(BatchNorm2d::new(width, init))
        .add(Relu);
    let mut inputs = width;
    for (outputs, stride) in [(width, 1), (2 * width, 2), (4 * width, 2)] {
        model = model.add(Basic::new(inputs, outputs, stride, init));
        model = model.add(Basic::new(outputs, outputs, 1, init)).add(Basic::new(outputs, outputs, 1, init));
        inputs = outputs;
    }
    model.add(AdaptiveAvgPool2d::new(1)).add(Flatten::default()).add(Linear::new(4 * width, classes, init))
}

/// Shapes in random colours, sizes and places on noise: each image is a function of the seed and its number.
struct Shapes {
    key: Key,
    count: usize,
}

const SHAPES: [&str; 10] =
    ["disc", "ring", "square", "frame", "diamond", "plus", "cross", "bars", "pillars", "triangle"];

/// Whether the shape covers a place, (0, 0) being its middle and ±1 its edges.
fn covers(shape: usize, x: f32, y: f32) -> bool {
    let (ax, ay) = (x.abs(), y.abs());
    let (inside, round) = (ax.max(ay) <= 1.0, x.hypot(y));
    match shape {
        0 => round <= 1.0,
        1 => (0.6..=1.0).contains(&round),
        2 => inside,
        3 => inside && ax.max(ay) >= 0.6,
        4 => ax + ay <= 1.0,
        5 => inside && ax.min(ay) <= 0.25,
        6 => inside && (ax - ay).abs() <= 0.3,
        7 => inside && (y * 2.5).rem_euclid(1.0) < 0.5,
        8 => inside && (x * 2.5).rem_euclid(1.0) < 0.5,
        _ => ay <= 1.0 && ax <= (y + 1.0) / 2.0,
    }
}

impl Source for Shapes {
    type Item = Sample;
    fn len(&self) -> usize {
        self.count
    }
    fn get(&self, index: usize, _epoch: &Key) -> Result<Sample> {
        const SIDE: usize = 32;
        let key = self.key.fold_in(index as u64);
        let number = |i: u32| gradus::rng::uniform(key.block(i)[0]);
        let shape = index % SHAPES.len();
        let (size, colour) = (5.0 + 7.0 * number(0), [number(1), number(2), number(3)]);
        let place = |i| size + (SIDE as f32 - 2.0 * size) * number(i);
        let (left, top) = (place(4), place(5));
        let mut pixels = Vec::with_capacity(3 * SIDE * SIDE);
        for (c, shade) in colour.into_iter().enumerate() {
            for at in 0..SIDE * SIDE {
                let (x, y) = ((at % SIDE) as f32 - left, (at / SIDE) as f32 - top);
                let noise = 0.3 * number((8 + c * SIDE * SIDE + at) as u32);
                pixels.push(if covers(shape, x / size, y / size) { 0.4 + 0.6 * shade } else { noise });
            }
        }
        let label = TensorData::try_new(&[shape as i64], &[])?;
        Ok(Sample { input: TensorData::try_new(&pixels, &[3, SIDE, SIDE])?, target: label })
    }
}

type Images = Arc<dyn Source<Item = Sample>>;

/// All images, the class of each, and the classes' names.
fn images(args: &Args) -> Result<(Images, Vec<i64>, Vec<String>)> {
    if let Some(folder) = &args.folder {
        let images = ImageFolder::open(folder, 32, 32)?;
        let (labels, names) = (images.labels(), images.classes().to_vec());
        return Ok((Arc::new(images), labels, names));
    }
    let labels = (0..args.images).map(|i| (i % SHAPES.len()) as i64).collect();
    let shapes = Shapes { key: Key::new(args.seed).fold("shapes"), count: args.images };
    Ok((Arc::new(shapes), labels, SHAPES.map(str::to_owned).to_vec()))
}

fn step(model: &Sequential, batch: &Batch, cx: &Cx) -> Result<Step> {
    let logits = model.call(&batch.input, cx);
    Ok(Step::new(logits.try_cross_entropy(&batch.target)?).outputs(&logits, &batch.target))
}

fn run(args: &Args) -> Result<()> {
    let device = Device::parse(&args.device)?;
    let (images, labels, names) = images(args)?;
    let mut parts = stratified_split(&labels, &[0.8, 0.1, 0.1], args.seed)?.into_iter();
    let mut part = || Subset::new(images.clone(), parts.next().unwrap_or_default());
    let train = Loader::new(part()?, device).batch_size(args.batch_size).shuffle(args.seed);
    let valid = Loader::new(part()?, device).batch_size(args.batch_size);
    let test = Loader::new(part()?, device).batch_size(args.batch_size);
    let model = resnet20(names.len(), args.width, &mut Init::new(device, args.seed));
    println!("{} images of {} kinds; {} parameters on {device}", labels.len(), names.len(), model.parameter_count());

    let steps = (args.epochs * train.batches()) as u64;
    let mut trainer = Trainer::new(model, Sgd::new(args.lr).momentum(0.9).weight_decay(5e-4))
        .schedule(Cosine::warmup(steps / 20, steps.max(1)))
        .epochs(args.epochs)
        .seed(args.seed)
        .metric(Accuracy::new());
    if let Some(out) = &args.out {
        trainer = trainer.checkpoint(Checkpoints::at(out.join("checkpoints")).every_epochs(1));
        if let Some(found) = if args.resume { trainer.resume(out.join("checkpoints"))? } else { None } {
            println!("resuming after {} epochs", found.epochs);
        }
    }
    let summary = trainer.fit(&train, &valid, step)?;
    println!("{}", summary.history.chart(&["train/loss", "val/loss"], 60, 12));
    println!("{} steps in {:.1} s", summary.steps, summary.seconds);
    let model = trainer.into_model();
    if let Some(out) = &args.out {
        gradus::io::save(out.join("model.safetensors"), &model.state_dict(), &Default::default())?;
    }
    let mut accuracy = Accuracy::new();
    evaluate(&model, &test, &mut [&mut accuracy], step)?;
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
