//! The walk: newest node first, each once, its gradient complete when it is reached.

use super::node::{Call, Grads, Kind, Node, freed, lock};
use super::vjp::Vjp;
use super::with_recording;
use crate::backend::WriteMode;
use crate::capture::{self, Ask, Effect};
use crate::error::{Error, Result, or_raise};
use crate::op::Meta;
use crate::precision::{Precision, with_precision};
use crate::tensor::{Tensor, Value};
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// How a backward walk is to go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backward {
    /// The gradients are differentiable themselves.
    pub create_graph: bool,
    /// What the calls saved stays, for another walk.
    pub retain_graph: bool,
}

impl Backward {
    /// The gradients are differentiable themselves (and the graph stays).
    pub fn graph() -> Backward {
        Backward { create_graph: true, retain_graph: true }
    }
    /// The graph stays for another walk.
    pub fn retain() -> Backward {
        Backward { create_graph: false, retain_graph: true }
    }
}

/// A node that a gradient has reached, and the gradients of its outputs so far.
struct Pending<'a> {
    node: &'a Arc<Node>,
    grads: SmallVec<[Option<Tensor>; 1]>,
}

/// What is pending: calls, oldest first, and leaves, newest first. A walk meets both about in the order in which they are popped,
/// so a new one goes near the end of its list; lists are small, and cheaper than a tree that allocates for each node.
#[derive(Default)]
struct Queue<'a> {
    calls: List<'a>,
    leaves: List<'a>,
}

type List<'a> = SmallVec<[Pending<'a>; 4]>;

impl<'a> Queue<'a> {
    /// The newest call; when no call is left, the leaves.
    fn pop(&mut self) -> Option<Pending<'a>> {
        self.calls.pop().or_else(|| self.leaves.pop())
    }

    /// The list that a node belongs in, and its place: where it is, or would be.
    fn place(&mut self, node: &'a Arc<Node>) -> (&mut List<'a>, std::result::Result<usize, usize>) {
        if node.is_leaf() {
            let place = self.leaves.binary_search_by(|p| node.id.cmp(&p.node.id));
            (&mut self.leaves, place)
        } else {
            let place = self.calls.binary_search_by_key(&node.id, |p| p.node.id);
            (&mut self.calls, place)
        }
    }
}

impl<'a> Pending<'a> {
    /// A node reached for the first time, by the gradient of output `index`.
    fn new(node: &'a Arc<Node>, index: usize, g: Tensor) -> Pending<'a> {
        let grads = match node.call_of().map_or(1, |c| c.outputs()) {
            1 => SmallVec::from_buf([Some(g)]), // as a rule; `from_elem` takes its time
            outputs => {
                let mut grads = SmallVec::from_elem(None, outputs);
                grads[index] = Some(g);
                grads
            }
        };
        Pending { node, grads }
    }
}

struct Walk<'a> {
    how: Backward,
    pending: Queue<'a>,
    /// Nodes from which a wanted one can be reached; `None` walks everything and gathers in the leaves.
    on_path: Option<HashSet<u64>>,
    /// The places of their gradients in `found`.
    wanted: Option<HashMap<u64, usize>>,
    /// Whether the walk stops at them.
    frontier: bool,
    found: &'a mut [Option<Tensor>],
}

impl Tensor {
    /// The gradients of this scalar, added to every leaf that it was made from ([`Tensor::grad`]).
    ///
    /// Panics at the caller's line if the tensor has more than one element or was not made from a tracked one.
    #[track_caller]
    pub fn backward(&self) {
        or_raise(self.try_backward())
    }

    /// As [`backward`](Self::backward), with misuse returned as an error.
    pub fn try_backward(&self) -> Result<()> {
        self.try_backward_with(None, Backward::default())
    }

    /// As [`backward`](Self::backward), from the given gradient of this tensor, and in the given way.
    #[track_caller]
    pub fn backward_with(&self, seed: Option<&Tensor>, how: Backward) {
        or_raise(self.try_backward_with(seed, how))
    }

    /// As [`backward_with`](Self::backward_with), with misuse returned as an error.
    pub fn try_backward_with(&self, seed: Option<&Tensor>, how: Backward) -> Result<()> {
        let asked = match seed {
            None => capture::ask(&how, &[self]),
            Some(seed) => capture::ask(&how, &[self, seed]),
        };
        match asked {
            Ask::Eager | Ask::Define => self.walk_back(seed, how),
            Ask::Done(done) => done.map(drop),
            Ask::Note(note) => {
                self.walk_back(seed, how)?;
                note.gathered();
                Ok(())
            }
        }
    }

