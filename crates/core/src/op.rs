//! An op, and the one doorway through which every op passes: check, evaluate, record.

use crate::autodiff::{self, Aux, CallRule, Grads, Node, Rule, Vjp};
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
    /// Whether an input is of use to the gradients of the others alone.
    others: bool,
}

impl Saves {
    /// Nothing but shapes.
    pub const NOTHING: Saves = Saves { inputs: 0, outputs: false, others: false };
    /// Every input.
    pub const INPUTS: Saves = Saves { inputs: 0xff, ..Saves::NOTHING };
    /// Each input whose gradient is not the only one wanted: in a product, an operand is needed for the gradient of the other.
    pub const OTHERS: Saves = Saves { inputs: 0xff, outputs: false, others: true };
    /// Every output.
    pub const OUTPUT: Saves = Saves { outputs: true, ..Saves::NOTHING };
    /// Every input and output.
    pub const BOTH: Saves = Saves { inputs: 0xff, outputs: true, others: false };
    /// Also input `i`.
    pub const fn input(self, i: usize) -> Saves {
        Saves { inputs: self.inputs | 1 << i, ..self }
    }
    /// Also every output.
    pub const fn output(self) -> Saves {
        Saves { outputs: true, ..self }
    }
    #[inline]
    pub(crate) fn has_input(self, i: usize) -> bool {
        // The eighth bit stands for every later input too, for ops of many inputs (`cat`), which save all or none.
        self.inputs >> i.min(7) & 1 == 1
    }
    /// Whether a call with these inputs keeps input `i`.
    #[inline]
    pub(crate) fn keeps(self, i: usize, x: &[&Tensor]) -> bool {
        let wanted = |(j, t): (usize, &&Tensor)| j != i && t.node.is_some();
        self.has_input(i) && (!self.others || x.iter().enumerate().any(wanted))
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

/// What the op says of the call is lent on and never moved: a copy of words that were just written waits for them, and waiting
/// would be most of what a call of a few elements takes.
#[track_caller]
fn apply1<O: Op, const N: usize>(op: O, x: &[&Tensor; N]) -> Result<Tensor> {
    let device = device_of(op.name(), x)?;
    let inferred = op.infer(&x.map(|t| t.meta()));
    let meta = match &inferred {
        Ok(metas) if metas.len() == 1 => &metas[0],
        _ => return Err(inferred.map_or_else(|e| with_inputs(e, op.name(), x), |_| no_output(op.name()))),
    };
    sized(op.name(), x, meta)?;
    let out = match op.eval(device.backend(), &x.map(|t| t.view())) {
        Ok(mut outs) if outs.len() == 1 => outs.pop(),
        Ok(_) => None,
        Err(e) => return Err(with_inputs(e, op.name(), x)),
    };
    let Some(out) = out else { return Err(no_output(op.name())) };
    let value = out.value(meta, device, x);
    if !autodiff::records(x) {
        return Ok(Tensor::from_value(value));
    }
    let saves = op.saves();
    Ok(Node::call1(CallRule::of(OpRule(op)), x, saves, Aux::new(), value))
}

#[track_caller]
fn apply<O: Op>(op: O, x: &[&Tensor]) -> Result<Tensors> {
    let inputs: SmallVec<[Meta; 3]> = x.iter().map(|t| t.meta()).collect();
    let (device, metas) = checked(op.name(), x, &inputs, |m| op.infer(m))?;
    let views: SmallVec<[View<'_>; 3]> = x.iter().map(|t| t.view()).collect();
    let outs = op.eval(device.backend(), &views).map_err(|e| with_inputs(e, op.name(), x))?;
    let values: SmallVec<[Arc<Value>; 1]> =
        outs.into_iter().zip(&metas).map(|(out, meta)| out.value(meta, device, x)).collect();
    if !autodiff::records(x) {
        return Ok(values.into_iter().map(Tensor::from_value).collect());
    }
    let saves = op.saves();
    Ok(Node::call(CallRule::of(OpRule(op)), x, saves, Aux::new(), values))
}

#[cold]
pub(crate) fn no_output(name: &'static str) -> Error {
    Error::misuse("the op did not give its one output").in_op(name, [])
}

impl Out {
    #[inline(always)]
    fn value(self, meta: &Meta, device: Device, x: &[&Tensor]) -> Arc<Value> {
        match self {
            Out::New(buffer) => Value::dense(buffer, meta, device),
            Out::View(i, layout) => Arc::new(Value::new(x[i].value.buffer.clone(), *layout, meta.dtype, device)),
        }
    }
}

/// The common device, or an error that names the op and its inputs.
#[inline(always)]
pub(crate) fn device_of(name: &'static str, x: &[&Tensor]) -> Result<Device> {
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
    Ok(device)
}

/// Whether an output's bytes can be counted, or an error that names the op and its inputs.
#[inline(always)]
pub(crate) fn sized(name: &'static str, x: &[&Tensor], output: &Meta) -> Result<()> {
    match output.shape.checked_elements(output.dtype.size()) {
        Ok(_) => Ok(()),
        Err(e) => Err(with_inputs(e, name, x)),
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
    let device = device_of(name, x)?;
    let metas = infer(inputs).map_err(|e| with_inputs(e, name, x))?;
    metas.iter().try_for_each(|m| sized(name, x, m))?;
    Ok((device, metas))
}

#[cold]
pub(crate) fn with_inputs(e: Error, name: &'static str, x: &[&Tensor]) -> Error {
    e.in_op(name, x.iter().map(|t| (t.dtype(), *t.shape())))
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
