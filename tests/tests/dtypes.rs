//! Every entry of the catalog in every dtype that it takes, against `f64`.

use gradus_core::catalog::{Case, Entry, Fill, Input};
use gradus_core::rng::Key;
use gradus_core::{DType, Device, ErrorKind, Result, Tensor};
use gradus_tests::derivative::Problem;
use gradus_tests::report::{each_case, say};
use gradus_tests::{compare, sample};

fn cpu() -> Device {
    gradus_cpu::device()
}

fn text<T>(result: Result<T>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}

/// The inputs in `dtype`, and the same numbers (already rounded to it) in `f64`.
fn twins(case: &Case, dtype: DType, key: &Key) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    let narrow = sample::inputs(case, dtype, key, cpu())?;
    let wide = narrow
        .iter()
        .map(|x| if x.dtype().is_float() { x.try_to_dtype(DType::F64) } else { Ok(x.clone()) })
        .collect::<Result<_>>()?;
    Ok((narrow, wide))
}

/// How many roundings a result may be away from the exact one, of 1 + its largest element: each op of a definition rounds.
fn allowed(dtype: DType) -> f64 {
    compare::epsilon(dtype) * if dtype.is_half() { 8.0 } else { 32.0 }
}

#[test]
fn narrow_floats_agree_with_f64() {
    each_case(
        "f32, f16 and bf16 against f64",
        |_, c| !c.large,
        |entry, case, key| {
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                let (narrow, wide) = text(twins(case, dtype, key))?;
                let (have, want) = (text((case.run)(&narrow))?, text((case.run)(&wide))?);
                for (i, (a, b)) in have.iter().zip(&want).enumerate() {
                    let same = a.dtype() == b.dtype()
                        || a.dtype() == dtype && b.dtype() == DType::F64
                        || entry.name == "to_dtype";
                    if !same {
                        return Err(format!("{dtype}: output {i} is {}, in f64 it is {}", a.dtype(), b.dtype()));
                    }
                    let (a, b) = (compare::read("output", a)?, compare::read("output", b)?);
                    compare::numbers(&format!("{dtype}: output {i}"), &a, &b, allowed(dtype))?;
                }
                if !entry.differentiable {
                    continue;
                }
                // The same cotangents, drawn in the narrow dtype.
                let p = text(Problem::new(&case.run, narrow, key))?;
                let mut q = p.at(wide);
                q.cotangents = text(
                    p.cotangents
                        .iter()
                        .map(|c| if c.dtype() == dtype { c.try_to_dtype(DType::F64) } else { Ok(c.clone()) })
                        .collect(),
                )?;
                let (have, want) = (p.first()?, q.first()?);
                for (i, (a, b)) in have.gradients.iter().zip(&want.gradients).enumerate() {
                    if let (Some(a), Some(b)) = (a, b) {
                        let (a, b) = (compare::read("gradient", a)?, compare::read("gradient", b)?);
                        compare::numbers(&format!("{dtype}: gradient {i}"), &a, &b, allowed(dtype) * 2.0)?;
                    }
                }
            }
            Ok(true)
        },
    );
}

/// The case with small whole numbers in place of floats.
fn whole(case: &Case) -> Option<Case> {
    let fill = |f: Fill| match f {
        Fill::Int(..) | Fill::Bool => f,
        _ => Fill::Int(1, 5),
    };
    let changed = case.inputs.iter().any(|x| fill(x.fill) != x.fill);
    let inputs = case.inputs.iter().map(|x| Input { shape: x.shape.clone(), fill: fill(x.fill) }).collect();
    changed.then(|| Case { inputs, ..case.clone() })
}

/// Functions whose numbers are not those of the `f64` call by nature: a fractional number put into an integer tensor is cut
/// off, and a difference of unsigned integers on the way wraps around.
const OTHER_ON_INTEGERS: [&str; 5] = ["masked_fill", "threshold", "pad", "lerp", "softshrink"];

#[test]
fn integers_agree_with_f64_or_are_refused() {
    let (mut ran, mut refused) = (0, 0);
    let wanted = |e: &Entry, c: &Case| !c.large && !OTHER_ON_INTEGERS.contains(&e.name);
    each_case("integers against f64", wanted, |_, case, key| {
        let Some(case) = whole(case) else { return Ok(false) };
        let mut applies = false;
        for dtype in [DType::I64, DType::I32, DType::U32, DType::U8] {
            let x = text(sample::inputs(&case, DType::F64, key, cpu()))?;
            let whole: Vec<Tensor> = text(
                x.iter().map(|x| if x.dtype() == DType::I64 { x.try_to_dtype(dtype) } else { Ok(x.clone()) }).collect(),
            )?;
            let wide: Vec<Tensor> = text(
                x.iter()
                    .map(|x| if x.dtype() == DType::I64 { x.try_to_dtype(DType::F64) } else { Ok(x.clone()) })
                    .collect(),
            )?;
            let have = match (case.run)(&whole) {
                Ok(have) => have,
                Err(e) if matches!(e.kind(), ErrorKind::Misuse | ErrorKind::Unsupported) => {
                    refused += 1;
                    continue;
                }
                Err(e) => return Err(format!("{dtype}: {e}")),
            };
            let Ok(want) = (case.run)(&wide) else { continue }; // indices are no floats
            for (i, (a, b)) in have.iter().zip(&want).enumerate() {
                let (a, b) = (compare::read("output", a)?, compare::read("output", b)?);
                // What unsigned integers cannot hold wraps around, as it does in PyTorch.
                if !dtype.is_float()
                    && b.iter().any(|v| !(0.0..=255.0).contains(v))
                    && matches!(dtype, DType::U8 | DType::U32)
                {
                    continue;
                }
                compare::numbers(&format!("{dtype}: output {i}"), &a, &b, 1e-5)?;
            }
            (ran, applies) = (ran + 1, true);
        }
        Ok(applies)
    });
    say(&format!("catalog: {ran} calls with integers ran, {refused} were refused with an error"));
    assert!(ran > 300, "only {ran} calls with integers ran");
}
