//! The catalog: every op and composite with sample cases. Tests, docs and benches are generated from it.
//!
//! The tables of elementwise ops and reductions enter by themselves; every other function has an entry in the file of its
//! family here (or in its own file), which [`all`] lists.
//!
//! How to add one: `Entry::new(name, torch, doc).case(inputs, run)`, with fills that keep away from kinks and ties, where
//! finite differences mean nothing.
//!
//! The gradient rules are then checked by finite differences to second order, fused against defined, captured against eager,
//! across dtypes, devices and thread counts, and on empty, 0-d, broadcast and non-contiguous inputs.

mod elementwise;
mod functions;
mod indexing;
mod linear_algebra;
mod networks;
mod placing;
mod recurrent;
mod reductions;
mod spatial;
mod special;
mod tables;
mod transformers;
mod views;
mod vision;

use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Tensor;
use std::sync::Arc;

/// A function of sample tensors.
pub type Run = Arc<dyn Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync>;

/// An op, composite or function of tensors, with how to try it.
pub struct Entry {
    /// The method's name.
    pub name: &'static str,
    /// PyTorch's name for it.
    pub torch: &'static str,
    /// What it computes.
    pub doc: &'static str,
    /// Elementwise: its inputs broadcast, and it takes empty and 0-d ones.
    pub elementwise: bool,
    /// Whether its (floating-point) outputs have a gradient with respect to its floating-point inputs.
    pub differentiable: bool,
    /// Whether the host takes part: it waits for the device, and cannot be part of a recorded step.
    pub host: bool,
    /// Sample calls.
    pub cases: Vec<Case>,
}

/// A sample call.
#[derive(Clone)]
pub struct Case {
    /// The inputs.
    pub inputs: Vec<Input>,
    /// The call.
    pub run: Run,
    /// Large enough to be cut into parts for several threads; too large for finite differences.
    pub large: bool,
}

/// A sample input: what to fill a tensor with.
#[derive(Clone, Debug)]
pub struct Input {
    /// The shape.
    pub shape: Vec<usize>,
    /// The elements.
    pub fill: Fill,
}

/// The elements of a sample input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Floating-point numbers in a range, drawn at random.
    Real(f64, f64),
    /// Floating-point numbers in a range, evenly spaced in random order: no two are close (for orders and extremes).
    Spread(f64, f64),
    /// As [`Real`](Fill::Real), with 0 in every third place (for products).
    Zeros(f64, f64),
    /// `i64` from the first up to, not including, the second.
    Int(i64, i64),
    /// Truth values.
    Bool,
}

impl Fill {
    /// The dtype that such an input has when floating-point inputs have `float`.
    pub fn dtype(self, float: DType) -> DType {
        match self {
            Fill::Real(..) | Fill::Spread(..) | Fill::Zeros(..) => float,
            Fill::Int(..) => DType::I64,
            Fill::Bool => DType::Bool,
        }
    }
}

/// A sample input.
pub fn input(shape: &[usize], fill: Fill) -> Input {
    Input { shape: shape.to_vec(), fill }
}

/// A sample call.
pub fn case(inputs: Vec<Input>, run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static) -> Case {
    Case { inputs, run: Arc::new(run), large: false }
}

/// Floating-point inputs between −2 and 2, one of each shape.
pub fn reals(shapes: &[&[usize]]) -> Vec<Input> {
    shapes.iter().map(|s| input(s, Fill::Real(-2.0, 2.0))).collect()
}

/// Floating-point inputs between −2 and 2, no two elements of one close to each other, one of each shape.
pub fn spreads(shapes: &[&[usize]]) -> Vec<Input> {
    shapes.iter().map(|s| input(s, Fill::Spread(-2.0, 2.0))).collect()
}

impl Entry {
    /// A differentiable function that is not elementwise, without cases yet.
    pub fn new(name: &'static str, torch: &'static str, doc: &'static str) -> Entry {
        Entry { name, torch, doc, elementwise: false, differentiable: true, host: false, cases: Vec::new() }
    }
    /// With a sample call.
    pub fn case(
        mut self,
        inputs: Vec<Input>,
        run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    ) -> Entry {
        self.cases.push(case(inputs, run));
        self
    }
    /// With a sample call whose function has one output.
    pub fn one(self, inputs: Vec<Input>, run: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static) -> Entry {
        self.case(inputs, move |x| Ok(vec![run(x)?]))
    }
    /// With a sample call of one output, large enough to be cut into parts for several threads.
    pub fn large(
        mut self,
        inputs: Vec<Input>,
        run: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Entry {
        self.cases.push(Case { large: true, ..case(inputs, move |x| Ok(vec![run(x)?])) });
        self
    }
    /// As an elementwise function.
    pub fn elementwise(mut self) -> Entry {
        self.elementwise = true;
        self
    }
    /// As a function that the host takes part in.
    pub fn on_host(mut self) -> Entry {
        self.host = true;
        self
    }
    /// As a function without a gradient.
    pub fn without_gradient(mut self) -> Entry {
        self.differentiable = false;
        self
    }
}

/// Every entry by family, with the family's title; the tables first.
pub fn families() -> Vec<(&'static str, Vec<Entry>)> {
    vec![
        ("Functions of one and of two elements, comparisons, reductions", tables::entries()),
        ("Choosing, limiting, activations with parameters", elementwise::entries()),
        ("More functions of elements", special::entries()),
        ("Views", views::entries()),
        ("Scans, orders, statistics", reductions::entries()),
        ("Picking and placing, joining, cutting, padding", indexing::entries()),
        ("Several indices, masks, places in sorted rows", placing::entries()),
        ("Products, softmax, normalization, losses", functions::entries()),
        ("Linear algebra and distances", linear_algebra::entries()),
        ("Convolution, pooling, resizing", spatial::entries()),
        ("Channels, patches, sampling, diagonals", vision::entries()),
        ("Batch normalization and the like", networks::entries()),
        ("Attention, rotation by position, gates", transformers::entries()),
        ("Recurrent steps and sequences", recurrent::entries()),
    ]
}

/// Every entry, the tables' first.
pub fn all() -> Vec<Entry> {
    families().into_iter().flat_map(|(_, entries)| entries).collect()
}
