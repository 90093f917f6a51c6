//! `docs/ops.md` is generated from the catalog and the methods' own documentation: this test fails when it is stale.
//!
//! `GRADUS_WRITE_DOCS=1 cargo test -p gradus-tests --test docs` writes it.

use gradus_core::catalog::{Case, Entry, families};
use gradus_core::rng::Key;
use gradus_core::{DType, Tensor};
use gradus_tests::sample;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every `.rs` file below a folder.
fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the folder of sources").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// A link of rustdoc's as plain text: its name.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("](") {
        out.push_str(&rest[..at]);
        rest = &rest[at + 2..];
        rest = rest.find(')').map_or("", |end| &rest[end + 1..]);
        // The bracket that opened it.
        if let Some(open) = out.rfind('[') {
            out.remove(open);
        }
    }
    out.push_str(rest);
    out.replace("[`", "`").replace("`]", "`")
}

/// The first paragraphs of every method's documentation, by name: what stands above `pub fn name`.
fn documentation() -> BTreeMap<String, String> {
    let (mut files, mut docs) = (Vec::new(), BTreeMap::new());
    sources(&root().join("crates/core/src"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let mut lines: Vec<&str> = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(doc) = line.strip_prefix("///") {
                lines.push(doc.trim());
            } else if let Some(rest) = line.strip_prefix("pub fn ") {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let before: Vec<&str> =
                    lines.iter().copied().take_while(|l| !l.starts_with("```") && !l.starts_with("Panics")).collect();
                let doc = plain(before.join("\n").trim());
                // A method of the tensor has two forms; the `try_` one says only that it is one.
                let both = text.contains(&format!("pub fn try_{name}("));
                if rest.contains(" | try_") && !doc.is_empty() {
                    docs.insert(name, doc);
                } else if !doc.is_empty() && both {
                    docs.entry(name).or_insert(doc);
                }
                lines.clear();
            } else if !line.starts_with("#[") {
                lines.clear();
            }
        }
    }
    docs
}

fn listed(x: &[Tensor]) -> String {
    x.iter().map(|t| format!("{} {}", t.dtype(), t.shape())).collect::<Vec<_>>().join(", ")
}

/// The shapes that a sample call takes and gives.
fn shapes(case: &Case) -> String {
    let x = sample::inputs(case, DType::F32, &Key::new(1), gradus_cpu::device()).expect("samples");
    let y = (case.run)(&x).expect("the sample call");
    format!("`{}` → `{}`", listed(&x), listed(&y))
}

fn section(entry: &Entry, docs: &BTreeMap<String, String>, table: bool, out: &mut String) {
    // The tables' rows are documented in the entry itself.
    let method = docs.get(entry.name).filter(|_| !table);
    let doc = method.map_or_else(|| entry.doc.trim().to_owned(), Clone::clone);
    writeln!(out, "### `{}`\n\n{doc}\n", entry.name).expect("a string");
    let mut notes = vec![format!("PyTorch: `{}`", entry.torch)];
    if entry.elementwise {
        notes.push("elementwise: shapes broadcast".into());
    }
    notes.push(
        if entry.differentiable {
            "gradient: of any order; checked to the second"
        } else {
            "gradient: none, and it says so"
        }
        .into(),
    );
    if entry.host {
        notes.push("the host takes part: it waits for the device, and cannot be part of a recorded step".into());
    }
    notes.iter().for_each(|n| writeln!(out, "- {n}").expect("a string"));
    let mut seen: Vec<String> = Vec::new();
    for case in entry.cases.iter().filter(|c| !c.large) {
        let line = shapes(case);
        if !seen.contains(&line) && seen.len() < 3 {
            seen.push(line);
        }
    }
    writeln!(out, "- shapes, for example: {}\n", seen.join("; ")).expect("a string");
}

fn page() -> String {
    let docs = documentation();
    let mut out = String::from(
        "# Ops\n\nGenerated from the catalog (`crates/core/src/catalog`) and the methods' documentation by `tests/tests/docs.rs`;\nnot to be edited by hand. Every method has a `try_` form, which returns an error where it would panic.\n\n",
    );
    for (i, (title, mut entries)) in families().into_iter().enumerate() {
        writeln!(out, "## {title}\n").expect("a string");
        entries.sort_by_key(|e| e.name);
        entries.iter().for_each(|e| section(e, &docs, i == 0, &mut out));
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

#[test]
fn the_page_of_ops_is_up_to_date() {
    let (path, page) = (root().join("docs/ops.md"), page());
    if std::env::var_os("GRADUS_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("docs/ops.md can be written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let first = there.lines().zip(page.lines()).position(|(a, b)| a != b).map_or(there.lines().count(), |i| i) + 1;
    assert!(
        there == page,
        "docs/ops.md is stale from line {first} on; write it with GRADUS_WRITE_DOCS=1 cargo test -p gradus-tests --test docs"
    );
}
