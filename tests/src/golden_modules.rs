//! Goldens of PyTorch's modules: how each was made, its state by name, and a call with outputs and gradients in `f64`.
//!
//! A directory has `modules/NAME.json` beside `modules/NAME.safetensors`. A module is built as the golden says, takes PyTorch's
//! state by name (the names and shapes have to be the same), gives it back bit by bit, and is called in `f32`: outputs and
//! gradients of parameters and inputs may differ by max(1e-5 · max(1, scale), 4 × PyTorch's own error in `f32`).

use crate::golden::{NOT_COMPARED, UNTYPABLE, items};
use crate::{compare, panics};
use gradus_core::autodiff::{Backward, try_grad_allow_unused};
use gradus_core::{DType, Device, Error, Result, Tensor};
use gradus_nn::{Cx, Layer, Module};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Arguments, positional and named, of a constructor or a call.
pub struct Arguments<'a> {
    args: Vec<&'a Value>,
    named: &'a Map<String, Value>,
    tensors: &'a dyn Fn(&str) -> Option<Tensor>,
}

fn unfit<T>(name: &str, value: &Value) -> Result<T> {
    Err(Error::misuse(format!("{UNTYPABLE}: {name} is {value}")))
}

impl Arguments<'_> {
    /// Argument `i`, or the one called `name`; null if there is neither.
    pub fn get(&self, i: usize, name: &str) -> &Value {
        self.args.get(i).copied().or_else(|| self.named.get(name)).unwrap_or(&Value::Null)
    }
    /// Whether argument `i` or the one called `name` is given, even as null.
    pub fn has(&self, i: usize, name: &str) -> bool {
        i < self.args.len() || self.named.contains_key(name)
    }
    /// The tensor at argument `i` or called `name`, if one is given.
    pub fn tensor(&self, i: usize, name: &str) -> Result<Option<Tensor>> {
        self.tensor_in(self.get(i, name))
    }
    fn tensor_in(&self, v: &Value) -> Result<Option<Tensor>> {
        match v.get("t").and_then(Value::as_str) {
            None if v.is_null() => Ok(None),
            key => key.and_then(|k| (self.tensors)(k)).map_or_else(|| unfit("a tensor", v), |t| Ok(Some(t))),
        }
    }
    /// The tensor at argument `i` or called `name`.
    pub fn x(&self, i: usize, name: &str) -> Result<Tensor> {
        self.tensor(i, name)?.map_or_else(|| unfit(name, self.get(i, name)), Ok)
    }
    /// The tensors of the tuple at argument `i` or called `name`, if one is given.
    pub fn tuple(&self, i: usize, name: &str) -> Result<Option<Vec<Tensor>>> {
        match self.get(i, name) {
            Value::Null => Ok(None),
            v => {
                let Some(items) = items(v) else { return unfit(name, v) };
                items
                    .iter()
                    .map(|v| self.tensor_in(v)?.map_or_else(|| unfit(name, v), Ok))
                    .collect::<Result<_>>()
                    .map(Some)
            }
        }
    }
    /// A number, or the default.
    pub fn number(&self, i: usize, name: &str, default: f64) -> Result<f64> {
        match self.get(i, name) {
            Value::Null => Ok(default),
            v => v.as_f64().map_or_else(|| unfit(name, v), Ok),
        }
    }
    /// An integer, or the default.
    pub fn int(&self, i: usize, name: &str, default: i64) -> Result<i64> {
        match self.get(i, name) {
            Value::Null => Ok(default),
            v => v.as_i64().map_or_else(|| unfit(name, v), Ok),
        }
    }
    /// A length or count.
    pub fn len(&self, i: usize, name: &str) -> Result<usize> {
        let v = self.get(i, name);
        v.as_u64().map_or_else(|| unfit(name, v), |n| Ok(n as usize))
    }
    /// A length or count, or the default.
    pub fn len_or(&self, i: usize, name: &str, default: usize) -> Result<usize> {
        if self.get(i, name).is_null() { Ok(default) } else { self.len(i, name) }
    }
    /// Lengths, one or a list, if any are given.
    pub fn lens(&self, i: usize, name: &str) -> Result<Option<Vec<usize>>> {
        let v = self.get(i, name);
        if v.is_null() {
            return Ok(None);
        }
        let one = v.as_u64().map(|n| vec![n as usize]);
        let lens = one.or_else(|| items(v)?.iter().map(|v| v.as_u64().map(|n| n as usize)).collect());
        lens.map_or_else(|| unfit(name, v), |n| Ok(Some(n)))
    }
    /// Lengths given as a list or as a tensor.
    pub fn counts(&self, i: usize, name: &str) -> Result<Vec<usize>> {
        if let Ok(Some(t)) = self.tensor(i, name) {
            return Ok(t.to_vec::<f64>()?.into_iter().map(|n| n as usize).collect());
        }
        self.lens(i, name)?.map_or_else(|| unfit(name, self.get(i, name)), Ok)
    }
    /// A truth value, or the default.
    pub fn flag(&self, i: usize, name: &str, default: bool) -> bool {
        self.get(i, name).as_bool().unwrap_or(default)
    }
    /// A word, if one is given.
    pub fn word(&self, i: usize, name: &str) -> Option<&str> {
        self.get(i, name).as_str()
    }
}

