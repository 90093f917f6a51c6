//! No `try_` form panics, whatever shapes and dtypes it is given.

use gradus_core::catalog::{Case, Entry};
use gradus_core::rng::Key;
use gradus_core::{DType, Device, Tensor};
use gradus_tests::panics::caught;
use gradus_tests::report::{each_case, say};
use gradus_tests::sample;

fn cpu() -> Device {
    gradus_cpu::device()
}

const SHAPES: [&[usize]; 9] =
    [&[], &[0], &[1], &[5], &[0, 3], &[7, 5], &[2, 3, 4], &[1, 1, 1, 1, 1, 1, 1], &[1, 2, 1, 1, 1, 1, 1, 2]];

/// The inputs with one of them replaced by every stranger.
fn strangers(entry: &Entry, case: &Case, key: &Key) -> Vec<(String, Vec<Tensor>)> {
    let good = sample::inputs(case, DType::F32, key, cpu()).expect("the sample itself can be made");
    let mut all = Vec::new();
    for i in 0..good.len() {
        let mut put = |t: Tensor| {
            let mut x = good.clone();
            let what = format!("input {i} as {} {}", t.dtype(), t.shape());
            x[i] = t;
            all.push((what, x));
        };
        for shape in SHAPES {
            put(Tensor::zeros(shape, good[i].place()));
        }
        // The places that a fused gradient's forward kept are trusted; no method takes them from outside.
        let kept = entry.name.ends_with("_grad") && good[i].dtype().is_int();
        for dtype in DType::ALL.into_iter().filter(|_| !kept) {
            put(Tensor::ones(*good[i].shape(), cpu().with(dtype)));
        }
        if good[i].dtype().is_int() && !kept {
            put(good[i].full_like(-1i64));
            put(good[i].full_like(1i64 << 40));
        }
    }
    for shape in SHAPES {
        for dtype in [DType::F32, DType::I64, DType::Bool] {
            let x = good.iter().map(|_| Tensor::ones(shape, cpu().with(dtype))).collect();
            all.push((format!("all inputs as {dtype} {shape:?}"), x));
        }
    }
    all
}

#[test]
fn no_call_with_strangers_panics() {
    let (mut calls, mut refused) = (0usize, 0usize);
    each_case(
        "misuse without panics",
        |_, c| !c.large,
        |entry, case, key| {
            for (what, x) in strangers(entry, case, key) {
                let mut outcome = None;
                if let Some(panic) = caught(|| outcome = Some((case.run)(&x))) {
                    return Err(format!("{what}: panicked at {}:{}: {}", panic.file, panic.line, panic.message));
                }
                calls += 1;
                if let Some(Err(e)) = outcome {
                    refused += 1;
                    if e.to_string().len() < 12 {
                        return Err(format!("{what}: the error says only {e:?}"));
                    }
                }
            }
            Ok(true)
        },
    );
    say(&format!("catalog: {calls} calls with wrong inputs, {refused} refused, none panicked"));
    assert!(refused > calls / 10, "hardly anything is refused: {refused} of {calls}");
}
