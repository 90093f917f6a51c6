//! PyTorch's numbers: `GRADUS_GOLDENS=DIR cargo test --test goldens` runs every call that a directory of goldens has.
//!
//! Prints `name passed/total` for each op, then the names that are not mapped, and fails on any mismatch. Without the
//! variable the test says that it was skipped.

mod ops;

use gradus_tests::golden;
use gradus_tests::report::say;
use std::path::Path;

#[test]
fn ops_give_pytorchs_numbers() {
    let Ok(directory) = std::env::var("GRADUS_GOLDENS") else {
        say("goldens: skipped: GRADUS_GOLDENS does not name a directory of goldens");
        return;
    };
    let only = std::env::var("GRADUS_GOLDENS_ONLY").ok();
    let files = golden::files(Path::new(&directory)).unwrap_or_else(|e| panic!("GRADUS_GOLDENS={directory}: {e}"));
    let (mut unmapped, mut failures) = (Vec::new(), Vec::new());
    let (mut passed, mut total, mut skipped, mut mapped, mut rejected) = (0, 0, 0, 0, [0; 3]);
    for file in files {
        let (name, score) = golden::run_file(&file, gradus_cpu::device(), ops::run).unwrap_or_else(|e| panic!("{e}"));
        if only.as_ref().is_some_and(|o| !name.contains(o.as_str())) {
            continue;
        }
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
            "{name} {}/{}, rejected calls: {refused} refused, {untypable} untypable, {accepted} accepted",
            score.passed, score.total
        ));
        score.skipped.iter().for_each(|s| say(&format!("  {s}")));
        score.accepted.iter().for_each(|a| say(&format!("  accepted, though PyTorch rejects it: {a}")));
        failures.extend(score.failures.into_iter().map(|f| format!("{name}: {f}")));
    }
    say(&format!(
        "goldens: {mapped} ops mapped, {passed} of {total} calls right, {skipped} not compared; rejected calls: {rejected:?} (refused, untypable, accepted)"
    ));
    say(&format!("goldens: {} names are not mapped: {}", unmapped.len(), unmapped.join(" ")));
    if !failures.is_empty() {
        panic!("{} calls differ:\n  {}", failures.len(), failures.join("\n  "));
    }
}
