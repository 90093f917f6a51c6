//! PyTorch's modules: builds every module that a directory of goldens has, loads PyTorch's state into it by name and back, and
//! compares outputs and gradients.
//!
//! `GRADUS_GOLDENS=DIR cargo test --test goldens_modules` names the directory; without it, the small set beside these tests is run.
//! `GRADUS_GOLDENS_ONLY=NAME` picks the modules with that in their name. Prints `name passed/total` for each module, then the names
//! that are not mapped, and fails on any mismatch.

mod modules;

use gradus_tests::report::say;
use gradus_tests::{golden, golden_modules};

#[test]
fn modules_give_pytorchs_numbers() {
    let directory = golden::directory();
    let only = std::env::var("GRADUS_GOLDENS_ONLY").ok();
    let files = golden_modules::files(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    assert!(!files.is_empty(), "{} has no modules", directory.display());
    let (mut unmapped, mut failures) = (Vec::new(), Vec::new());
    let (mut passed, mut total, mut mapped) = (0, 0, 0);
    for file in files {
        if only.as_ref().is_some_and(|o| !file.to_string_lossy().contains(o.as_str())) {
            continue;
        }
        let (name, score) =
            golden_modules::run_file(&file, gradus_cpu::device(), modules::build).unwrap_or_else(|e| panic!("{e}"));
        total += score.total;
        if !score.mapped {
            unmapped.push(name);
            continue;
        }
        mapped += 1;
        passed += score.passed;
        say(&format!("{name} {}/{}", score.passed, score.total));
        failures.extend(score.failures.into_iter().map(|f| format!("{name}: {f}")));
    }
    say(&format!("goldens: {mapped} modules mapped, {passed} of {total} calls right"));
    say(&format!("goldens: {} modules are not mapped: {}", unmapped.len(), unmapped.join(" ")));
    assert!(failures.is_empty(), "{} calls differ:\n  {}", failures.len(), failures.join("\n  "));
    assert!(unmapped.is_empty(), "modules that are not mapped: {}", unmapped.join(" "));
}
