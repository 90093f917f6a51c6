//! A model as a table: its layers, what they give, and what they hold.

use crate::module::{ParameterPath, Visitor};
use crate::{Cx, Layer, Module, Param, Site, State};
use gradus_core::{Shape, Tensor};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A model's layers with their parameters, and, after a trial run, the shapes of their outputs. It prints as a table.
///
/// A row stands for a module that holds parameters, or that has no modules in it. The output's shape is known for modules
/// with a [`Site`]; activations, which keep none, give what they are given.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Init, Linear, Relu, Sequential, Table};
/// let device = gradus_cpu::device();
/// let mut init = Init::new(device, 0);
/// let mlp = Sequential::new().add(Linear::new(4, 8, &mut init)).add(Relu).add(Linear::new(8, 2, &mut init));
/// let table = Table::of(&mlp).run(&mlp, &Tensor::ones([5, 4], device));
/// assert_eq!(table.parameters(), 58);
/// assert_eq!(table.to_string(), "\
/// name  layer          output  parameters
/// 0     Linear(4 → 8)  [5, 8]          40
/// 1     Relu           –                0
/// 2     Linear(8 → 2)  [5, 2]          18
/// 58 parameters (all trainable), 232 B
/// ");
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Row>,
    parameters: usize,
    frozen: usize,
    bytes: usize,
}

/// A row of a [`Table`].
#[derive(Clone, Debug)]
pub struct Row {
    /// The module's path; empty for the model itself.
    pub path: String,
    /// Its type, with its options.
    pub layer: String,
    /// The shapes of its outputs in the trial run, one for each call.
    pub outputs: Vec<Shape>,
    /// How many numbers its own parameters hold.
    pub parameters: usize,
    /// Where its site lay when the table was made: what tells its calls apart.
    site: Option<usize>,
}

impl Table {
    /// The table of a model, without the shapes of outputs.
    pub fn of<M: Module + ?Sized>(model: &M) -> Table {
        let mut rows = Rows::default();
        rows.open(Row::of(String::new(), model));
        model.visit(&mut rows);
        rows.close();
        let (mut parameters, mut frozen, mut bytes) = (0, 0, 0);
        model.for_each_parameter(&mut |_, p| {
            parameters += p.elements();
            bytes += p.elements() * p.dtype().size();
            frozen += if p.is_frozen() { p.elements() } else { 0 };
        });
        rows.done.sort_by_key(|(order, _)| *order);
        Table { rows: rows.done.into_iter().map(|(_, row)| row).collect(), parameters, frozen, bytes }
    }

    /// This table with the shapes that `model`, which it was made of, gives for `x`. Nothing is recorded or trained.
    #[track_caller]
    pub fn run<L: Layer + ?Sized>(self, model: &L, x: &Tensor) -> Table {
        self.traced(|cx| {
            model.call(x, cx);
        })
    }

    /// This table with the shapes that layers give while `forward` runs: for models that are not called as layers are.
    #[track_caller]
    pub fn traced(mut self, forward: impl FnOnce(&Cx)) -> Table {
        let seen: Arc<Mutex<HashMap<usize, Vec<Shape>>>> = Arc::default();
        let log = seen.clone();
        let cx = Cx::eval().observing(move |call| {
            if let Some(site) = call.site {
                log.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(address(site))
                    .or_default()
                    .push(*call.output.shape());
            }
        });
        gradus_core::no_grad(|| forward(&cx));
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for row in &mut self.rows {
            row.outputs = row.site.and_then(|site| seen.remove(&site)).unwrap_or_default();
        }
        self
    }

    /// The rows, in the model's order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
    /// How many numbers the model's parameters hold.
    pub fn parameters(&self) -> usize {
        self.parameters
    }
    /// How many of them are not trained.
    pub fn frozen(&self) -> usize {
        self.frozen
    }
}

/// A site's address: two sites alive at once have two.
fn address(site: &Site) -> usize {
    std::ptr::from_ref(site).addr()
}

impl Row {
    fn of<M: Module + ?Sized>(path: String, module: &M) -> Row {
        let options = module.describe();
        let layer = if options.is_empty() { module.kind().to_owned() } else { format!("{}({options})", module.kind()) };
        Row { path, layer, outputs: Vec::new(), parameters: 0, site: module.site().map(address) }
    }
}

/// Gathers rows on a walk over the model.
#[derive(Default)]
struct Rows {
    path: ParameterPath,
    /// The modules that the walk is in, each with its place in the order, and whether it has modules in it.
    open: Vec<(usize, Row, bool)>,
    opened: usize,
    done: Vec<(usize, Row)>,
}

impl Rows {
    fn open(&mut self, row: Row) {
        self.open.push((self.opened, row, false));
        self.opened += 1;
    }
    fn close(&mut self) {
        if let Some((order, row, has_parts)) = self.open.pop()
            && (row.parameters > 0 || !has_parts)
        {
            self.done.push((order, row));
        }
    }
}

impl<'a> Visitor<'a> for Rows {
    fn child(&mut self, name: &str, module: &'a dyn Module) {
        let before = self.path.enter(name);
        // A parameter or state counts to the module it is in; plain data is not worth a row.
        let own = matches!(module.kind(), "" | "Param" | "State");
        if !own {
            if let Some((_, _, has_parts)) = self.open.last_mut() {
                *has_parts = true;
            }
            self.open(Row::of(self.path.as_str().to_owned(), module));
        }
        module.visit(self);
        if !own {
            self.close();
        }
        self.path.leave(before);
    }
    fn parameter(&mut self, parameter: &'a Param) {
        if let Some((_, row, _)) = self.open.last_mut() {
            row.parameters += parameter.elements();
        }
    }
    fn state(&mut self, _: &'a State) {}
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cells = vec![["name", "layer", "output", "parameters"].map(str::to_owned)];
        cells.extend(self.rows.iter().map(|row| {
            let shapes: Vec<String> = row.outputs.iter().map(Shape::to_string).collect();
            let outputs = if shapes.is_empty() { "–".to_owned() } else { shapes.join(" ") };
            [row.path.clone(), row.layer.clone(), outputs, grouped(row.parameters)]
        }));
        let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let [a, b, c, d] = [width(0), width(1), width(2), width(3)];
        for [name, layer, output, parameters] in &cells {
            writeln!(f, "{name:<a$}  {layer:<b$}  {output:<c$}  {parameters:>d$}")?;
        }
        let trainable = match self.frozen {
            0 => "all trainable".to_owned(),
            frozen => format!("{} trainable, {} frozen", grouped(self.parameters - frozen), grouped(frozen)),
        };
        writeln!(f, "{} parameters ({trainable}), {}", grouped(self.parameters), byte_count(self.bytes))
    }
}

/// `1,234,567`.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `4.7 MiB`.
fn byte_count(bytes: usize) -> String {
    let (mut n, mut unit) = (bytes as f64, 0);
    while n >= 1024.0 && unit < 4 {
        n /= 1024.0;
        unit += 1;
    }
    let unit = ["B", "KiB", "MiB", "GiB", "TiB"][unit];
    if unit == "B" { format!("{bytes} B") } else { format!("{n:.1} {unit}") }
}