/// A module with the way PyTorch calls it.
pub trait Built {
    /// The module.
    fn module(&mut self) -> &mut dyn Module;
    /// Its outputs, in PyTorch's order.
    fn run(&self, inputs: &Arguments<'_>, cx: &Cx) -> Result<Vec<Tensor>>;
}

struct Called<M, F>(M, F);

impl<M: Module, F: Fn(&M, &Arguments<'_>, &Cx) -> Result<Vec<Tensor>>> Built for Called<M, F> {
    fn module(&mut self) -> &mut dyn Module {
        &mut self.0
    }
    fn run(&self, inputs: &Arguments<'_>, cx: &Cx) -> Result<Vec<Tensor>> {
        (self.1)(&self.0, inputs, cx)
    }
}

/// A module called by `run`.
pub fn called<M: Module + 'static>(
    module: M,
    run: impl Fn(&M, &Arguments<'_>, &Cx) -> Result<Vec<Tensor>> + 'static,
) -> Box<dyn Built> {
    Box::new(Called(module, run))
}

/// A layer, called with its input.
pub fn layer(layer: impl Layer + 'static) -> Box<dyn Built> {
    called(layer, |l, inputs, cx| Ok(vec![l.call(&inputs.x(0, "input")?, cx)]))
}

/// How a name and the arguments of its constructor become a module: `None` if it is not mapped.
pub type Mapping = fn(&str, &Arguments<'_>) -> Option<Result<Box<dyn Built>>>;

/// What a file of goldens came to.
#[derive(Default, Debug)]
pub struct Score {
    /// Whether the name is mapped.
    pub mapped: bool,
    /// Calls whose every number is within tolerance.
    pub passed: usize,
    /// Calls.
    pub total: usize,
    /// What failed, by call.
    pub failures: Vec<String>,
}

/// The files of modules in a directory of goldens, in order.
pub fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory.join("modules"))?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    files.retain(|p| p.extension().is_some_and(|e| e == "json"));
    files.sort();
    Ok(files)
}

/// Runs one file's calls.
pub fn run_file(path: &Path, device: Device, mapping: Mapping) -> Result<(String, Score), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let meta: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let name = meta["module"].as_str().unwrap_or_default().to_owned();
    let samples = meta["samples"].as_array().map_or(&[][..], |s| s);
    let mut tensors = BTreeMap::new();
    if !samples.is_empty() {
        let file = gradus_io::SafeTensors::open(path.with_extension("safetensors")).map_err(|e| e.to_string())?;
        for info in file.infos() {
            tensors.insert(info.name.clone(), file.tensor(&info.name, device).map_err(|e| e.to_string())?);
        }
    }
    let mut score = Score { mapped: true, total: samples.len(), ..Score::default() };
    for sample in samples {
        let golden = Golden { sample, tensors: &tensors };
        match golden.check(&name, mapping) {
            None => return Ok((name, Score { total: samples.len(), ..Score::default() })),
            Some(Ok(())) => score.passed += 1,
            Some(Err(e)) => score.failures.push(format!("{} {}: {e}", golden.id(), golden.sample["ctor"])),
        }
    }
    Ok((name, score))
}

struct Golden<'a> {
    sample: &'a Value,
    tensors: &'a BTreeMap<String, Tensor>,
}

fn text(e: Error) -> String {
    e.to_string()
}

