//! Every check of every entry of the catalog. A failure names the entry, the case, the input and the values.

use gradus_core::catalog::{Case, Entry};
use gradus_core::rng::Key;
use gradus_core::{DType, Device, Result, Tensor, by_definition};
use gradus_tests::derivative::{First, Problem};
use gradus_tests::disguise::Disguise;
use gradus_tests::report::{each_case, say};
use gradus_tests::{compare, sample};
use std::collections::BTreeSet;

/// How far finite differences may be off, of 1 + the largest derivative: their own error at a step of 1e-5.
const DIFFERENCES: f64 = 2e-7;

fn cpu() -> Device {
    gradus_cpu::device()
}

fn text<T>(result: Result<T>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}

fn problem(case: &Case, dtype: DType, key: &Key) -> Result<Problem, String> {
    text(sample::inputs(case, dtype, key, cpu()).and_then(|x| Problem::new(&case.run, x, key)))
}

fn small(entry: &Entry, case: &Case) -> bool {
    entry.differentiable && !case.large
}

/// The gradients of one walk against another's.
fn same_gradients(what: &str, have: &[Option<Tensor>], want: &[Option<Tensor>], tolerance: f64) -> Result<(), String> {
    for (i, (a, b)) in have.iter().zip(want).enumerate() {
        match (a, b) {
            (Some(a), Some(b)) => compare::tensors(&format!("{what} {i}"), a, b, tolerance)?,
            (None, None) => {}
            _ => return Err(format!("{what} {i} is there in one and not in the other")),
        }
    }
    Ok(())
}

fn same_first(have: &First, want: &First, tolerance: f64) -> Result<(), String> {
    for (i, (a, b)) in have.outputs.iter().zip(&want.outputs).enumerate() {
        compare::tensors(&format!("output {i}"), a, b, tolerance)?;
    }
    same_gradients("gradient", &have.gradients, &want.gradients, tolerance)
}

fn same_bits(have: &First, want: &First) -> Result<(), String> {
    for (i, (a, b)) in have.outputs.iter().zip(&want.outputs).enumerate() {
        compare::bits(&format!("output {i}"), a, b)?;
    }
    for (i, (a, b)) in have.gradients.iter().zip(&want.gradients).enumerate() {
        if let (Some(a), Some(b)) = (a, b) {
            compare::bits(&format!("gradient {i}"), a, b)?;
        }
    }
    Ok(())
}

/// Outputs, and gradients where the entry has them.
fn forward_and_back(entry: &Entry, p: &Problem) -> Result<First, String> {
    if entry.differentiable {
        return p.first();
    }
    Ok(First { outputs: text((p.run)(&p.inputs))?, gradients: Vec::new() })
}