    fn walk_back(&self, seed: Option<&Tensor>, how: Backward) -> Result<()> {
        let seed = seed_for(self, seed)?;
        let node = self.node.as_ref().ok_or_else(|| untracked("backward", self))?;
        let mut walk =
            Walk { how, pending: Queue::default(), on_path: None, wanted: None, frontier: false, found: &mut [] };
        walk.push(node, seed)?;
        walk.run()
    }
}

/// The gradients of `outputs` (summed) with respect to `inputs`, as PyTorch's `torch.autograd.grad`; leaves stay untouched.
///
/// An input that takes no part is an error that names its place: see [`grad_allow_unused`]. With [`Backward::graph`] the
/// gradients can be differentiated again.
#[track_caller]
pub fn grad(outputs: &[&Tensor], inputs: &[&Tensor], how: Backward) -> Vec<Tensor> {
    or_raise(try_grad(outputs, inputs, how))
}

/// As [`grad`], with misuse returned as an error.
pub fn try_grad(outputs: &[&Tensor], inputs: &[&Tensor], how: Backward) -> Result<Vec<Tensor>> {
    let found = try_grad_allow_unused(outputs, inputs, how)?;
    found.into_iter().enumerate().map(|(i, g)| g.ok_or_else(|| unused(i, inputs[i]))).collect()
}

/// As [`grad`], with `None` where an input takes no part. In PyTorch: `allow_unused=True`.
#[track_caller]
pub fn grad_allow_unused(outputs: &[&Tensor], inputs: &[&Tensor], how: Backward) -> Vec<Option<Tensor>> {
    or_raise(try_grad_allow_unused(outputs, inputs, how))
}

/// As [`grad_allow_unused`], with misuse returned as an error.
pub fn try_grad_allow_unused(outputs: &[&Tensor], inputs: &[&Tensor], how: Backward) -> Result<Vec<Option<Tensor>>> {
    let roots = outputs.iter().map(|&y| Ok((y.clone(), seed_for(y, None)?))).collect::<Result<Vec<_>>>()?;
    let wanted: Vec<Tensor> = inputs.iter().map(|&x| x.clone()).collect();
    if let Some(x) = wanted.iter().find(|x| x.node.is_none()) {
        return Err(untracked("grad", x));
    }
    gradients(&roots, &wanted, how)
}

/// The gradients for given output gradients; the graph stays if the gradients are to be differentiable.
pub(crate) fn gradients_of(roots: &[(Tensor, Tensor)], wanted: &[Tensor], graph: bool) -> Result<Vec<Option<Tensor>>> {
    gradients(roots, wanted, if graph { Backward::graph() } else { Backward::default() })
}

pub(crate) fn gradients(roots: &[(Tensor, Tensor)], wanted: &[Tensor], how: Backward) -> Result<Vec<Option<Tensor>>> {
    let nodes: Vec<Option<Arc<Node>>> = wanted.iter().map(|t| t.node.clone()).collect();
    gradients_at(roots, &nodes, how, false)
}

/// The gradients with respect to nodes. At a `frontier` the walk stops at each of them, so that what one has by way of another
/// is not counted.
pub(crate) fn gradients_at(
    roots: &[(Tensor, Tensor)],
    wanted: &[Option<Arc<Node>>],
    how: Backward,
    frontier: bool,
) -> Result<Vec<Option<Tensor>>> {
    if !capture::is_active() {
        return walk_to(roots, wanted, how, frontier);
    }
    let x: SmallVec<[&Tensor; 4]> = roots.iter().map(|(y, _)| y).chain(roots.iter().map(|(_, g)| g)).collect();
    // Nodes of a recorded graph are kept by the record, so their addresses tell them apart.
    let nodes: Vec<_> = wanted.iter().map(|n| n.as_ref().map_or(0, |n| Arc::as_ptr(n).addr())).collect();
    match capture::ask_as::<Walk<'static>>(&(how, frontier, nodes), &x) {
        Ask::Eager | Ask::Define => walk_to(roots, wanted, how, frontier),
        Ask::Done(given) => {
            let mut given = given?.into_iter();
            Ok(capture::last_found().into_iter().map(|found| if found { given.next() } else { None }).collect())
        }
        Ask::Note(note) => {
            let found = walk_to(roots, wanted, how, frontier)?;
            let given: Vec<Tensor> = found.iter().flatten().cloned().collect();
            note.gave(&given, Effect::Find(found.iter().map(Option::is_some).collect()));
            Ok(found)
        }
    }
}

