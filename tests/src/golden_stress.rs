//! Special values: PyTorch's results at infinities, NaN, signed zeros, subnormals and the ends of the range.
//!
//! A directory has `stress/special.safetensors` beside `stress/special.json`. A result has to be of the golden's class (NaN, an
//! infinity of that sign, a zero of that sign, finite). Finite numbers may differ by 10⁻⁶ of the exact value and one unit in
//! the last place (by 4 units where only PyTorch's own `f32` is known), gradients by 10⁻⁵. Functions of one element are also run in
//! `f64`, and may differ by 4 units in the last place there.

use crate::golden::{Call, Mapping};
use crate::panics;
use gradus_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What the special values came to.
#[derive(Default, Debug)]
pub struct Score {
    /// By op: how many results were right, of how many, and how many differ by design.
    pub by_op: BTreeMap<String, [usize; 3]>,
    /// What was not, at which values.
    pub failures: Vec<String>,
    /// Ops that are not mapped.
    pub unmapped: Vec<String>,
}

struct Goldens<'a> {
    tensors: BTreeMap<String, Tensor>,
    mapping: Mapping,
    /// PyTorch's name of an op in full.
    full: fn(&str) -> &str,
    known: KnownDifference,
    score: &'a mut Score,
}

/// A result that is not the golden's.
pub struct Difference<'a> {
    /// The op.
    pub op: &'a str,
    /// `value`, `gradient`, `f64` (its value in that dtype), or `row` and the row's name.
    pub what: &'a str,
    /// The inputs at its place.
    pub inputs: &'a [f64],
    /// The result.
    pub have: f64,
    /// The golden.
    pub want: f64,
}

/// Whether a result differs from PyTorch's by design.
pub type KnownDifference = fn(&Difference<'_>) -> bool;

/// Runs every special value of a directory; nothing, if it has none.
pub fn run(
    directory: &Path,
    device: Device,
    mapping: Mapping,
    full: fn(&str) -> &str,
    known: KnownDifference,
) -> Result<Score, String> {
    let path = directory.join("stress/special.json");
    let mut score = Score::default();
    if !path.exists() {
        return Ok(score);
    }
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let meta: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let tensors = crate::golden::read(&path.with_extension("safetensors"), device)?;
    let mut goldens = Goldens { tensors, mapping, full, known, score: &mut score };
    for record in meta["records"].as_array().into_iter().flatten() {
        let op = record["op"].as_str().unwrap_or_default();
        match record["kind"].as_str() {
            Some("unary") => goldens.unary(op),
            Some("row") => goldens.row(op, record),
            _ => goldens.binary(op),
        }
    }
    Ok(score)
}

/// How far finite numbers may be apart.
enum Allowed {
    /// So many units in the last place of `f32`.
    Units(f64),
    /// This part of the value, and a unit in the last place.
    Part(f64),
}

fn unit(x: f64) -> f64 {
    let near = (x.abs() as f32).max(f32::MIN_POSITIVE);
    if near.is_finite() { f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near) } else { f64::INFINITY }
}

/// Whether a result is the golden's, which is `class` in `f32` and `value` exactly.
fn same(have: f64, class: f64, value: f64, allowed: &Allowed) -> bool {
    if class.is_nan() || class.is_infinite() {
        return have == class || have.is_nan() && class.is_nan();
    }
    if have == 0.0 && class == 0.0 {
        return have.is_sign_negative() == class.is_sign_negative();
    }
    let limit = match allowed {
        Allowed::Units(n) => n * unit(class),
        Allowed::Part(p) => p * value.abs() + unit(class),
    };
    (have - value).abs() <= limit
}