#[test]
fn names_are_told_once_and_every_entry_has_a_case() {
    let entries = gradus_core::catalog::all();
    let names: BTreeSet<_> = entries.iter().map(|e| e.name).collect();
    assert_eq!(names.len(), entries.len(), "two entries have one name");
    for e in &entries {
        assert!(!e.cases.is_empty() && !e.doc.is_empty() && !e.torch.is_empty(), "{} is not complete", e.name);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    each_case("first order against finite differences", small, |_, case, key| {
        let p = problem(case, DType::F64, key)?;
        let first = p.first()?;
        for (i, g) in first.gradients.iter().enumerate() {
            if let Some(g) = g {
                let g = compare::read("gradient", g)?;
                compare::numbers(&format!("gradient of input {i}"), &g, &p.differences(i)?, DIFFERENCES)?;
            }
        }
        Ok(true)
    });
}

#[test]
fn second_derivatives_equal_finite_differences_of_gradients() {
    let (mut checked, mut curved) = (BTreeSet::new(), BTreeSet::new());
    each_case("second order against finite differences", small, |entry, case, key| {
        let p = problem(case, DType::F64, key)?;
        let second = p.second()?;
        for (i, h) in second.by_input.iter().enumerate() {
            let Some(h) = h else { continue };
            let (h, differences) = (compare::read("second derivative", h)?, p.second_differences(i)?);
            compare::numbers(&format!("second derivative by input {i}"), &h, &differences, DIFFERENCES)?;
            if compare::scale(&differences) > 1e-3 {
                curved.insert(entry.name);
            }
        }
        for (k, d) in second.by_cotangent.iter().enumerate() {
            if let Some(d) = d {
                let d = compare::read("derivative by a cotangent", d)?;
                compare::numbers(
                    &format!("derivative by cotangent {k}"),
                    &d,
                    &p.cotangent_differences(k)?,
                    DIFFERENCES,
                )?;
            }
        }
        checked.insert(entry.name);
        Ok(true)
    });
    say(&format!(
        "catalog: {} distinct ops checked to second order, {} of them with a second derivative that is not zero",
        checked.len(),
        curved.len()
    ));
    assert!(checked.len() >= 150, "only {} ops are checked to second order", checked.len());
    assert!(curved.len() >= 80, "only {} ops have a second derivative that is not zero: {curved:?}", curved.len());
}

#[test]
fn a_gradient_with_a_graph_equals_the_one_without() {
    each_case(
        "gradients with a graph and without",
        |e, _| e.differentiable,
        |_, case, key| {
            let p = problem(case, if case.large { DType::F32 } else { DType::F64 }, key)?;
            let tolerance = if case.large { 2e-5 } else { 1e-12 };
            let first = p.first()?;
            same_gradients("gradient", &p.second()?.gradients, &first.gradients, tolerance)?;
            // `backward` gathers in the leaves what `grad` hands out.
            let leaves: Vec<Tensor> =
                p.inputs.iter().map(|x| if x.dtype().is_float() { x.requires_grad() } else { x.clone() }).collect();
            let outputs = text((p.run)(&leaves))?;
            let floats = outputs.iter().zip(&p.cotangents).filter(|(y, _)| y.is_tracked());
            for (y, c) in floats {
                let total = text(y.try_mul(c).and_then(|t| t.try_sum()))?;
                text(total.try_backward_with(None, gradus_core::Backward::retain()))?;
            }
            let gathered: Vec<_> = leaves
                .iter()
                .map(|x| if x.is_leaf() { Some(x.grad().unwrap_or_else(|| x.zeros_like())) } else { None })
                .collect();
            same_gradients("gathered gradient", &gathered, &first.gradients, tolerance)?;
            Ok(true)
        },
    );
}

#[test]
fn an_op_without_a_gradient_says_so() {
    each_case(
        "no silent cuts",
        |e, c| !e.differentiable && !c.large,
        |_, case, key| {
            let x: Vec<Tensor> = text(sample::inputs(case, DType::F64, key, cpu()))?;
            let leaves: Vec<Tensor> =
                x.iter().map(|x| if x.dtype().is_float() { x.requires_grad() } else { x.clone() }).collect();
            for (i, y) in text((case.run)(&leaves))?.iter().enumerate() {
                if y.dtype().is_float() && y.is_tracked() && text(y.try_sum())?.try_backward().is_ok() {
                    return Err(format!("output {i} let a gradient through"));
                }
            }
            Ok(true)
        },
    );
}

#[test]
fn fused_kernels_equal_their_definitions() {
    each_case(
        "fused against defined",
        |e, _| e.differentiable,
        |_, case, key| {
            let dtypes: &[(DType, f64)] =
                if case.large { &[(DType::F32, 5e-5)] } else { &[(DType::F64, 1e-11), (DType::F32, 2e-5)] };
            for &(dtype, tolerance) in dtypes {
                let p = problem(case, dtype, key)?;
                let (fused, defined) = (p.first()?, by_definition(|| p.first())?);
                same_first(&fused, &defined, tolerance).map_err(|e| format!("{dtype}: {e}"))?;
                if case.large {
                    continue;
                }
                let (fused, defined) = (p.second()?, by_definition(|| p.second())?);
                let tolerance = tolerance * 10.0;
                same_gradients("second derivative by input", &fused.by_input, &defined.by_input, tolerance)
                    .map_err(|e| format!("{dtype}: {e}"))?;
                same_gradients("derivative by cotangent", &fused.by_cotangent, &defined.by_cotangent, tolerance)
                    .map_err(|e| format!("{dtype}: {e}"))?;
            }
            Ok(true)
        },
    );
}

/// The case with lengths grown until its largest input has some 70 000 elements, so that kernels share the work.
fn grown(case: &Case) -> Case {
    let long = |s: &[usize]| s.iter().filter(|&&d| d > 1).count();
    let rank = case.inputs.iter().map(|x| long(&x.shape)).max().unwrap_or(0).max(1);
    let factor = (70_000f64 / 8.0).powf(1.0 / rank as f64) as usize;
    sample::reshaped(case, |_, s| s.iter().map(|&d| if d > 1 { d * factor + d - 1 } else { d }).collect())
}

#[test]
fn results_have_the_same_bits_for_1_2_and_8_threads() {
    // Growing keeps broadcast shapes together only where each length is 1 or comes from one factor.
    let wanted =
        |e: &Entry, c: &Case| c.large || e.elementwise && c.inputs.iter().all(|x| x.shape == c.inputs[0].shape);
    each_case("1, 2 and 8 threads", wanted, |entry, case, key| {
        let case = if case.large { case.clone() } else { grown(case) };
        let p = problem(&case, DType::F32, key)?;
        let one = gradus_cpu::with_threads(1, || forward_and_back(entry, &p))?;
        for n in [2, 8] {
            let many = gradus_cpu::with_threads(n, || forward_and_back(entry, &p))?;
            same_bits(&many, &one).map_err(|e| format!("{n} threads: {e}"))?;
        }
        Ok(true)
    });
}

#[test]
fn layouts_do_not_matter() {
    each_case(
        "non-contiguous inputs",
        |_, c| !c.large,
        |entry, case, key| {
            let p = problem(case, DType::F64, key)?;
            let plain = forward_and_back(entry, &p)?;
            for disguise in Disguise::ALL {
                // Every input at once, and each alone.
                for only in (0..p.inputs.len()).map(Some).chain([None]) {
                    let mut x = p.inputs.clone();
                    for (i, x) in x.iter_mut().enumerate().filter(|(i, _)| only.is_none_or(|o| o == *i)) {
                        let other = text(disguise.of(x))?;
                        compare::bits(&format!("input {i} in disguise {disguise:?}"), &other, x)?;
                        *x = other;
                    }
                    let other =
                        forward_and_back(entry, &p.at(x)).map_err(|e| format!("{disguise:?} of {only:?}: {e}"))?;
                    same_first(&other, &plain, 1e-12).map_err(|e| format!("{disguise:?} of {only:?}: {e}"))?;
                }
            }
            Ok(true)
        },
    );
}

#[test]
fn elementwise_inputs_broadcast() {
    let wanted = |e: &Entry, c: &Case| e.elementwise && c.inputs.len() > 1;
    each_case("broadcast", wanted, |entry, case, key| {
        const SHAPES: [&[usize]; 3] = [&[2, 1, 3], &[4, 1], &[3]];
        for turn in 0..SHAPES.len() {
            let case = sample::reshaped(case, |i, _| SHAPES[(i + turn) % SHAPES.len()].to_vec());
            let p = problem(&case, DType::F64, key)?;
            let lazy = forward_and_back(entry, &p)?;
            let whole = *lazy.outputs[0].shape();
            let stretched: Vec<Tensor> =
                text(p.inputs.iter().map(|x| x.try_expand(whole)?.try_contiguous()).collect())?;
            let eager = forward_and_back(entry, &p.at(stretched))?;
            let mut summed = Vec::new();
            for (g, x) in eager.gradients.iter().zip(&p.inputs) {
                summed.push(text(g.as_ref().map(|g| g.try_sum_to(*x.shape())).transpose())?);
            }
            same_first(&lazy, &First { outputs: eager.outputs, gradients: summed }, 1e-12)?;
        }
        Ok(true)
    });
}

#[test]
fn elementwise_functions_take_scalars_and_nothing() {
    each_case(
        "0-d and empty",
        |e, _| e.elementwise,
        |entry, case, key| {
            for shapes in [[&[][..], &[]], [&[0], &[0]], [&[2, 0, 3], &[0, 1]], [&[2, 0], &[]], [&[1], &[]]] {
                let case = sample::reshaped(case, |i, _| shapes[i % 2].to_vec());
                let p = problem(&case, DType::F32, key).map_err(|e| format!("{shapes:?}: {e}"))?;
                let first = forward_and_back(entry, &p).map_err(|e| format!("{shapes:?}: {e}"))?;
                let want = case.inputs.iter().try_fold(gradus_core::Shape::SCALAR, |s, x| {
                    s.broadcast(&gradus_core::Shape::try_new(&x.shape).ok()?)
                });
                let have = *first.outputs[0].shape();
                if want != Some(have) {
                    return Err(format!("{shapes:?}: the output has shape {have}"));
                }
                if entry.differentiable {
                    p.second().map_err(|e| format!("{shapes:?}, second order: {e}"))?;
                }
            }
            Ok(true)
        },
    );
}