fn walk_to(
    roots: &[(Tensor, Tensor)],
    wanted: &[Option<Arc<Node>>],
    how: Backward,
    frontier: bool,
) -> Result<Vec<Option<Tensor>>> {
    let mut ids = HashMap::new();
    let place: Vec<Option<usize>> = wanted
        .iter()
        .map(|node| {
            let next = ids.len();
            Some(*ids.entry(node.as_ref()?.id).or_insert(next))
        })
        .collect();
    let mut found = vec![None; ids.len()];
    let on_path = Some(paths_to(roots.iter().filter_map(|(y, _)| y.node.as_ref()), &ids));
    let mut walk = Walk { how, pending: Queue::default(), on_path, wanted: Some(ids), frontier, found: &mut found };
    for (y, g) in roots {
        if let Some(node) = &y.node {
            walk.push(node, g.clone())?;
        }
    }
    walk.run()?;
    drop(walk);
    Ok(place.into_iter().map(|p| p.and_then(|p| found[p].clone())).collect())
}

/// The nodes from which a wanted node can be reached, by an iterative depth-first search.
fn paths_to<'a>(roots: impl Iterator<Item = &'a Arc<Node>>, wanted: &HashMap<u64, usize>) -> HashSet<u64> {
    let oldest = wanted.keys().copied().min().unwrap_or(u64::MAX);
    let mut known: HashMap<u64, bool> = HashMap::new();
    let mut stack: Vec<(Arc<Node>, bool)> = roots.map(|n| (n.clone(), false)).collect();
    while let Some((node, children_done)) = stack.pop() {
        if children_done {
            let reaches = wanted.contains_key(&node.id) || inputs_of(&node).any(|n| known.get(&n.id) == Some(&true));
            known.insert(node.id, reaches);
        } else if node.id >= oldest && !known.contains_key(&node.id) {
            known.insert(node.id, false); // until its inputs are known
            stack.push((node.clone(), true));
            stack.extend(inputs_of(&node).map(|n| (n.clone(), false)));
        }
    }
    known.into_iter().filter_map(|(id, reaches)| reaches.then_some(id)).collect()
}

pub(crate) fn inputs_of(node: &Node) -> impl Iterator<Item = &Arc<Node>> {
    let (many, one) = match &node.kind {
        Kind::Leaf(_) => (None, None),
        Kind::Call(call) => (Some(call.inputs.iter().flatten()), None),
        Kind::Output { call, .. } => (None, Some(call)),
    };
    many.into_iter().flatten().chain(one)
}

impl<'a> Walk<'a> {
    fn run(&mut self) -> Result<()> {
        // In the dtypes that the forward pass chose, wherever this is called.
        let graph = self.how.create_graph;
        let walk = || {
            while let Some(pending) = self.pending.pop() {
                self.visit(pending)?;
            }
            Ok(())
        };
        with_precision(Precision::F32, || with_recording(graph, walk))
    }

    fn visit(&mut self, Pending { node, mut grads }: Pending<'a>) -> Result<()> {
        if !matches!(&node.kind, Kind::Call(call) if call.outputs() > 1) {
            if let Some(g) = &mut grads[0] {
                node.run_hooks(g);
            }
            if let (Some(wanted), Some(g)) = (&self.wanted, &grads[0])
                && let Some(&i) = wanted.get(&node.id)
            {
                self.found[i] = Some(g.clone());
                if self.frontier {
                    return Ok(());
                }
            }
        }
        match &node.kind {
            Kind::Leaf(slot) => {
                if let (None, Some(g)) = (&self.on_path, grads[0].take()) {
                    let mut slot = lock(slot);
                    capture::note_leaf(node, slot.as_ref());
                    *slot = Some(match slot.take() {
                        None => leaf_grad(g, self.how)?,
                        Some(old) => accumulate(old, g)?,
                    });
                }
                Ok(())
            }
            Kind::Output { call, index } => match grads[0].take() {
                Some(g) => self.push_at(call, *index, g),
                None => Ok(()),
            },
            Kind::Call(call) => self.differentiate(node, call, &grads),
        }
    }

