//! Goldens of PyTorch: calls with inputs, outputs, gradients and second derivatives in `f64`, and PyTorch's own `f32` error.
//!
//! A directory has `ops/NAME.json` (calls) beside `ops/NAME.safetensors` (tensors). A call is run in `f32` and may differ by
//! max(1e-5 · max(1, scale), 4 × PyTorch's own error in `f32`), where scale is the largest magnitude of the golden.

use crate::compare;
use gradus_core::autodiff::{Backward, try_grad_allow_unused};
use gradus_core::{Device, Error, Result, Tensor};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What begins the message of a call that cannot be written in Rust.
pub const UNTYPABLE: &str = "cannot be written in Rust";

/// What begins the message of a call that no other library can repeat (it draws from PyTorch's own generator).
pub const NOT_COMPARED: &str = "not compared";

/// A call: positional and named arguments, in which tensors stand by number.
pub struct Call<'a> {
    args: &'a [Value],
    named: &'a Map<String, Value>,
    tensors: &'a [Tensor],
    /// Inputs that the call replaces (running statistics), by number.
    pub replaced: RefCell<Vec<(usize, Tensor)>>,
}

fn untypable<T>(what: &str, value: &Value) -> Result<T> {
    Err(Error::misuse(format!("{UNTYPABLE}: {what} is {value}")))
}

impl<'a> Call<'a> {
    /// A call with these arguments, in which `{"t": "../inN"}` stands for tensor N.
    pub fn new(args: &'a [Value], named: &'a Map<String, Value>, tensors: &'a [Tensor]) -> Call<'a> {
        Call { args, named, tensors, replaced: RefCell::default() }
    }
}

impl Call<'_> {
    /// Argument `i`, or the one called `name`; null if there is neither.
    pub fn arg(&self, i: usize, name: &str) -> &Value {
        self.args.get(i).or_else(|| self.named.get(name)).unwrap_or(&Value::Null)
    }
    /// Number of positional arguments.
    pub fn positional(&self) -> usize {
        self.args.len()
    }
    fn number_of(&self, v: &Value) -> Option<usize> {
        v.get("t")?.as_str()?.rsplit_once("/in")?.1.parse().ok()
    }
    /// The tensor that a value stands for.
    pub fn tensor_in(&self, v: &Value) -> Option<Tensor> {
        self.tensors.get(self.number_of(v)?).cloned()
    }
    /// The tensor at argument `i`.
    pub fn x(&self, i: usize) -> Result<Tensor> {
        let v = self.arg(i, "");
        self.tensor_in(v).map_or_else(|| untypable("a tensor", v), Ok)
    }
    /// The tensor at argument `i` or called `name`, if one is given.
    pub fn tensor(&self, i: usize, name: &str) -> Result<Option<Tensor>> {
        match self.arg(i, name) {
            Value::Null => Ok(None),
            v => self.tensor_in(v).map_or_else(|| untypable(name, v), |t| Ok(Some(t))),
        }
    }
    /// Notes that the tensor at argument `i` or called `name` has a new value.
    pub fn replace(&self, i: usize, name: &str, value: Tensor) {
        if let Some(n) = self.number_of(self.arg(i, name)) {
            self.replaced.borrow_mut().push((n, value));
        }
    }
    /// The tensors of the list at argument `i`.
    pub fn list(&self, i: usize) -> Result<Vec<Tensor>> {
        let v = self.arg(i, "");
        let Some(items) = items(v) else { return untypable("a list of tensors", v) };
        items.iter().map(|v| self.tensor_in(v).map_or_else(|| untypable("a tensor", v), Ok)).collect()
    }
    /// A number, if one is given.
    pub fn number(&self, i: usize, name: &str) -> Result<Option<f64>> {
        let v = self.arg(i, name);
        match v.get("f").and_then(Value::as_str) {
            Some("inf") => return Ok(Some(f64::INFINITY)),
            Some("-inf") => return Ok(Some(f64::NEG_INFINITY)),
            Some(_) => return Ok(Some(f64::NAN)),
            None => {}
        }
        match v {
            Value::Null => Ok(None),
            v => v.as_f64().map_or_else(|| untypable(name, v), |x| Ok(Some(x))),
        }
    }
    /// An integer, if one is given.
    pub fn int(&self, i: usize, name: &str) -> Result<Option<isize>> {
        match self.arg(i, name) {
            Value::Null => Ok(None),
            v => v.as_i64().map_or_else(|| untypable(name, v), |x| Ok(Some(x as isize))),
        }
    }
    /// A length or count, if one is given.
    pub fn len(&self, i: usize, name: &str) -> Result<Option<usize>> {
        match self.int(i, name)? {
            Some(n) if n < 0 => untypable(name, self.arg(i, name)),
            n => Ok(n.map(|n| n as usize)),
        }
    }
    /// A truth value, or the default.
    pub fn flag(&self, i: usize, name: &str, default: bool) -> bool {
        self.arg(i, name).as_bool().unwrap_or(default)
    }
    /// A word, if one is given.
    pub fn word(&self, i: usize, name: &str) -> Option<&str> {
        self.arg(i, name).as_str()
    }
    /// Integers, one or a list, if any are given.
    pub fn ints(&self, i: usize, name: &str) -> Result<Option<Vec<isize>>> {
        let v = self.arg(i, name);
        if v.is_null() {
            return Ok(None);
        }
        if let Some(n) = v.as_i64() {
            return Ok(Some(vec![n as isize]));
        }
        let Some(items) = items(v) else { return untypable(name, v) };
        let ints: Option<Vec<isize>> = items.iter().map(|v| v.as_i64().map(|n| n as isize)).collect();
        ints.map_or_else(|| untypable(name, v), |n| Ok(Some(n)))
    }
    /// Lengths, one or a list, if any are given.
    pub fn lens(&self, i: usize, name: &str) -> Result<Option<Vec<usize>>> {
        let Some(ints) = self.ints(i, name)? else { return Ok(None) };
        let lens: std::result::Result<Vec<usize>, _> = ints.iter().map(|&n| usize::try_from(n)).collect();
        lens.map_or_else(|_| untypable(name, self.arg(i, name)), |n| Ok(Some(n)))
    }
}

