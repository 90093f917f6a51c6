//! Nodes of the graph.

use super::rule::{CallRule, Rule};
use super::vjp::Vjp;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::op::{Meta, Saves, Tensors};
use crate::precision::allows_tf32;
use crate::tensor::{Tensor, Value};
use smallvec::{SmallVec, smallvec};
use std::fmt::Debug;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The gradients of a call's inputs, in their order; `None` where none flows.
pub type Grads = SmallVec<[Option<Tensor>; 3]>;

/// What a fused kernel computed besides, for its backward.
pub type Aux = SmallVec<[Tensor; 1]>;

/// A gradient hook: sees a tensor's gradient when it is complete, and may replace it.
pub type Hook = Box<dyn Fn(&Tensor) -> Option<Tensor> + Send + Sync>;

/// What a call keeps for its backward: tensors without their nodes, so that no cycle can arise.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// The inputs, where the rule wants them.
    pub inputs: SmallVec<[Option<Tensor>; 3]>,
    /// The outputs, if the rule wants them.
    pub outputs: SmallVec<[Tensor; 1]>,
    /// What a fused kernel computed besides.
    pub aux: Aux,
}

impl Saved {
    /// What a call with these inputs and outputs is to keep.
    #[inline]
    fn of(saves: Saves, x: &[&Tensor], outputs: &[Arc<Value>], aux: Aux) -> Saved {
        let inputs = match saves.has_inputs() {
            true => each(x, |i, t| saves.keeps(i, x).then(|| t.detach())),
            false => SmallVec::new(),
        };
        let outputs = match (saves.has_outputs(), outputs) {
            (false, _) => SmallVec::new(),
            (true, [y]) => SmallVec::from_buf([Tensor::from_value(y.clone())]),
            (true, many) => many.iter().cloned().map(Tensor::from_value).collect(),
        };
        Saved { inputs, outputs, aux }
    }

    /// The same of other values.
    pub(crate) fn map(&self, mut f: impl FnMut(&Arc<Value>) -> Result<Arc<Value>>) -> Result<Saved> {
        let mut of = |t: &Tensor| Ok(Tensor::from_value(f(&t.value)?));
        Ok(Saved {
            inputs: self.inputs.iter().map(|x| x.as_ref().map(&mut of).transpose()).collect::<Result<_>>()?,
            outputs: self.outputs.iter().map(&mut of).collect::<Result<_>>()?,
            aux: self.aux.iter().map(&mut of).collect::<Result<_>>()?,
        })
    }

    /// Ties the tensors of a call to the graph, for gradients that are differentiable themselves.
    #[cold]
    pub(crate) fn tie(&mut self, node: &Arc<Node>, call: &Call) {
        for (x, input) in self.inputs.iter_mut().zip(&call.inputs) {
            if let Some(x) = x {
                x.node = input.clone();
            }
        }
        for (i, y) in self.outputs.iter_mut().enumerate() {
            *y = match call.outputs() {
                1 => Tensor { value: y.value.clone(), node: Some(node.clone()) },
                _ => Node::output(node, i, y.value.clone()),
            };
        }
    }
}

/// An entry for each input. Up to three are written out: collecting them takes several times as long.
#[inline]
fn each<T>(x: &[&Tensor], entry: impl Fn(usize, &Tensor) -> Option<T>) -> SmallVec<[Option<T>; 3]> {
    match x {
        [a] => SmallVec::from_buf_and_len([entry(0, a), None, None], 1),
        [a, b] => SmallVec::from_buf_and_len([entry(0, a), entry(1, b), None], 2),
        [a, b, c] => SmallVec::from_buf([entry(0, a), entry(1, b), entry(2, c)]),
        _ => x.iter().enumerate().map(|(i, t)| entry(i, t)).collect(),
    }
}

