//! Every layer and loss once: it is built, run, taken apart by name and put together again; `docs/layers.md` is written from what
//! that showed.
//!
//! `GRADUS_WRITE_DOCS=1 cargo test -p gradus-tests --test layers` writes the page; otherwise the test says whether it is stale.

#[path = "layers/losses.rs"]
mod losses;
#[path = "layers/rows.rs"]
mod rows;

use gradus_core::{Device, Precision, Result, Shape, Tensor, with_precision};
use gradus_nn::loss::{Loss, PairLoss};
use gradus_nn::{Cx, Init, Layer, Module};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What a layer showed when it ran.
struct Shown {
    parameters: Vec<(String, Shape)>,
    inputs: Vec<Shape>,
    outputs: Vec<Shape>,
}

/// A layer's place in the documentation, and how it is made and run.
struct Row {
    name: &'static str,
    torch: &'static str,
    formula: &'static str,
    show: fn(&mut Init) -> Result<Shown>,
}

fn device() -> Device {
    gradus_cpu::device()
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::ones(shape, device())
}

/// Small integers, all of them below 3.
fn indices(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_vec((0..n).map(|i| (i % 3) as i64).collect(), shape, device())
}

/// A module run with these inputs: in training and outside it its outputs have the same shapes, its state can be taken out and put
/// back by name, and every parameter that takes part gets a finite gradient.
fn shown<M: Module>(mut m: M, inputs: &[&Tensor], run: impl Fn(&M, &Cx) -> Result<Vec<Tensor>>) -> Result<Shown> {
    let state = m.state_dict();
    m.load_state_dict(&state)?;
    assert!(m.load_partial(&state)?.is_empty());
    let outputs = run(&m, &Cx::eval())?;
    let trained = run(&m, &Cx::train(7, 0))?;
    let shapes = |y: &[Tensor]| y.iter().map(|y| *y.shape()).collect::<Vec<_>>();
    assert_eq!(shapes(&outputs), shapes(&trained));
    let loss = outputs.iter().filter(|y| y.is_tracked()).map(|y| y.square().sum()).reduce(|a, b| a + b);
    if let Some(loss) = loss {
        loss.backward();
    }
    for (name, p) in m.named_parameters() {
        if let Some(g) = p.grad() {
            let worst = g.abs().sum().item::<f32>()?;
            assert!(worst.is_finite(), "{}: the gradient of {name} is not finite", m.kind());
        } else {
            assert!(p.is_frozen(), "{}: {name} got no gradient", m.kind());
        }
    }
    let parameters = state.iter().map(|(name, t)| (name.clone(), *t.shape())).collect();
    Ok(Shown { parameters, inputs: inputs.iter().map(|x| *x.shape()).collect(), outputs: shapes(&outputs) })
}

fn layer(l: impl Layer, x: &[usize]) -> Result<Shown> {
    let x = ones(x);
    shown(l, &[&x], |l, cx| Ok(vec![l.call(&x, cx)]))
}

fn indexed(l: impl Layer, x: &[usize]) -> Result<Shown> {
    let x = indices(x);
    shown(l, &[&x], |l, cx| Ok(vec![l.call(&x, cx)]))
}

fn loss<L: Loss + Module>(l: L, x: Tensor, target: Tensor) -> Result<Shown> {
    let x = x.requires_grad();
    shown(l, &[&x, &target], |l, _| Ok(vec![l.try_forward(&x, &target)?]))
}

fn pair_loss<L: PairLoss + Module>(l: L, a: Tensor, b: Tensor, target: Tensor) -> Result<Shown> {
    shown(l, &[&a, &b, &target], |l, _| Ok(vec![l.try_forward(&a, &b, &target)?]))
}

fn listed(shapes: &[Shape]) -> String {
    shapes.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", ")
}

/// The page.
fn page() -> String {
    let mut out = String::from(
        "# Layers and losses\n\nWritten by `GRADUS_WRITE_DOCS=1 cargo test -p gradus-tests --test layers` from the layers themselves: names and shapes of \
         parameters and states, and the shapes of a run. Each has the names, layouts and defaults of its counterpart in PyTorch, \
         unless its documentation says otherwise; sequences are `[batch, length, width]`. Gradients of every layer and loss are those of \
         its operations (see `ops.md`), to any order.\n",
    );
    for (family, rows) in rows::families() {
        let _ = write!(
            out,
            "\n## {family}\n\n| layer | PyTorch | what it computes | input → output | parameters and states |\n|---|---|---|---|---|\n"
        );
        for row in rows {
            let shown = (row.show)(&mut Init::new(device(), 0)).unwrap_or_else(|e| panic!("{}: {e}", row.name));
            let parameters: Vec<String> = shown.parameters.iter().map(|(n, s)| format!("`{n}` `{s}`")).collect();
            let shapes = format!("{} → {}", listed(&shown.inputs), listed(&shown.outputs));
            let torch = if row.torch.is_empty() { "–".to_owned() } else { format!("`{}`", row.torch) };
            let formula = row.formula.replace('|', "\\|");
            let _ = writeln!(out, "| `{}` | {torch} | {formula} | {shapes} | {} |", row.name, parameters.join(", "));
        }
    }
    out
}

#[test]
fn every_layer_runs_and_is_in_the_documentation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/layers.md");
    let page = page();
    if std::env::var_os("GRADUS_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let have = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(have == page, "docs/layers.md is stale: GRADUS_WRITE_DOCS=1 cargo test -p gradus-tests --test layers");
}

/// With the same shapes and with finite gradients; every complaint is told.
#[test]
fn every_layer_runs_under_half_precision() {
    let mut complaints = Vec::new();
    for row in rows::families().into_iter().flat_map(|(_, rows)| rows) {
        let run = || (row.show)(&mut Init::new(device(), 0));
        let full = run().unwrap_or_else(|e| panic!("{}: {e}", row.name));
        for half in [Precision::F16, Precision::Bf16] {
            let caught = catch_unwind(AssertUnwindSafe(|| with_precision(half, run)));
            match caught {
                Ok(Ok(shown)) => assert_eq!(shown.outputs, full.outputs, "{} in {half:?}", row.name),
                Ok(Err(e)) => complaints.push(format!("{} in {half:?}: {e}", row.name)),
                Err(p) => complaints.push(format!("{} in {half:?}: {}", row.name, gradus_tests::panics::message(&*p))),
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Whatever `gradus_nn` exports that can be called as a layer or a loss stands in the table.
#[test]
fn no_layer_is_missing() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/nn/src");
    let mut names = Vec::new();
    let mut folders = vec![source];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap_or_else(|e| panic!("{e}")).path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                let lines = text.lines().filter_map(|l| {
                    let rest = l
                        .strip_prefix("layer!(")
                        .or(l.strip_prefix("impl Layer for "))
                        .or(l.strip_prefix("impl Loss for "))
                        .or(l.strip_prefix("impl PairLoss for "))?;
                    rest.split([',', ' ', '<']).next().map(str::to_owned)
                });
                names.extend(lines.filter(|n| !n.starts_with('$') && !matches!(&n[..], "Box" | "Option")));
            }
        }
    }
    let known: Vec<&str> = rows::families().into_iter().flat_map(|(_, rows)| rows).map(|row| row.name).collect();
    let missing: Vec<&String> = names.iter().filter(|n| !known.contains(&&n[..])).collect();
    assert!(names.len() > 20 && missing.is_empty(), "not in the table: {missing:?}");
}
