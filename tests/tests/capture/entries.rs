//! Captured ≡ eager for every entry, with its gradients; and a replay touches nobody else's memory. For any device: who includes this
//! file says which.

use crate::{EVERY_CASE, device, lacks, turn};
use gradus_core::capture::Captured;
use gradus_core::catalog::{Case, Entry};
use gradus_core::rng::Key;
use gradus_core::{DType, Result, Tensor};
use gradus_tests::derivative::{First, Problem};
use gradus_tests::report::{each_case, say};
use gradus_tests::{compare, sample};
use std::collections::BTreeSet;

fn text<T>(result: Result<T>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}

/// What makes a table of places or weights on the host, and so cannot be part of a recorded step; it says so. (Beginnings
/// of names: each pooling function has several entries.)
const TABLES_FROM_THE_HOST: [&str; 4] = ["max_pool", "avg_pool", "adaptive_", "interpolate"];

fn may_be_refused(entry: &Entry) -> bool {
    entry.host || TABLES_FROM_THE_HOST.iter().any(|t| entry.name.starts_with(t))
}

/// Tensors of many sizes in fresh memory, each full of one number, which nothing may change.
struct Sentinels(Vec<Tensor>);

impl Sentinels {
    const VALUE: f32 = -7.125;

    fn new(like: &[Tensor]) -> Sentinels {
        let sizes =
            like.iter().map(Tensor::elements).chain([1, 2, 3, 4, 6, 8, 12, 15, 16, 20, 24, 30, 32, 64, 100, 256]);
        Sentinels(sizes.flat_map(|n| [n, 2 * n]).map(|n| Tensor::full([n], Sentinels::VALUE, device())).collect())
    }

    fn check(&self) -> Result<(), String> {
        for t in &self.0 {
            if text(t.to_vec::<f32>())?.iter().any(|&x| x != Sentinels::VALUE) {
                return Err(format!("a replay wrote into a foreign tensor of {} elements", t.elements()));
            }
        }
        Ok(())
    }
}

/// Outputs, then gradients.
fn flat(first: First) -> Vec<Tensor> {
    first.outputs.into_iter().chain(first.gradients.into_iter().flatten()).collect()
}

#[test]
fn guarded_replays_equal_eager_runs_and_touch_nothing_else() {
    let Some(_turn) = turn() else { return };
    let mut never = BTreeSet::new();
    each_case("guarded against eager", in_scope, |entry, case, key| {
        let captured = same_as_eager(entry, case, key, Captured::new())?;
        if captured.replays() == 0 {
            // A checkpointed block is there to keep little; one case makes a new cell at each call.
            let why = captured.why_eager().unwrap_or_default();
            if !(entry.host || why.contains("checkpointed block") || why.contains("Slot(")) {
                return Err(format!("never replayed: {:?}", captured.why_eager()));
            }
            never.insert(entry.name);
        }
        Ok(true)
    });
    say(&format!("catalog: depend on data, and so run eagerly: {never:?}"));
}

#[test]
fn unchecked_replays_equal_eager_runs_and_touch_nothing_else() {
    let Some(_turn) = turn() else { return };
    let mut refused = BTreeSet::new();
    each_case("unchecked against eager", in_scope, |entry, case, key| {
        match same_as_eager(entry, case, key, Captured::unchecked()) {
            Ok(captured) if captured.replays() >= 2 => Ok(true),
            Ok(captured) if captured.why_eager().is_some_and(|why| why.contains("checkpointed block")) => Ok(true),
            Ok(captured) => Err(format!("{} replays ({:?})", captured.replays(), captured.why_eager())),
            Err(e) if e.contains("recorded step") && may_be_refused(entry) => {
                refused.insert(entry.name);
                Ok(false)
            }
            Err(e) => Err(e),
        }
    });
    say(&format!("catalog: cannot be recorded unchecked, and say so: {refused:?}"));
}

fn in_scope(entry: &Entry, case: &Case) -> bool {
    let first = entry.cases.first().is_some_and(|first| std::ptr::eq(first, case));
    (EVERY_CASE || first) && !case.large && !case.inputs.is_empty() && !lacks(entry.name)
}

/// Runs a case and its gradients five times, captured and eagerly.
fn same_as_eager(entry: &Entry, case: &Case, key: &Key, mut captured: Captured) -> Result<Captured, String> {
    let points: Vec<Vec<Tensor>> =
        text((0..5u64).map(|i| sample::inputs(case, DType::F32, &key.fold_in(100 + i), device())).collect())?;
    let p = text(Problem::new(&case.run, points[0].clone(), key))?;
    let step = |x: &[Tensor]| -> Result<Vec<Tensor>> {
        let p = p.at(x.to_vec());
        // The cotangents of a shape that depends on the data fit one point alone.
        if !entry.differentiable || entry.host {
            return (p.run)(&p.inputs);
        }
        p.first().map(flat).map_err(gradus_core::Error::misuse)
    };
    let mut kept: Vec<(Vec<Tensor>, Vec<Tensor>)> = Vec::new();
    let mut sentinels = None;
    for (round, x) in points.iter().enumerate() {
        let want = text(step(x))?;
        let refs: Vec<&Tensor> = x.iter().collect();
        let have = captured.run(&refs, step).map_err(|e| format!("round {round}: {e}"))?;
        for (i, (a, b)) in have.iter().zip(&want).enumerate() {
            compare::bits(&format!("round {round}, result {i}"), a, b)?;
        }
        kept.push((have, want));
        if round == 1 {
            sentinels = Some(Sentinels::new(&kept[1].0));
        }
    }
    if let Some(s) = sentinels {
        s.check()?;
    }
    for (i, (have, want)) in kept.iter().enumerate() {
        for (a, b) in have.iter().zip(want) {
            compare::bits(&format!("what round {i} gave, after later rounds"), a, b)?;
        }
    }
    Ok(captured)
}

#[test]
fn a_replay_reads_new_inputs_of_each_call() {
    let Some(_turn) = turn() else { return };
    let mut captured = Captured::new();
    let key = Key::new(5);
    for i in 0..5u32 {
        let x = Tensor::randn([16, 16], device(), key.at(i));
        let out = captured
            .run(&[&x], |x| Ok(vec![x[0].try_matmul(&x[0])?.try_sum()?]))
            .expect("matmul and sum can be recorded");
        let want: f32 = x.matmul(&x).sum().item().expect("one element");
        assert_eq!(out[0].item::<f32>().expect("one element"), want, "call {i}");
    }
    assert!(captured.kernels() >= 2);
}