/// The items of a list, tuple or size.
pub fn items(v: &Value) -> Option<&Vec<Value>> {
    ["list", "tuple", "size"].iter().find_map(|k| v.get(k)).or(Some(v)).and_then(Value::as_array)
}

/// How a name is run: `None` if it is not mapped.
pub type Mapping = fn(&str, &Call<'_>) -> Option<Result<Vec<Tensor>>>;

/// Why a call that PyTorch rejects (by op and complaint) is accepted here by design, if it is.
pub type ByDesign = fn(&str, &str) -> Option<&'static str>;

/// What a file of goldens came to.
#[derive(Default, Debug)]
pub struct Score {
    /// Whether the name is mapped.
    pub mapped: bool,
    /// Calls whose every number is within tolerance.
    pub passed: usize,
    /// Calls.
    pub total: usize,
    /// Calls that are not compared, with the reason.
    pub skipped: Vec<String>,
    /// What the refused ones say.
    pub refusals: Vec<String>,
    /// What failed, by call.
    pub failures: Vec<String>,
    /// Of the calls that PyTorch rejects: refused here, not to be written in Rust, accepted.
    pub rejected: [usize; 3],
    /// The accepted ones, with the reason.
    pub accepted: Vec<String>,
}

/// The directory of goldens: the one that `GRADUS_GOLDENS` names, or the small set beside these tests.
pub fn directory() -> PathBuf {
    std::env::var_os("GRADUS_GOLDENS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens"), PathBuf::from)
}

/// The files of calls in a directory of goldens, in order.
pub fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory.join("ops"))?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    files.retain(|p| p.extension().is_some_and(|e| e == "json"));
    files.sort();
    Ok(files)
}

/// Runs one file's calls.
pub fn run_file(path: &Path, device: Device, mapping: Mapping, by_design: ByDesign) -> Result<(String, Score), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let meta: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let name = meta["op"].as_str().unwrap_or_default().to_owned();
    let tensors = path.with_extension("safetensors");
    let tensors = if tensors.exists() { read(&tensors, device)? } else { BTreeMap::new() };
    let mut score = Score::default();
    for sample in meta["samples"].as_array().into_iter().flatten() {
        score.total += 1;
        let golden = Golden { sample, tensors: &tensors };
        match golden.check(&name, mapping) {
            None => {
                return Ok((name, Score { total: meta["samples"].as_array().map_or(0, Vec::len), ..Score::default() }));
            }
            Some(Ok(())) => score.passed += 1,
            Some(Err(e)) if e.contains(NOT_COMPARED) => score.skipped.push(format!("{} {e}", golden.id())),
            Some(Err(e)) => score.failures.push(format!("{} {}: {e}", golden.id(), golden.sample["call"])),
        }
    }
    for sample in meta["errors"].as_array().into_iter().flatten() {
        let golden = Golden { sample, tensors: &tensors };
        let complaint = sample["regex"].as_str().unwrap_or_default();
        let of = format!("{} {} ({complaint})", golden.id(), sample["call"]);
        match golden.rejected(&name, mapping) {
            Ok(Rejected::Refused(message)) => {
                score.rejected[0] += 1;
                score.refusals.push(format!("{of}: {message}"));
            }
            Ok(Rejected::Untypable) => score.rejected[1] += 1,
            Ok(Rejected::Accepted) => {
                score.rejected[2] += 1;
                match by_design(&name, complaint) {
                    Some(reason) => score.accepted.push(format!("{of}: {reason}")),
                    None => score.failures.push(format!("{of}: is accepted, and no reason is listed")),
                }
            }
            Err(e) => score.failures.push(format!("{of}: {e}")),
        }
    }
    score.mapped = true;
    Ok((name, score))
}

