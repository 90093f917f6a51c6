//! Writes the column of a device's kind in `crates/gpu/strategies.txt`, after trying each number's candidates on the device:
//!
//! ```sh
//! cargo run --release -p gradus-gpu --features wgpu --example tune -- wgpu:0
//! ```
//!
//! With `--dry` it prints the table and writes nothing. The numbers are tried one after the other, each with those before it
//! already chosen. A candidate must be a twentieth faster than what stands, so that noise changes nothing.

use gradus_core::functional::convolution::ConvOptions;
use gradus_core::{DType, Device, Error, Result, Tensor};
use gradus_gpu::strategies::{Strategies, TABLE, column_of, rewritten, set_strategies, strategies};
use std::time::Instant;

type Work = Box<dyn Fn() -> Result<Tensor>>;

/// A number of the table: its candidates, and work whose time it decides.
struct Knob {
    name: &'static str,
    candidates: &'static [usize],
    work: Vec<Work>,
}

fn randn(shape: &[usize], device: Device, dtype: DType) -> Result<Tensor> {
    Tensor::try_randn(shape, device, 0)?.try_to_dtype(dtype)
}

/// Products of these sizes.
fn products(device: Device, dtype: DType, sizes: &[[usize; 3]]) -> Result<Vec<Work>> {
    let product = |&[m, k, n]: &[usize; 3]| -> Result<Work> {
        let (a, b) = (randn(&[m, k], device, dtype)?, randn(&[k, n], device, dtype)?);
        Ok(Box::new(move || a.try_matmul(&b)))
    };
    sizes.iter().map(product).collect()
}

/// `f` of tensors of these shapes.
fn over(device: Device, shapes: &[[usize; 2]], f: fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Work>> {
    let one = |shape: &[usize; 2]| -> Result<Work> {
        let x = randn(shape, device, DType::F32)?;
        Ok(Box::new(move || f(&x)))
    };
    shapes.iter().map(one).collect()
}

/// The gradient of a convolution's weight.
fn weight_gradients(device: Device) -> Result<Vec<Work>> {
    let work = |[images, channels, side]: [usize; 3]| -> Result<Work> {
        let x = randn(&[images, channels, side, side], device, DType::F32)?;
        let w = randn(&[channels, channels, 3, 3], device, DType::F32)?.requires_grad();
        Ok(Box::new(move || {
            let y = x.try_conv2d(&w, None, &ConvOptions::default().padding(1))?;
            y.try_sum()?.try_backward()?;
            let grad = w.grad().ok_or_else(|| Error::misuse("the weight has a gradient"));
            w.zero_grad();
            grad
        }))
    };
    [[32, 16, 16], [64, 32, 8]].into_iter().map(work).collect()
}

fn knobs(device: Device) -> Result<Vec<Knob>> {
    let narrow = |m: usize| [m, 256, 256];
    let squares = [[128; 3], [256; 3], [512; 3]];
    let sum_of_rows = |x: &Tensor| x.try_sum_dims(&[1], false);
    let mut knobs = vec![
        Knob { name: "cube_side", candidates: &[4, 8, 16], work: products(device, DType::F32, &squares)? },
        Knob {
            name: "product_tile_16",
            candidates: &[8, 16, 32, 64],
            work: products(device, DType::F32, &[narrow(16), narrow(32), narrow(64)])?,
        },
        Knob {
            name: "product_tile_32",
            candidates: &[32, 64, 128, 256],
            work: products(device, DType::F32, &[narrow(64), narrow(128), narrow(256)])?,
        },
        Knob {
            name: "product_tile_64",
            candidates: &[64, 127, 255, 9_999_999],
            work: products(device, DType::F32, &[[256, 64, 64], [64, 256, 256], [128, 128, 128], [256, 256, 256]])?,
        },
        Knob { name: "burn_f32", candidates: &[21, 24, 27, 30, 64], work: products(device, DType::F32, &squares)? },
        Knob {
            name: "reduce_short",
            candidates: &[64, 256, 1024, 4096],
            work: over(device, &[[2048, 128], [1024, 512], [256, 2048]], sum_of_rows)?,
        },
        Knob {
            name: "reduce_many",
            candidates: &[1024, 4096, 16_384, 65_536],
            work: over(device, &[[2048, 512], [8192, 512]], sum_of_rows)?,
        },
        Knob {
            name: "reduce_chunk",
            candidates: &[1024, 4096, 16_384],
            work: over(device, &[[1024, 1024], [16, 65_536]], Tensor::try_sum)?,
        },
        Knob {
            name: "row_narrow",
            candidates: &[8, 16, 32, 64, 128],
            work: over(device, &[[8192, 16], [8192, 48], [4096, 96]], |x| x.try_softmax(-1))?,
        },
        Knob { name: "conv_chunk", candidates: &[256, 512, 1024, 4096], work: weight_gradients(device)? },
    ];
    if device.backend().supports(DType::F16) {
        let work = products(device, DType::F16, &squares)?;
        knobs.push(Knob { name: "burn_half", candidates: &[21, 24, 27, 30, 64], work });
    }
    Ok(knobs)
}

/// The least of five times of all of `work`, in milliseconds, each with a wait for the device at its end.
fn time(device: Device, work: &[Work]) -> Result<f64> {
    let once = || -> Result<f64> {
        let start = Instant::now();
        for f in work {
            f()?;
        }
        device.synchronize()?;
        Ok(1e3 * start.elapsed().as_secs_f64())
    };
    once()?; // compiles
    (0..5).try_fold(f64::INFINITY, |least, _| Ok(least.min(once()?)))
}

fn tune(device: Device) -> Result<(&'static str, Strategies)> {
    let (kind, mut best) = strategies(device)?;
    for knob in knobs(device)? {
        let standing = best.get_mut(knob.name).map_or(0, |n| *n);
        let mut least = time(device, &knob.work)?;
        println!("{}: {standing} takes {least:.2} ms", knob.name);
        for &candidate in knob.candidates.iter().filter(|&&c| c != standing) {
            let mut tried = best;
            if let Some(number) = tried.get_mut(knob.name) {
                *number = candidate;
            }
            set_strategies(device, tried)?;
            let taken = time(device, &knob.work)?;
            println!("{}: {candidate} takes {taken:.2} ms", knob.name);
            if taken < 0.95 * least {
                (least, best) = (taken, tried);
            }
        }
        set_strategies(device, best)?;
    }
    Ok((column_of(kind), best))
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let dry = args.iter().any(|a| a == "--dry");
    let name = args.iter().find(|a| !a.starts_with('-')).map_or("wgpu:0", String::as_str);
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let index = index.parse().map_err(|_| Error::misuse(format!("{name:?} is no device: wgpu:0 or cuda:0 is")))?;
    let device = if kind == "cuda" { gradus_gpu::cuda(index)? } else { gradus_gpu::wgpu(index)? };
    let (column, numbers) = tune(device)?;
    let table = rewritten(TABLE, column, numbers)?;
    print!("\n{table}");
    if !dry {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/strategies.txt");
        std::fs::write(path, table).map_err(|e| Error::io(format!("cannot write {path}"), e))?;
        println!("\nwritten to {path}");
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::from(2)
        }
    }
}
