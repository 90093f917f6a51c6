//! An op, and the one doorway through which every op passes: check, evaluate, record.

use crate::autodiff::{self, CallRule, Grads, Node, Rule, Saved, Vjp};
use crate::backend::{Backend, Buffer, View};
use crate::capture::{self, Ask, Effect};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result, or_raise};
use crate::layout::Layout;
use crate::precision::{Autocast, recast};
use crate::shape::Shape;
use crate::tensor::{Tensor, Value};
use smallvec::SmallVec;
use std::fmt::Debug;
use std::sync::Arc;

/// What is known of a tensor without looking at its elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Its dtype.
    pub dtype: DType,
    /// Its shape.
    pub shape: Shape,
}

impl Meta {
    /// A tensor of this dtype and shape.
    #[inline]
    pub fn new(dtype: DType, shape: Shape) -> Meta {
        Meta { dtype, shape }
    }
}

/// The metas of an op's outputs.
pub type Metas = SmallVec<[Meta; 1]>;
/// An op's outputs.
pub type Tensors = SmallVec<[Tensor; 3]>;
/// What an op's evaluation gave.
pub type Outs = SmallVec<[Out; 1]>;

/// One output of an evaluation.
#[derive(Debug)]
pub enum Out {
    /// A view of an input, by its place: no data moves. Boxed, so that the usual outcome is small to hand on.
    View(usize, Box<Layout>),
    /// A new buffer, dense and row-major.
    New(Buffer),
}

/// The metas of a single output.
#[inline]
pub fn one(dtype: DType, shape: Shape) -> Metas {
    SmallVec::from_buf([Meta { dtype, shape }])
}

/// A single new output.
#[inline]
pub fn new(buffer: Buffer) -> Outs {
    SmallVec::from_buf([Out::New(buffer)])
}

/// What backward needs of a call, and so keeps alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Saves {
    inputs: u8,
    outputs: bool,
}

impl Saves {
    /// Nothing but shapes.
    pub const NOTHING: Saves = Saves { inputs: 0, outputs: false };
    /// Every input.
    pub const INPUTS: Saves = Saves { inputs: 0xff, outputs: false };
    /// Every output.
    pub const OUTPUT: Saves = Saves { inputs: 0, outputs: true };
    /// Every input and output.
    pub const BOTH: Saves = Saves { inputs: 0xff, outputs: true };
    /// Also input `i`.
    pub const fn input(self, i: usize) -> Saves {
        Saves { inputs: self.inputs | 1 << i, outputs: self.outputs }
    }
    /// Also every output.
    pub const fn output(self) -> Saves {
        Saves { inputs: self.inputs, outputs: true }
    }
    #[inline]
    pub(crate) fn has_input(self, i: usize) -> bool {
        // The eighth bit stands for every later input too, for ops of many inputs (`cat`), which save all or none.
        self.inputs >> i.min(7) & 1 == 1
    }
    #[inline]
    pub(crate) fn has_inputs(self) -> bool {
        self.inputs != 0
    }
    #[inline]
    pub(crate) fn has_outputs(self) -> bool {
        self.outputs
    }
}

/// A primitive: what a backend evaluates, and whose gradient is written in tensors.
///
/// Its `Debug` text shows all of its attributes (a derived one does): a recorded step ([`crate::capture`]) tells calls apart by it.
pub trait Op: Debug + Send + Sync + 'static {
    /// Its name, as in the catalog.
    fn name(&self) -> &'static str;
    /// Every check of the inputs, once; gives the outputs' dtypes and shapes.
    fn infer(&self, x: &[Meta]) -> Result<Metas>;
    /// The outputs. The inputs have passed [`infer`](Op::infer) and live on one device.
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs>;
    /// What backward keeps alive.
    fn saves(&self) -> Saves {
        Saves::INPUTS
    }
    /// What it computes in under a half precision.
    fn autocast(&self) -> Autocast {
        Autocast::Widest
    }
    /// The vector-Jacobian product, in tensors: differentiable again. One entry for each input; `None` where no gradient
    /// flows (integers, indices). The engine accumulates and un-broadcasts.
    fn vjp(&self, cx: &Vjp<'_>) -> Grads;
}

impl Tensor {
    /// Runs an op: the one doorway. Panics at the caller's line on misuse.
    #[inline]
    #[track_caller]
    pub fn apply(op: impl Op, x: &[&Tensor]) -> Tensors {
        or_raise(Tensor::try_apply(op, x))
    }

    /// Runs an op with one output: as [`try_apply`](Self::try_apply), with all that is known of the call on the stack.
    #[track_caller]
    #[inline]
    pub fn try_apply1<O: Op, const N: usize>(op: O, x: &[&Tensor; N]) -> Result<Tensor> {
        if let Some(cast) = recast(op.autocast(), x) {
            let cast = cast.map_err(|e| with_inputs(e, op.name(), x))?;
            return Tensor::try_apply1(op, &std::array::from_fn::<&Tensor, N, _>(|i| &cast[i]));
        }
        let note = match capture::ask(&op, x) {
            Ask::Eager => return apply1(op, x),
            Ask::Done(outputs) => {
                let first = |mut outputs: Tensors| outputs.pop().ok_or_else(|| no_output(op.name()));
                return outputs.map_err(|e| with_inputs(e, op.name(), x)).and_then(first);
            }
            Ask::Define => return Err(Error::misuse("a primitive was recorded as a composite")),
            Ask::Note(note) => note,
        };
        let out = apply1(op, x)?;
        note.gave(std::slice::from_ref(&out), Effect::None);
        Ok(out)
    }