/// Where a tensor came from: a leaf, or (one output of) a recorded call.
#[derive(Debug)]
pub struct Node {
    /// Creation order: a node is newer than everything that it was made from.
    pub(crate) id: u64,
    pub(crate) meta: Meta,
    pub(crate) device: Device,
    pub(crate) kind: Kind,
    /// What a call saved, until a walk frees it; no cell at all if there was nothing to save. Not part of the call, so that each field is
    /// short enough to be copied without a call of its own.
    saved: Option<Mutex<Option<Saved>>>,
    /// Whether the call was made where products may round to TF32: so may its gradient's.
    pub(crate) tf32: bool,
    hooks: OnceLock<Hooks>,
    pub(crate) at: &'static Location<'static>,
}

type HookList = Mutex<Vec<(u64, Hook)>>;
struct Hooks(Box<HookList>);
impl Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // calls are the usual kind; a box would cost each an allocation
pub(crate) enum Kind {
    /// A tensor that gradients end at, and gather in.
    Leaf(Mutex<Option<Tensor>>),
    /// A recorded call; the tensor's own node if the call has one output.
    Call(Call),
    /// One of several outputs of a call.
    Output { call: Arc<Node>, index: usize },
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) rule: CallRule,
    pub(crate) inputs: SmallVec<[Option<Arc<Node>>; 3]>,
    /// The inputs' metas, if not all are known by the inputs' nodes and saved values. Empty otherwise, as nodes should be small.
    pub(crate) input_metas: Box<[Meta]>,
    /// The outputs' metas if there are several; a single one's is the node's.
    pub(crate) several: Box<[Meta]>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static NEXT_HOOK: AtomicU64 = AtomicU64::new(1);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a lock was held (in a user's hook) leaves the data whole: every critical section only moves values.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// [`Node::new`] writes each of these: one more does not compile here before it is written there.
const _: fn(&Node) = |Node { id: _, meta: _, device: _, kind: _, saved: _, tf32: _, hooks: _, at: _ }| {};

impl Node {
    #[inline(always)]
    #[track_caller]
    fn new(meta: Meta, device: Device, kind: Kind, saved: Option<Mutex<Option<Saved>>>) -> Arc<Node> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let node = Arc::<Node>::new_uninit();
        let place = Arc::as_ptr(&node).cast::<Node>().cast_mut();
        // SAFETY: nobody else holds what was just made, and each of its fields is written. They are written where they stay: a node moved
        // there as a whole is read in words wider than those just written, and waits for them.
        unsafe {
            (&raw mut (*place).id).write(id);
            (&raw mut (*place).meta).write(meta);
            (&raw mut (*place).device).write(device);
            (&raw mut (*place).kind).write(kind);
            (&raw mut (*place).saved).write(saved);
            (&raw mut (*place).tf32).write(allows_tf32());
            (&raw mut (*place).hooks).write(OnceLock::new());
            (&raw mut (*place).at).write(Location::caller());
            node.assume_init()
        }
    }

    /// The newest id given so far: what is made from here on is newer.
    pub(crate) fn newest() -> u64 {
        NEXT_ID.load(Ordering::Relaxed) - 1
    }

    /// A leaf for a value like `value`.
    #[track_caller]
    pub(crate) fn leaf(value: &Value) -> Arc<Node> {
        Node::new(value.meta(), value.device(), Kind::Leaf(Mutex::new(None)), None)
    }

    /// Records a call and gives its outputs as tensors. Outputs that carry no gradient (integers, `bool`) get no node.
    #[track_caller]
    pub(crate) fn call(
        rule: CallRule,
        x: &[&Tensor],
        saves: Saves,
        aux: Aux,
        outputs: SmallVec<[Arc<Value>; 1]>,
    ) -> Tensors {
        if !outputs.iter().any(|v| v.dtype.is_float()) {
            return outputs.into_iter().map(Tensor::from_value).collect();
        }
        match outputs.into_inner() {
            Ok([value]) => smallvec![Node::call1(rule, x, saves, aux, value)],
            Err(outputs) => {
                let several = outputs.iter().map(|v| v.meta()).collect();
                let call = Node::of_call(rule, x, saves, aux, &outputs, several);
                let outputs = outputs.into_iter().enumerate();
                outputs.map(|(index, value)| Node::output(&call, index, value)).collect()
            }
        }
    }

    /// As [`call`](Self::call), for the only output.
    #[track_caller]
    pub(crate) fn call1(rule: CallRule, x: &[&Tensor], saves: Saves, aux: Aux, value: Arc<Value>) -> Tensor {
        // In a closure, the call's line would be this one.
        let node = match value.dtype.is_float() {
            true => Some(Node::of_call(rule, x, saves, aux, std::slice::from_ref(&value), Box::default())),
            false => None,
        };
        Tensor { value, node }
    }

    #[track_caller]
    fn of_call(
        rule: CallRule,
        x: &[&Tensor],
        saves: Saves,
        aux: Aux,
        outputs: &[Arc<Value>],
        several: Box<[Meta]>,
    ) -> Arc<Node> {
        let keeps = |i: usize| saves.keeps(i, x);
        let input_metas = match x.iter().enumerate().all(|(i, t)| t.node.is_some() || keeps(i)) {
            true => Box::default(),
            false => x.iter().map(|t| t.meta()).collect(),
        };
        let nothing = aux.is_empty() && !saves.has_outputs() && !(0..x.len()).any(keeps);
        let saved = if nothing { None } else { Some(Mutex::new(Some(Saved::of(saves, x, outputs, aux)))) };
        let inputs = each(x, |_, t| t.node.clone());
        let call = Call { rule, inputs, input_metas, several };
        Node::new(outputs[0].meta(), outputs[0].device(), Kind::Call(call), saved)
    }

    #[track_caller]
    fn output(call: &Arc<Node>, index: usize, value: Arc<Value>) -> Tensor {
        let node = value
            .dtype
            .is_float()
            .then(|| Node::new(value.meta(), value.device(), Kind::Output { call: call.clone(), index }, None));
        Tensor { value, node }
    }

    /// The same value behind a node of its own, through which gradients pass unchanged.
    #[track_caller]
    pub(crate) fn alias(x: &Tensor) -> Tensor {
        crate::capture::leave("a node of its own for a tensor");
        let mut outputs = SmallVec::new();
        outputs.push(x.value.clone());
        let mut out = Node::call(CallRule::of(Alias), &[x], Saves::NOTHING, Aux::new(), outputs);
        out.pop().unwrap_or_else(|| x.clone())
    }

    /// How many hooks were ever added, to any node.
    pub(crate) fn hooks_added() -> u64 {
        NEXT_HOOK.load(Ordering::Relaxed)
    }

    pub(crate) fn is_leaf(&self) -> bool {
        matches!(self.kind, Kind::Leaf(_))
    }

    /// The gradient gathered in a leaf.
    pub(crate) fn gathered(&self) -> Option<Tensor> {
        match &self.kind {
            Kind::Leaf(grad) => lock(grad).clone(),
            _ => None,
        }
    }

    /// Replaces the gradient gathered in a leaf; gives the old one.
    pub(crate) fn set_gathered(&self, new: Option<Tensor>) -> Option<Tensor> {
        match &self.kind {
            Kind::Leaf(grad) => std::mem::replace(&mut *lock(grad), new),
            _ => None,
        }
    }

    pub(crate) fn made_by(&self) -> &'static str {
        match &self.kind {
            Kind::Leaf(_) => "leaf",
            Kind::Call(call) => call.rule.name(),
            Kind::Output { call, .. } => call.made_by(),
        }
    }

    pub(crate) fn call_of(&self) -> Option<&Call> {
        match &self.kind {
            Kind::Call(call) => Some(call),
            _ => None,
        }
    }

    /// Whether a call's saved values are there: no walk has freed them.
    pub(crate) fn has_saved(&self) -> bool {
        self.saved.as_ref().is_none_or(|cell| lock(cell).is_some())
    }
    /// Whether there was nothing to save, or a walk has freed it.
    pub(crate) fn saves_nothing(&self) -> bool {
        self.saved.as_ref().is_none_or(|cell| lock(cell).is_none())
    }
    /// Puts saved values in place of those that are there, or that a walk has freed.
    pub(crate) fn put_saved(&self, saved: Saved) {
        if let Some(cell) = &self.saved {
            *lock(cell) = Some(saved);
        }
    }

    /// The saved values, taken unless they are to stay for another walk.
    pub(crate) fn saved(&self, keep: bool) -> Option<Saved> {
        let Some(cell) = &self.saved else { return Some(Saved::default()) };
        let mut saved = lock(cell);
        if keep { saved.clone() } else { saved.take() }
    }

    pub(crate) fn add_hook(&self, hook: Hook) -> u64 {
        crate::capture::leave("a gradient hook");
        let id = NEXT_HOOK.fetch_add(1, Ordering::Relaxed);
        let hooks = self.hooks.get_or_init(|| Hooks(Box::new(Mutex::new(Vec::new()))));
        lock(&hooks.0).push((id, hook));
        id
    }

    pub(crate) fn remove_hook(&self, id: u64) -> bool {
        let Some(hooks) = self.hooks.get() else { return false };
        let mut hooks = lock(&hooks.0);
        let before = hooks.len();
        hooks.retain(|(i, _)| *i != id);
        hooks.len() < before
    }

    /// Leaves a gradient as the hooks, in the order they were added, do.
    #[inline]
    pub(crate) fn run_hooks(&self, grad: &mut Tensor) {
        let Some(hooks) = self.hooks.get() else { return };
        for (_, hook) in lock(&hooks.0).iter() {
            crate::capture::leave_also_inside("a gradient hook");
            if let Some(new) = hook(grad) {
                *grad = new;
            }
        }
    }
}