impl Goldens<'_> {
    fn get(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).cloned()
    }

    /// The op's outcome for tensors and further arguments; `None`, noted, if it is not mapped.
    fn outcome(&mut self, op: &str, x: &[Tensor], more: &[(&str, Value)]) -> Option<Result<Tensor, String>> {
        let args: Vec<Value> = (0..x.len()).map(|i| json!({ "t": format!("s/in{i}") })).collect();
        let named: Map<String, Value> = more.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let (call, name) = (Call::new(&args, &named, x), (self.full)(op));
        let mut outcome = None;
        if let Some(p) = panics::caught(|| outcome = (self.mapping)(name, &call)) {
            return Some(Err(format!("panicked at {}:{}: {}", p.file, p.line, p.message)));
        }
        match outcome {
            None => {
                self.score.unmapped.push(op.to_owned());
                None
            }
            Some(y) => Some(y.map(|mut y| y.swap_remove(0)).map_err(|e| e.to_string())),
        }
    }

    /// Compares a result, and notes what differs, at which inputs.
    fn compare(&mut self, op: &str, what: &str, have: &Tensor, golden: &str, exact: Option<&str>, at: &[Vec<f64>]) {
        let read = |t: &Tensor| t.to_vec::<f64>().map_err(|e| e.to_string());
        let Some(want) = self.get(golden) else { return };
        let exact = exact.and_then(|name| self.get(name));
        let allowed = match (&exact, what) {
            (_, "gradient") => Allowed::Part(1e-5),
            (Some(_), _) => Allowed::Part(1e-6),
            _ => Allowed::Units(4.0),
        };
        let (h, w) = match (read(have), read(&want)) {
            (Ok(h), Ok(w)) if h.len() == w.len() => (h, w),
            (h, w) => {
                return self.score.failures.push(format!("{op}: {what}: {h:?} for {w:?}"));
            }
        };
        let values = exact.and_then(|t| read(&t).ok()).unwrap_or_else(|| w.clone());
        let (mut wrong, mut known) = (Vec::new(), 0);
        for i in 0..w.len() {
            // Where the exact result overflows f32 alone, the class decides.
            let value = if values[i].is_finite() { values[i] } else { w[i] };
            if !same(h[i], w[i], value, &allowed) {
                let inputs: Vec<f64> = at.iter().map(|x| x[i.min(x.len().saturating_sub(1))]).collect();
                if (self.known)(&Difference { op, what, inputs: &inputs, have: h[i], want: w[i] }) {
                    known += 1;
                } else {
                    wrong.push(format!("at {inputs:?} {} for {}", h[i], w[i]));
                }
            }
        }
        let score = self.score.by_op.entry(op.to_owned()).or_default();
        score[1] += w.len();
        score[0] += w.len() - wrong.len() - known;
        score[2] += known;
        if !wrong.is_empty() {
            self.score.failures.push(format!("{op}: {what}: {}", wrong.join("; ")));
        }
    }

    /// In `f64`, within four units in its last place.
    fn unary_f64(&mut self, op: &str, x: &Tensor) {
        let Some(want) = self.get(&format!("u64/{op}")).filter(|t| t.dtype() == DType::F64) else { return };
        let Ok(x) = x.try_to_dtype(DType::F64) else { return };
        let y = match self.outcome(op, std::slice::from_ref(&x), &[]) {
            Some(Ok(y)) => y,
            other => return self.score.failures.push(format!("{op} in f64: {other:?}")),
        };
        let numbers = [&x, &y, &want].map(|t| t.to_vec::<f64>().unwrap_or_default());
        let [x, h, w] = &numbers;
        let score = self.score.by_op.entry(op.to_owned()).or_default();
        for i in 0..w.len() {
            let near = w[i].abs().clamp(f64::MIN_POSITIVE, f64::MAX / 2.0);
            let unit = f64::from_bits(near.to_bits() + 1) - near;
            let right = h[i] == w[i] && h[i].is_sign_negative() == w[i].is_sign_negative()
                || h[i].is_nan() && w[i].is_nan()
                || (h[i] - w[i]).abs() <= 4.0 * unit && (h[i] != 0.0 || w[i] != 0.0);
            let known =
                !right && (self.known)(&Difference { op, what: "f64", inputs: &x[i..=i], have: h[i], want: w[i] });
            score[1] += 1;
            score[if known { 2 } else { 0 }] += usize::from(right || known);
            if !right && !known {
                let off = (h[i] - w[i]).abs() / unit;
                self.score.failures.push(format!("{op} in f64 at {}: {} for {} ({off} ulp)", x[i], h[i], w[i]));
            }
        }
    }

    fn unary(&mut self, op: &str) {
        let Some(x) = self.get("x") else { return };
        let at = vec![x.to_vec::<f64>().unwrap_or_default()];
        self.unary_f64(op, &x);
        let leaf = x.requires_grad();
        let y = match self.outcome(op, std::slice::from_ref(&leaf), &[]) {
            None => return,
            Some(Err(e)) => return self.score.failures.push(format!("{op}: {e}")),
            Some(Ok(y)) => y,
        };
        self.compare(op, "value", &y, &format!("u/{op}"), Some(&format!("u64/{op}")), &at);
        let gradient = format!("ug/{op}");
        if self.tensors.contains_key(&gradient) {
            let walked = y.try_sum().and_then(|s| if s.is_tracked() { s.try_backward() } else { Ok(()) });
            match walked {
                Ok(()) => {
                    let g = leaf.grad().unwrap_or_else(|| x.zeros_like());
                    self.compare(op, "gradient", &g, &gradient, None, &at);
                }
                Err(e) => self.score.failures.push(format!("{op}: gradient: {e}")),
            }
        }
    }

    fn binary(&mut self, op: &str) {
        let Some(x) = self.get("x") else { return };
        let n = x.elements();
        let grids = x.try_reshape([n, 1]).and_then(|a| Ok((a.try_expand([n, n])?, x.try_expand([n, n])?)));
        let Ok((a, b)) = grids else { return };
        let at = [&a, &b].map(|t| t.to_vec::<f64>().unwrap_or_default());
        match self.outcome(op, &[a, b], &[]) {
            None => {}
            Some(Err(e)) => self.score.failures.push(format!("{op}: {e}")),
            Some(Ok(y)) => self.compare(op, "value", &y, &format!("b/{op}"), None, &at),
        }
    }

    fn row(&mut self, op: &str, record: &Value) {
        let row = record["row"].as_str().unwrap_or_default();
        let Some(x) = self.get(&format!("row/{row}")) else { return };
        let at = vec![x.to_vec::<f64>().unwrap_or_default()];
        let along = ["softmax", "log_softmax", "logsumexp", "cumsum", "sort", "argsort"].contains(&op);
        let more: &[(&str, Value)] = if along { &[("dim", json!(0))] } else { &[] };
        let what = format!("row {row}");
        match self.outcome(op, &[x], more) {
            None => {}
            Some(Err(_)) if record.get("error").is_some() => {
                let score = self.score.by_op.entry(op.to_owned()).or_default();
                score[..2].iter_mut().for_each(|n| *n += 1);
            }
            Some(Err(e)) => self.score.failures.push(format!("{op}: {what}: {e}")),
            Some(Ok(y)) if record.get("error").is_some() => {
                self.score.failures.push(format!("{op}: {what}: is accepted, and gives {y:?}"));
            }
            Some(Ok(y)) => self.compare(op, &what, &y, &format!("r/{row}/{op}"), None, &at),
        }
    }
}