    /// Runs an op: cast as the precision wants it, infer, evaluate, record.
    #[track_caller]
    pub fn try_apply<O: Op>(op: O, x: &[&Tensor]) -> Result<Tensors> {
        if let Some(cast) = recast(op.autocast(), x) {
            let cast = cast.map_err(|e| with_inputs(e, op.name(), x))?;
            return Tensor::try_apply(op, &cast.iter().collect::<SmallVec<[&Tensor; 4]>>());
        }
        let note = match capture::ask(&op, x) {
            Ask::Eager => return apply(op, x),
            Ask::Done(outputs) => return outputs.map_err(|e| with_inputs(e, op.name(), x)),
            Ask::Define => return Err(Error::misuse("a primitive was recorded as a composite")),
            Ask::Note(note) => note,
        };
        let outputs = apply(op, x)?;
        note.gave(&outputs, Effect::None);
        Ok(outputs)
    }
}

#[track_caller]
fn apply1<O: Op, const N: usize>(op: O, x: &[&Tensor; N]) -> Result<Tensor> {
    let (device, metas) = checked(op.name(), x, &x.map(|t| t.meta()), |m| op.infer(m))?;
    let outs = op.eval(device.backend(), &x.map(|t| t.view())).map_err(|e| with_inputs(e, op.name(), x))?;
    let (Ok([out]), Some(meta)) = (outs.into_inner(), metas.first()) else { return Err(no_output(op.name())) };
    let value = Arc::new(out.value(meta, device, x));
    if !autodiff::records(x) {
        return Ok(Tensor::from_value(value));
    }
    let saved = Saved::of(op.saves(), x, std::slice::from_ref(&value), SmallVec::new());
    Ok(Node::call1(CallRule::of(OpRule(op)), x, saved, value))
}

#[track_caller]
fn apply<O: Op>(op: O, x: &[&Tensor]) -> Result<Tensors> {
    let inputs: SmallVec<[Meta; 3]> = x.iter().map(|t| t.meta()).collect();
    let (device, metas) = checked(op.name(), x, &inputs, |m| op.infer(m))?;
    let views: SmallVec<[View<'_>; 3]> = x.iter().map(|t| t.view()).collect();
    let outs = op.eval(device.backend(), &views).map_err(|e| with_inputs(e, op.name(), x))?;
    let values: SmallVec<[Arc<Value>; 1]> =
        outs.into_iter().zip(&metas).map(|(out, meta)| Arc::new(out.value(meta, device, x))).collect();
    if !autodiff::records(x) {
        return Ok(values.into_iter().map(Tensor::from_value).collect());
    }
    let saves = op.saves();
    Ok(record(OpRule(op), saves, x, values, SmallVec::new()))
}

#[cold]
fn no_output(name: &'static str) -> Error {
    Error::misuse("the op gave no output").in_op(name, [])
}

impl Out {
    #[inline(always)]
    fn value(self, meta: &Meta, device: Device, x: &[&Tensor]) -> Value {
        match self {
            Out::New(buffer) => Value::new(buffer, Layout::dense(meta.shape), meta.dtype, device),
            Out::View(i, layout) => Value::new(x[i].value.buffer.clone(), *layout, meta.dtype, device),
        }
    }
}

/// The common device and the output metas, or an error that names the op and its inputs.
#[inline(always)]
pub(crate) fn checked(
    name: &'static str,
    x: &[&Tensor],
    inputs: &[Meta],
    infer: impl FnOnce(&[Meta]) -> Result<Metas>,
) -> Result<(Device, Metas)> {
    let Some(first) = x.first() else {
        return Err(Error::misuse("needs at least one tensor").in_op(name, []));
    };
    let device = first.device();
    if x.iter().any(|t| t.device() != device) {
        let names: Vec<_> = x.iter().map(|t| t.device().name()).collect();
        let e =
            Error::misuse(format!("the tensors live on different devices: {}; move them with `to`", names.join(", ")));
        return Err(with_inputs(e, name, x));
    }
    let metas = infer(inputs).map_err(|e| with_inputs(e, name, x))?;
    for m in &metas {
        m.shape.checked_elements(m.dtype.size()).map_err(|e| with_inputs(e, name, x))?;
    }
    Ok((device, metas))
}

#[cold]
pub(crate) fn with_inputs(e: Error, name: &'static str, x: &[&Tensor]) -> Error {
    e.in_op(name, x.iter().map(|t| (t.dtype(), *t.shape())))
}

/// Turns evaluated values into tensors that remember where they came from.
#[track_caller]
pub(crate) fn record(
    rule: impl Rule,
    saves: Saves,
    x: &[&Tensor],
    outputs: SmallVec<[Arc<Value>; 1]>,
    aux: SmallVec<[Tensor; 1]>,
) -> Tensors {
    let saved = Saved::of(saves, x, &outputs, aux);
    Node::call(CallRule::of(rule), x, saved, outputs)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct OpRule<O>(O);

impl<O: Op> Rule for OpRule<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        self.0.vjp(cx)
    }
}