impl Call {
    /// Number of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.several.len().max(1)
    }
}

impl Drop for Node {
    /// Drops a chain of nodes in a loop: a graph of a million nodes must not recurse a million deep.
    fn drop(&mut self) {
        let mut stack: SmallVec<[Arc<Node>; 4]> = SmallVec::new();
        take_inputs(&mut self.kind, &mut stack);
        while let Some(node) = stack.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                take_inputs(&mut node.kind, &mut stack);
            }
        }
    }
}

fn take_inputs(kind: &mut Kind, stack: &mut SmallVec<[Arc<Node>; 4]>) {
    match kind {
        Kind::Leaf(_) => {}
        Kind::Call(call) => {
            for input in &mut call.inputs {
                if let Some(node) = input.take() {
                    stack.push(node);
                }
            }
        }
        Kind::Output { call, .. } => stack.push(call.clone()),
    }
}

#[derive(Debug)]
struct Alias;
impl Rule for Alias {
    fn name(&self) -> &'static str {
        "alias"
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        smallvec::smallvec![Some(cx.grad())]
    }
}

/// A hook that stays registered until this handle removes it.
#[derive(Debug)]
pub struct HookHandle {
    node: Arc<Node>,
    id: u64,
}

impl HookHandle {
    pub(crate) fn new(node: Arc<Node>, hook: Hook) -> HookHandle {
        let id = node.add_hook(hook);
        HookHandle { node, id }
    }
    /// Removes the hook; says whether it was still there.
    pub fn remove(self) -> bool {
        self.node.remove_hook(self.id)
    }
}

pub(crate) fn freed(node: &Node) -> Error {
    Error::misuse(format!(
        "the values that {} (called at {}) kept for backward are gone: an earlier backward freed them; keep them with `backward_with(Backward::retain())`",
        node.call_of().map_or("a call", |c| c.rule.name()),
        node.at
    ))
}