/// Every tensor of a file that Gradus can hold: of the calls that PyTorch rejects, some have more dimensions.
pub(crate) fn read(path: &Path, device: Device) -> Result<BTreeMap<String, Tensor>, String> {
    let limits = gradus_io::Limits { rank: 256, ..Default::default() };
    let file = gradus_io::SafeTensors::open_with(path, gradus_io::Access::Read, &limits).map_err(|e| e.to_string())?;
    let mut tensors = BTreeMap::new();
    for info in file.infos().iter().filter(|i| i.shape.len() <= gradus_core::shape::MAX_RANK) {
        tensors.insert(info.name.clone(), file.tensor(&info.name, device).map_err(|e| e.to_string())?);
    }
    Ok(tensors)
}

struct Golden<'a> {
    sample: &'a Value,
    tensors: &'a BTreeMap<String, Tensor>,
}

impl Golden<'_> {
    fn id(&self) -> &str {
        self.sample["id"].as_str().unwrap_or_default()
    }
    fn get(&self, kind: &str, i: usize) -> Option<&Tensor> {
        self.tensors.get(&format!("{}/{kind}{i}", self.id()))
    }
    fn inputs(&self) -> Vec<Tensor> {
        (0..).map_while(|i| self.get("in", i).cloned()).collect()
    }
    fn numbers(&self, key: &str) -> Vec<usize> {
        self.sample[key].as_array().into_iter().flatten().filter_map(|v| v.as_u64().map(|n| n as usize)).collect()
    }
    fn call<'t>(&'t self, tensors: &'t [Tensor]) -> Option<Call<'t>> {
        let call = &self.sample["call"];
        let (args, named) = (call["args"].as_array()?, call["kwargs"].as_object()?);
        Some(Call::new(args, named, tensors))
    }

    /// A result against the golden called `kind` `i`.
    fn close(&self, kind: &str, i: usize, have: Option<&Tensor>) -> Result<(), String> {
        let what = format!("{kind}{i}");
        let Some(want) = self.get(kind, i) else {
            // No gradient path there: none here, or zeros.
            return match have {
                Some(t) if compare::scale(&compare::read(&what, t)?) > 0.0 => {
                    Err(format!("{what} is there, in PyTorch there is none"))
                }
                _ => Ok(()),
            };
        };
        let w = compare::read(&what, want)?;
        let zeros = vec![0.0; w.len()];
        let have = match have {
            Some(t) if t.shape() != want.shape() => {
                return Err(format!("{what} has shape {}, want {}", t.shape(), want.shape()));
            }
            Some(t) => compare::read(&what, t)?,
            None => zeros,
        };
        let exact = !want.dtype().is_float();
        let torch = self.sample["torch_f32"][&what]["max_abs"].as_f64().unwrap_or(0.0);
        let allowed = if exact { 0.0 } else { (1e-5 * compare::scale(&w).max(1.0)).max(4.0 * torch) };
        for (j, (&a, &b)) in have.iter().zip(&w).enumerate() {
            let equal = a == b || a.is_nan() && b.is_nan();
            if !equal && !((a - b).abs() <= allowed) {
                return Err(format!(
                    "{what}: element {j} is {a:e}, want {b:e} (off by {:e}, allowed {allowed:e})",
                    (a - b).abs()
                ));
            }
        }
        Ok(())
    }

    fn check(&self, name: &str, mapping: Mapping) -> Option<Result<(), String>> {
        let mut leaves = self.inputs();
        for i in self.numbers("diff_in") {
            leaves[i] = leaves[i].requires_grad();
        }
        let call = self.call(&leaves)?;
        let mut outcome = None;
        if let Some(p) = crate::panics::caught(|| outcome = mapping(name, &call)) {
            return Some(Err(format!("panicked at {}:{}: {}", p.file, p.line, p.message)));
        }
        let outputs = match outcome? {
            Ok(outputs) => outputs,
            Err(e) => return Some(Err(e.to_string())),
        };
        let replaced = call.replaced.take();
        Some(self.check_numbers(&leaves, &outputs, &replaced))
    }

    fn check_numbers(&self, leaves: &[Tensor], outputs: &[Tensor], replaced: &[(usize, Tensor)]) -> Result<(), String> {
        if self.get("out", outputs.len()).is_some() {
            return Err(format!("gave {} outputs, which is too few", outputs.len()));
        }
        for (k, y) in outputs.iter().enumerate() {
            self.close("out", k, Some(y))?;
        }
        for i in self.numbers("mut") {
            let new = replaced.iter().find(|(n, _)| *n == i).map(|(_, t)| t);
            self.close("mut", i, Some(new.ok_or_else(|| format!("input {i} was not replaced"))?))?;
        }
        let e = |e: Error| e.to_string();
        let mut cotangents = Vec::new();
        let mut loss: Option<Tensor> = None;
        for k in self.numbers("diff_out") {
            let ct = self.get("ct", k).ok_or("no cotangent")?.requires_grad();
            let Some(y) = outputs.get(k).filter(|y| y.is_tracked()) else { continue };
            let term = y.try_mul(&ct).and_then(|t| t.try_sum()).map_err(e)?;
            loss = Some(loss.map_or(Ok(term.clone()), |l| l.try_add(&term)).map_err(e)?);
            cotangents.push((k, ct));
        }
        let wanted = self.numbers("diff_in");
        let floats: Vec<&Tensor> = wanted.iter().map(|&i| &leaves[i]).collect();
        let gradients = match &loss {
            Some(loss) if !floats.is_empty() => {
                try_grad_allow_unused(&[loss], &floats, Backward::graph()).map_err(e)?
            }
            _ => vec![None; floats.len()],
        };
        let mut s: Option<Tensor> = None;
        for (&i, g) in wanted.iter().zip(&gradients) {
            self.close("grad", i, g.as_ref())?;
            if let (Some(v), Some(g)) = (self.get("v", i), g) {
                let term = g.try_mul(v).and_then(|t| t.try_sum()).map_err(e)?;
                s = Some(s.map_or(Ok(term.clone()), |s| s.try_add(&term)).map_err(e)?);
            }
        }
        if !wanted.iter().any(|&i| self.get("v", i).is_some()) {
            return Ok(());
        }
        let all: Vec<&Tensor> = floats.iter().copied().chain(cotangents.iter().map(|(_, ct)| ct)).collect();
        let second = match &s {
            Some(s) if s.is_tracked() => try_grad_allow_unused(&[s], &all, Backward::default()).map_err(e)?,
            _ => vec![None; all.len()],
        };
        for (&i, h) in wanted.iter().zip(&second) {
            self.close("gg", i, h.as_ref())?;
        }
        for ((k, _), h) in cotangents.iter().zip(&second[wanted.len()..]) {
            self.close("ggct", *k, h.as_ref())?;
        }
        Ok(())
    }

    /// What became of a call that PyTorch rejects; an error if it panicked.
    fn rejected(&self, name: &str, mapping: Mapping) -> Result<Rejected, String> {
        let inputs = self.inputs();
        let Some(call) = self.call(&inputs) else { return Ok(Rejected::Untypable) };
        if call.named.contains_key("out") {
            return Ok(Rejected::Untypable); // no function writes to a tensor that it is handed
        }
        let mut outcome = None;
        if let Some(p) = crate::panics::caught(|| outcome = mapping(name, &call)) {
            return Err(format!("panicked at {}:{}: {}", p.file, p.line, p.message));
        }
        Ok(match outcome {
            Some(Err(e)) if e.to_string().contains(UNTYPABLE) => Rejected::Untypable,
            Some(Err(e)) => Rejected::Refused(e.to_string()),
            Some(Ok(_)) => Rejected::Accepted,
            None => Rejected::Untypable,
        })
    }
}

/// What became of a call that PyTorch rejects.
enum Rejected {
    /// An error, which says this.
    Refused(String),
    /// It cannot be written in Rust.
    Untypable,
    /// It has a result.
    Accepted,
}
