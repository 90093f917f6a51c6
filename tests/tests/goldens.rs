//! PyTorch's numbers: every call that a directory of goldens has, and its special values.
//!
//! `GRADUS_GOLDENS=DIR cargo test --test goldens` names the directory; without it, the small set beside these tests is run.
//! `GRADUS_GOLDENS_ONLY=NAME` picks the ops with that in their name. Prints `name passed/total` for each op and what became of the
//! calls that PyTorch rejects (with `GRADUS_GOLDENS_REFUSALS=1`, each refusal's message), then the names that are not mapped. Fails
//! on any mismatch, and where a call that PyTorch rejects is accepted without a reason in the list.

mod ops;

use gradus_tests::report::say;
use gradus_tests::{golden, golden_stress};

#[test]
fn ops_give_pytorchs_numbers() {
    let directory = golden::directory();
    let only = std::env::var("GRADUS_GOLDENS_ONLY").ok();
    let messages = std::env::var_os("GRADUS_GOLDENS_REFUSALS").is_some();
    let files = golden::files(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let (mut unmapped, mut failures) = (Vec::new(), Vec::new());
    let (mut passed, mut total, mut skipped, mut mapped, mut rejected) = (0, 0, 0, 0, [0; 3]);
    for file in files {
        if only.as_ref().is_some_and(|o| !file.to_string_lossy().contains(o.as_str())) {
            continue;
        }
        let (name, score) =
            golden::run_file(&file, gradus_cpu::device(), ops::run, ops::by_design).unwrap_or_else(|e| panic!("{e}"));
        total += score.total;
        if !score.mapped {
            unmapped.push(name);
            continue;
        }
        mapped += 1;
        passed += score.passed;
        skipped += score.skipped.len();
        (0..3).for_each(|i| rejected[i] += score.rejected[i]);
        let [refused, untypable, accepted] = score.rejected;
        say(&format!(
            "{name} {}/{}, rejected calls: {refused} refused, {untypable} untypable, {accepted} accepted by design",
            score.passed, score.total
        ));
        score.skipped.iter().for_each(|s| say(&format!("  {s}")));
        score.accepted.iter().for_each(|a| say(&format!("  accepted by design: {a}")));
        if messages {
            score.refusals.iter().for_each(|r| say(&format!("  refused: {r}")));
        }
        failures.extend(score.failures.into_iter().map(|f| format!("{name}: {f}")));
    }
    say(&format!(
        "goldens: {mapped} ops mapped, {passed} of {total} calls right, {skipped} not compared; rejected calls: {} refused, {} untypable, {} accepted by design",
        rejected[0], rejected[1], rejected[2]
    ));
    for name in &unmapped {
        let reason = ops::NOT_MAPPED.iter().find(|(n, _)| n == name).map_or("there is no such op", |(_, why)| why);
        say(&format!("goldens: {name} is not mapped: {reason}"));
    }
    assert!(mapped > 0, "{} has no ops", directory.display());
    assert!(failures.is_empty(), "{} calls differ:\n  {}", failures.len(), failures.join("\n  "));
}

/// PyTorch's full name of an op that the special values call by a short one.
fn full_name(op: &str) -> &str {
    match op {
        "relu" => "nn.functional.relu",
        "gelu" => "nn.functional.gelu",
        "silu" => "nn.functional.silu",
        "softplus" => "nn.functional.softplus",
        "logsigmoid" => "nn.functional.logsigmoid",
        "mish" => "nn.functional.mish",
        "elu" => "nn.functional.elu",
        "hardswish" => "nn.functional.hardswish",
        "div" => "div.no_rounding_mode",
        op => op,
    }
}

/// Where a special value differs by design: PyTorch's vectorized remainder gives NaN where the quotient overflows, Gradus the
/// exact remainder; sums of numbers that cancel depend on their order;
/// PyTorch's GELU in `f32` has zeros of either sign, and overflows or gives NaN at the end of the range, by machine; and the slope of eˣ − 1 is eˣ itself, not 1 added to a rounded result.
fn known_difference(d: &golden_stress::Difference<'_>) -> bool {
    match (d.op, d.inputs) {
        ("fmod" | "remainder", [a, b]) => d.want.is_nan() && d.have.is_finite() && (a / b).abs() > f64::from(f32::MAX),
        ("sum" | "mean", _) => {
            d.what == "row cancel" && d.have == if d.op == "sum" { 1.0 } else { f64::from(1f32 / 3.0) }
        }
        ("gelu", [x]) => d.have == 0.0 && d.want == 0.0 || *x >= f64::from(f32::MAX) && d.have == *x,
        ("expm1", [x]) => d.what == "gradient" && d.want == 0.0 && (d.have / x.exp() - 1.0).abs() < 1e-5,
        _ => false,
    }
}

#[test]
fn special_values_are_pytorchs() {
    let directory = golden::directory();
    let score = golden_stress::run(&directory, gradus_cpu::device(), ops::run, full_name, known_difference)
        .unwrap_or_else(|e| panic!("{e}"));
    for (op, [right, total, differ]) in &score.by_op {
        say(&format!("special values: {op} {right}/{total}, {differ} differ by design"));
    }
    assert!(score.unmapped.is_empty(), "not mapped: {}", score.unmapped.join(" "));
    assert!(score.failures.is_empty(), "special values differ:\n  {}", score.failures.join("\n  "));
}
