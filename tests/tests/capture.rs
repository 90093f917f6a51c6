//! Captured ≡ eager for every entry, with its gradients; and a replay touches nobody else's memory.

use gradus_core::capture::Captured;
use gradus_core::catalog::Entry;
use gradus_core::rng::Key;
use gradus_core::{DType, Device, Result, Tensor};
use gradus_tests::derivative::{First, Problem};
use gradus_tests::report::{each_case, say};
use gradus_tests::{compare, sample};
use std::collections::BTreeSet;

fn cpu() -> Device {
    gradus_cpu::device()
}

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
        Sentinels(sizes.flat_map(|n| [n, 2 * n]).map(|n| Tensor::full([n], Sentinels::VALUE, cpu())).collect())
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
fn replays_equal_eager_runs_and_touch_nothing_else() {
    let mut refused = BTreeSet::new();
    each_case(
        "captured against eager",
        |_, c| !c.large && !c.inputs.is_empty(),
        |entry, case, key| {
            let points: Vec<Vec<Tensor>> =
                text((0..4u64).map(|i| sample::inputs(case, DType::F32, &key.fold_in(100 + i), cpu())).collect())?;
            let p = text(Problem::new(&case.run, points[0].clone(), key))?;
            let step = |x: &[Tensor]| -> Result<Vec<Tensor>> {
                let p = p.at(x.to_vec());
                // The cotangents of a shape that depends on the data fit one point alone.
                if !entry.differentiable || entry.host {
                    return (p.run)(&p.inputs);
                }
                p.first().map(flat).map_err(gradus_core::Error::misuse)
            };
            let mut captured = Captured::new();
            let mut kept: Vec<(Vec<Tensor>, Vec<Tensor>)> = Vec::new();
            let mut sentinels = None;
            for (round, x) in points.iter().enumerate() {
                let want = text(step(x))?;
                let refs: Vec<&Tensor> = x.iter().collect();
                let have = match captured.run(&refs, step) {
                    Ok(have) => have,
                    Err(e) if round == 1 && e.to_string().contains("recorded step") => {
                        if !may_be_refused(entry) {
                            return Err(format!("refused: {e}"));
                        }
                        refused.insert(entry.name);
                        return Ok(false);
                    }
                    Err(e) => return Err(format!("round {round}: {e}")),
                };
                if round > 0 && !captured.is_recorded() {
                    return Err(format!("round {round}: nothing is recorded"));
                }
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
            Ok(true)
        },
    );
    say(&format!("catalog: cannot be recorded, and say so: {refused:?}"));
}

#[test]
fn a_replay_reads_new_inputs_of_each_call() {
    let mut captured = Captured::new();
    let key = Key::new(5);
    for i in 0..5u32 {
        let x = Tensor::randn([16, 16], cpu(), key.at(i));
        let out = captured
            .run(&[&x], |x| Ok(vec![x[0].try_matmul(&x[0])?.try_sum()?]))
            .expect("matmul and sum can be recorded");
        let want: f32 = x.matmul(&x).sum().item().expect("one element");
        assert_eq!(out[0].item::<f32>().expect("one element"), want, "call {i}");
    }
    assert!(captured.kernels() >= 2);
}
