//! PyTorch's optimizers and schedules, and scikit-learn's metrics: every trajectory and value of a directory of goldens.
//!
//! `GRADUS_GOLDENS=DIR cargo test --test goldens_optim` reads DIR; without it, the small set in `tests/goldens`. Prints
//! `name passed/total` for each, and fails on any mismatch and on any name or setting that it cannot map.

mod metrics;
mod rules;
mod schedules;

use gradus_tests::report::say;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The directory of goldens.
fn directory() -> PathBuf {
    match std::env::var_os("GRADUS_GOLDENS") {
        Some(directory) => directory.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens"),
    }
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files `FAMILY/NAME.json`, in order; none where a directory of one's own has no such family.
fn files(family: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory().join(family)) else {
        say(&format!("goldens: {} has no {family}", directory().display()));
        assert!(std::env::var_os("GRADUS_GOLDENS").is_some(), "the repository's own goldens are gone");
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "json") && !broken_off(family, p));
    files.sort();
    files
}

/// Whether the generator stopped in the middle of this file, and so never wrote the family's manifest: it cannot write the
/// infinite losses that PyTorch's L-BFGS has for some seeds. Said aloud; with a manifest, a broken file is a failure.
fn broken_off(family: &str, path: &Path) -> bool {
    let whole =
        directory().join(format!("manifest.{family}.json")).exists() || std::env::var_os("GRADUS_GOLDENS").is_none();
    let broken = !whole && std::fs::read_to_string(path).is_ok_and(|t| serde_json::from_str::<Value>(&t).is_err());
    if broken {
        say(&format!("goldens: {} was broken off by its generator", path.display()));
    }
    broken
}

/// A number of a golden file, in which infinities and NaN are words.
fn number(v: &Value) -> Option<f64> {
    match v.get("f").and_then(Value::as_str) {
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        Some(_) => Some(f64::NAN),
        None => v.as_f64(),
    }
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().into_iter().flatten().filter_map(number).collect()
}

/// The largest difference between numbers, in parts of max(1, the largest wanted one); equal infinities and NaN count 0.
fn distance(have: &[f64], want: &[f64]) -> f64 {
    if have.len() != want.len() {
        return f64::INFINITY;
    }
    let scale = want.iter().filter(|w| w.is_finite()).fold(1.0f64, |s, w| s.max(w.abs()));
    let apart = |(h, w): (&f64, &f64)| {
        if h == w || h.is_nan() && w.is_nan() {
            0.0
        } else if (h - w).is_finite() {
            (h - w).abs() / scale
        } else {
            f64::INFINITY
        }
    };
    have.iter().zip(want).map(apart).fold(0.0, f64::max)
}

/// What is right, of how much, and what is not.
#[derive(Default)]
struct Tally {
    passed: usize,
    total: usize,
    furthest: f64,
    failures: Vec<String>,
}

impl Tally {
    /// Counts a comparison.
    fn add(&mut self, what: impl Fn() -> String, apart: Result<f64, String>, allowed: f64) {
        self.total += 1;
        match apart {
            Ok(apart) if apart <= allowed => {
                self.passed += 1;
                self.furthest = self.furthest.max(apart);
            }
            Ok(apart) => self.failures.push(format!("{}: off by {apart:e}, allowed {allowed:e}", what())),
            Err(why) => self.failures.push(format!("{}: {why}", what())),
        }
    }
    fn say(&self, name: &str) {
        say(&format!("{name} {}/{} (furthest {:.1e})", self.passed, self.total, self.furthest));
    }
}

fn finish(family: &str, tallies: Vec<Tally>) {
    let (passed, total) = tallies.iter().fold((0, 0), |(p, t), x| (p + x.passed, t + x.total));
    say(&format!("goldens: {family} {passed}/{total}"));
    let failures: Vec<String> = tallies.into_iter().flat_map(|t| t.failures).collect();
    assert!(failures.is_empty(), "{} of {family} differ:\n  {}", failures.len(), failures.join("\n  "));
}