    fn differentiate(&mut self, node: &'a Arc<Node>, call: &'a Call, grads: &[Option<Tensor>]) -> Result<()> {
        if self.on_path.as_ref().is_some_and(|p| !call.inputs.iter().flatten().any(|n| p.contains(&n.id))) {
            return Ok(()); // a wanted call: what lies behind it is not asked for, and must keep what it saved
        }
        let Some(mut saved) = node.saved(self.how.retain_graph || self.how.create_graph) else {
            return Err(freed(node));
        };
        if self.how.create_graph {
            saved.tie(node, call);
        }
        let cx = Vjp { node, call, saved: &saved, grads, graph: self.how.create_graph };
        let vjp =
            || if node.tf32 { with_precision(Precision::Tf32, || call.rule.vjp(&cx)) } else { call.rule.vjp(&cx) };
        let mut given = Grads::new();
        catch_unwind(AssertUnwindSafe(|| given = vjp())).map_err(|p| failed(node, call, p))?;
        drop(saved);
        if given.len() != call.inputs.len() {
            let (have, want) = (given.len(), call.inputs.len());
            return Err(Error::misuse(format!(
                "the gradient of {} gave {have} entries for {want} inputs",
                call.rule.name()
            )));
        }
        for (i, (input, g)) in call.inputs.iter().zip(&mut given).enumerate() {
            if let (Some(input), Some(g)) = (input, g.take()) {
                if self.on_path.as_ref().is_some_and(|p| !p.contains(&input.id)) {
                    continue;
                }
                let g = fitted(g, &input.meta)
                    .map_err(|e| e.context(format!("gradient of {} for input {i}", call.rule.name())))?;
                self.push(input, g)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, node: &'a Arc<Node>, g: Tensor) -> Result<()> {
        self.push_at(node, 0, g)
    }

    fn push_at(&mut self, node: &'a Arc<Node>, index: usize, g: Tensor) -> Result<()> {
        if self.on_path.as_ref().is_some_and(|p| !p.contains(&node.id)) {
            return Ok(());
        }
        let (list, place) = self.pending.place(node);
        match place {
            Ok(i) => {
                let slot = &mut list[i].grads[index];
                *slot = Some(match slot.take() {
                    None => g,
                    Some(old) => accumulate(old, g)?,
                });
            }
            Err(i) if i == list.len() => list.push(Pending::new(node, index, g)), // as a rule
            Err(i) => list.insert(i, Pending::new(node, index, g)),
        }
        Ok(())
    }
}

/// The gradient a walk starts from: ones for a scalar, or the given one, which must have the tensor's shape.
fn seed_for(y: &Tensor, seed: Option<&Tensor>) -> Result<Tensor> {
    match seed {
        Some(s) if s.shape() == y.shape() && s.dtype() == y.dtype() => Ok(s.clone()),
        Some(s) => Err(Error::misuse(format!(
            "backward: the gradient given is {} {}, but the tensor is {} {}",
            s.dtype(),
            s.shape(),
            y.dtype(),
            y.shape()
        ))),
        // A record has a seed of its own.
        None if y.rank() == 0 && capture::is_off() => {
            let ones = y.device().backend().ones();
            Ok(Tensor::from_value(ones.get(y.device(), y.dtype())?))
        }
        None if y.elements() == 1 => Tensor::try_full(*y.shape(), 1.0, y.place()),
        None => Err(Error::misuse(format!(
            "backward: only a tensor of one element has a gradient by itself; this one has shape {}. Reduce it (`sum`, `mean`), or give its gradient",
            y.shape()
        ))),
    }
}

#[cold]
fn untracked(what: &str, t: &Tensor) -> Error {
    Error::misuse(format!(
        "{what}: this {} {} was not made from a tensor that requires a gradient",
        t.dtype(),
        t.shape()
    ))
}

#[cold]
fn unused(i: usize, x: &Tensor) -> Error {
    Error::misuse(format!(
        "grad: no output depends on input {i}, a {} {}; if that is meant, `grad_allow_unused` gives `None` for it",
        x.dtype(),
        x.shape()
    ))
}

#[cold]
fn failed(node: &Node, call: &Call, panic: Box<dyn std::any::Any + Send>) -> Error {
    let why = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message");
    Error::misuse(format!("backward of {}, called at {}: {why}", call.rule.name(), node.at))
}

/// The gradient summed over what was broadcast, in its tensor's dtype.
fn fitted(g: Tensor, meta: &Meta) -> Result<Tensor> {
    let g = if *g.shape() == meta.shape { g } else { g.try_sum_to(meta.shape)? };
    if g.dtype() == meta.dtype { Ok(g) } else { g.try_to_dtype(meta.dtype) }
}

/// A leaf's first gradient: kept as it is if nobody else can see it, else made dense and its own.
fn leaf_grad(g: Tensor, how: Backward) -> Result<Tensor> {
    if how.create_graph || (g.is_dense() && g.value.layout.offset() == 0) { Ok(g) } else { g.try_contiguous() }
}

/// `old + new`, in place where `old` is held by nobody else and no graph is being made.
fn accumulate(mut old: Tensor, new: Tensor) -> Result<Tensor> {
    if old.node.is_none()
        && new.node.is_none()
        && let Some(Value { buffer, layout, dtype }) = Arc::get_mut(&mut old.value)
        && *dtype == new.dtype()
        && layout.is_dense()
        && Arc::get_mut(buffer).is_some()
    {
        new.device().backend().write(buffer, layout, new.view(), WriteMode::Add)?;
        return Ok(old);
    }
    old.try_add(&new)
}
