//! What a check over the catalog found: every failure, named by entry and case, before the test fails.

use gradus_core::catalog::{Case, Entry, all};
use gradus_core::rng::Key;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many failures are printed in full.
const SHOWN: usize = 25;

/// The seed of all samples, unless `GRADUS_SEED` names another.
pub fn seed() -> u64 {
    std::env::var("GRADUS_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_260_101)
}

/// Prints a line past the test harness, which keeps back what a passing test prints.
pub fn say(line: &str) {
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs `check` on each case of each entry that `wanted` picks, and fails with every complaint. Gives how many cases passed.
///
/// `check` gives `Ok(false)` for a case that it does not apply to. A panic in it counts as a failure.
pub fn each_case(
    name: &str,
    wanted: impl Fn(&Entry, &Case) -> bool,
    mut check: impl FnMut(&Entry, &Case, &Key) -> Result<bool, String>,
) -> usize {
    let (mut failures, mut passed, mut entries) = (Vec::new(), 0, 0);
    for entry in all() {
        let mut any = false;
        for (i, case) in entry.cases.iter().enumerate().filter(|(_, case)| wanted(&entry, case)) {
            let key = Key::new(seed()).fold(entry.name).fold_in(i as u64);
            let outcome = catch_unwind(AssertUnwindSafe(|| check(&entry, case, &key)));
            let complaint = match outcome {
                Ok(Ok(applies)) => {
                    passed += usize::from(applies);
                    any |= applies;
                    continue;
                }
                Ok(Err(complaint)) => complaint,
                Err(panic) => format!("panicked: {}", crate::panics::message(&*panic)),
            };
            let shapes: Vec<String> = case.inputs.iter().map(|x| format!("{:?} {:?}", x.shape, x.fill)).collect();
            failures.push(format!("{}, case {i} ({}): {complaint}", entry.name, shapes.join("; ")));
        }
        entries += usize::from(any);
    }
    if !failures.is_empty() {
        let shown = failures.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n  ");
        panic!("{name}: {} failures (seed {}):\n  {shown}", failures.len(), seed());
    }
    say(&format!("catalog: {name}: {entries} entries, {passed} cases"));
    passed
}