impl Golden<'_> {
    fn id(&self) -> &str {
        self.sample["id"].as_str().unwrap_or_default()
    }
    fn get(&self, kind: &str) -> Option<&Tensor> {
        self.tensors.get(&format!("{}/{kind}", self.id()))
    }
    fn names(&self, key: &str) -> Vec<&str> {
        self.sample[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }
    fn numbers(&self, key: &str) -> Vec<usize> {
        self.sample[key].as_array().into_iter().flatten().filter_map(|v| v.as_u64().map(|n| n as usize)).collect()
    }

    fn check(&self, name: &str, mapping: Mapping) -> Option<Result<(), String>> {
        let (none, tensors) = (Map::new(), |key: &str| self.single(key));
        let ctor = &self.sample["ctor"];
        let args = ctor["args"].as_array().into_iter().flatten().collect();
        let ctor = Arguments { args, named: ctor["kwargs"].as_object().unwrap_or(&none), tensors: &tensors };
        let mut outcome = None;
        let run = || {
            outcome = mapping(name, &ctor).map(|built| self.check_built(built.map_err(text)?));
        };
        if let Some(p) = panics::caught(run) {
            return Some(Err(format!("panicked at {}:{}: {}", p.file, p.line, p.message)));
        }
        outcome
    }

    /// A constructor's tensor, in the `f32` that PyTorch's module is converted to.
    fn single(&self, key: &str) -> Option<Tensor> {
        let t = self.tensors.get(key)?;
        if t.dtype() == DType::F64 { t.try_to_dtype(DType::F32).ok() } else { Some(t.clone()) }
    }
    /// PyTorch's state by name.
    fn state(&self) -> BTreeMap<String, Tensor> {
        let parameters = self.names("params").into_iter().enumerate().map(|(i, n)| (n, format!("in{i}")));
        let states = self.names("buffers").into_iter().map(|n| (n, format!("buf/{n}")));
        parameters.chain(states).filter_map(|(n, key)| Some((n.to_owned(), self.get(&key)?.clone()))).collect()
    }

    fn check_built(&self, mut built: Box<dyn Built>) -> Result<(), String> {
        let state = self.state();
        built.module().load_state_dict(&state).map_err(text)?;
        for (name, value) in built.module().state_dict() {
            compare::bits(&name, &value, &state[&name])?;
        }
        let mut leaves = BTreeMap::new();
        built.module().for_each_parameter(&mut |name, p| {
            leaves.insert(name.to_owned(), p.value().clone());
        });
        // Inputs by number: parameters first, in PyTorch's order.
        let names = self.names("params");
        let mut all: Vec<Tensor> = names.iter().map(|n| leaves[*n].clone()).collect();
        while let Some(x) = self.get(&format!("in{}", all.len())) {
            let tracked = self.numbers("diff_in").contains(&all.len());
            all.push(if tracked { x.requires_grad() } else { x.clone() });
        }
        let tensors = |key: &str| all.get(key.rsplit_once("/in")?.1.parse::<usize>().ok()?).cloned();
        let call = &self.sample["call"]["args"];
        let (none, args) = (Map::new(), items(&call[1]).into_iter().flatten().collect());
        let named = call[2]["dict"].as_object().unwrap_or(&none);
        let inputs = Arguments { args, named, tensors: &tensors };
        let cx = if self.sample["training"] == true { Cx::train(0, 0) } else { Cx::eval() };
        let outputs = match built.run(&inputs, &cx) {
            Err(e) if e.to_string().contains(NOT_COMPARED) => return Ok(()),
            outputs => outputs.map_err(text)?,
        };
        self.check_numbers(&all, &outputs)
    }

    fn check_numbers(&self, inputs: &[Tensor], outputs: &[Tensor]) -> Result<(), String> {
        if self.get(&format!("out{}", outputs.len())).is_some() {
            return Err(format!("gave {} outputs, which is too few", outputs.len()));
        }
        for (k, y) in outputs.iter().enumerate() {
            self.close(&format!("out{k}"), Some(y))?;
        }
        let mut loss: Option<Tensor> = None;
        for k in self.numbers("diff_out") {
            let ct = self.get(&format!("ct{k}")).ok_or("no cotangent")?;
            let Some(y) = outputs.get(k).filter(|y| y.is_tracked()) else { continue };
            let term = y.try_mul(ct).and_then(|t| t.try_sum()).map_err(text)?;
            loss = Some(loss.map_or(Ok(term.clone()), |l| l.try_add(&term)).map_err(text)?);
        }
        let wanted = self.numbers("diff_in");
        let leaves: Vec<&Tensor> = wanted.iter().map(|&i| &inputs[i]).collect();
        let gradients = match &loss {
            Some(loss) if !leaves.is_empty() => {
                try_grad_allow_unused(&[loss], &leaves, Backward::default()).map_err(text)?
            }
            _ => vec![None; leaves.len()],
        };
        for (i, g) in wanted.iter().zip(&gradients) {
            self.close(&format!("grad{i}"), g.as_ref())?;
        }
        Ok(())
    }

    /// A result against the golden called `what`.
    fn close(&self, what: &str, have: Option<&Tensor>) -> Result<(), String> {
        let Some(want) = self.get(what) else {
            // No gradient path there: none here, or zeros.
            return match have {
                Some(t) if compare::scale(&compare::read(what, t)?) > 0.0 => {
                    Err(format!("{what} is there, in PyTorch there is none"))
                }
                _ => Ok(()),
            };
        };
        let w = compare::read(what, want)?;
        let have = match have {
            Some(t) if t.shape() != want.shape() => {
                return Err(format!("{what} has shape {}, want {}", t.shape(), want.shape()));
            }
            Some(t) => compare::read(what, t)?,
            None => vec![0.0; w.len()],
        };
        let torch = self.sample["torch_f32"][what]["max_abs"].as_f64().unwrap_or(0.0);
        let exact = !want.dtype().is_float();
        let allowed = if exact { 0.0 } else { (1e-5 * compare::scale(&w).max(1.0)).max(4.0 * torch) };
        for (j, (&a, &b)) in have.iter().zip(&w).enumerate() {
            let equal = a == b || a.is_nan() && b.is_nan();
            if !equal && !((a - b).abs() <= allowed) {
                return Err(format!("{what}: element {j} is {a:e}, want {b:e} (allowed {allowed:e})"));
            }
        }
        Ok(())
    }
}
